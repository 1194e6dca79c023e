//! Access keys: documents under `access-key/` of the catalog, and a snapshot of them in memory that a watch keeps fresh.
//!
//! Every account has a root key, made when it is first asked for. Secrets come from the kernel's random bytes and are
//! never logged. Next to each key stand the signing keys derived from it, which are good for one day, region and service.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use jiff::Timestamp;
use lambent_model::AccountId;
use lambent_store::port::{Change, Expect, Write};
use lambent_store::{Catalog, record};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::sigv4::{self, Principal};

/// Where keys are kept in the catalog.
const PREFIX: &str = "access-key/";
/// Format of the documents ([`record`]).
const FORMAT: u32 = 1;
/// Derived keys kept beside each access key: a handful of services, yesterday, today and tomorrow.
const MOST_DERIVED: usize = 16;

/// A secret and whose it is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessKey {
    /// `AKIA…`, twenty characters.
    pub id: String,
    /// Forty characters.
    pub secret: String,
    /// The account it acts for.
    pub account: AccountId,
    /// The user of the account it acts as; none: the account's root.
    pub user: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Whether requests signed with it are accepted.
    pub active: bool,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).field("account", &self.account).finish_non_exhaustive()
    }
}

impl AccessKey {
    /// A fresh key of `account`, not yet kept anywhere.
    fn generate(account: &AccountId, user: Option<String>, now: Timestamp) -> Result<Self, Error> {
        let (id, secret, account) = (random_id("AKIA")?, random_text()?, account.clone());
        Ok(Self { id, secret, account, user, created_at: now, active: true })
    }

    fn principal(&self) -> Principal {
        let who = self.user.as_ref().map_or_else(|| "root".to_owned(), |name| format!("user/{name}"));
        let arn = format!("arn:aws:iam::{}:{who}", self.account);
        Principal { account: self.account.clone(), arn, access_key_id: self.id.clone(), function: None }
    }
}

/// Characters drawn from an alphabet whose length divides 256, so that each is equally likely.
fn random<const N: usize>(alphabet: &[u8]) -> Result<String, Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(Error::Random)?;
    let character = |byte: &u8| alphabet.get(usize::from(*byte) % alphabet.len()).copied().map(char::from);
    Ok(bytes.iter().filter_map(character).collect())
}

/// The id of an access key: AWS's four letters for its kind, and sixteen more.
pub(crate) fn random_id(kind: &str) -> Result<String, Error> {
    Ok(format!("{kind}{}", random::<16>(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")?))
}

/// A secret: forty characters.
pub(crate) fn random_text() -> Result<String, Error> {
    random::<40>(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
}

/// Why keys cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error("access keys cannot be read or written")]
    Store(#[source] lambent_store::Error),
    /// The kernel gave no random bytes.
    #[error("no random bytes for a secret")]
    Random(#[source] getrandom::Error),
}

struct Entry {
    key: Arc<AccessKey>,
    principal: Arc<Principal>,
    /// Signing keys by `DAY/REGION/SERVICE`, oldest first.
    derived: Mutex<Vec<(String, Arc<hmac::Key>)>>,
}

type Snapshot = HashMap<String, Arc<Entry>>;

/// All access keys of this node's accounts, readable without I/O.
pub struct Keys {
    catalog: Arc<dyn Catalog>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    follower: JoinHandle<()>,
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Keys {
    /// Reads the keys in `catalog` and follows their changes from then on.
    pub async fn open(catalog: Arc<dyn Catalog>) -> Result<Arc<Self>, Error> {
        let mut changes = catalog.watch(PREFIX).await.map_err(Error::Store)?;
        let mut first = Snapshot::new();
        while let Some(change) = changes.recv().await {
            if matches!(change, Change::Ready) {
                break;
            }
            apply(&mut first, change)?;
        }
        let snapshot = Arc::new(ArcSwap::from_pointee(first));
        let target = Arc::clone(&snapshot);
        let follower = tokio::spawn(async move {
            while let Some(change) = changes.recv().await {
                target.rcu(|now| {
                    let mut next = Snapshot::clone(now);
                    if let Err(error) = apply(&mut next, change.clone()) {
                        tracing::error!(%error, "an access key was skipped");
                    }
                    next
                });
            }
        });
        Ok(Arc::new(Self { catalog, snapshot, follower }))
    }

    /// The key of this id, active or not.
    pub fn find(&self, id: &str) -> Option<Arc<AccessKey>> {
        self.snapshot.load().get(id).map(|entry| Arc::clone(&entry.key))
    }

    /// All keys of `account`, oldest first.
    pub fn of(&self, account: &AccountId) -> Vec<Arc<AccessKey>> {
        let mut keys: Vec<_> = self.snapshot.load().values().map(|entry| Arc::clone(&entry.key)).collect();
        keys.retain(|key| key.account == *account);
        keys.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        keys
    }

    /// The root key of `account`; made at the first call for that account.
    pub async fn root(&self, account: &AccountId, now: Timestamp) -> Result<Arc<AccessKey>, Error> {
        match self.of(account).into_iter().find(|key| key.user.is_none() && key.active) {
            Some(key) => Ok(key),
            None => self.create(account, None, now).await,
        }
    }

    /// Makes and keeps a key.
    pub async fn create(
        &self,
        account: &AccountId,
        user: Option<String>,
        now: Timestamp,
    ) -> Result<Arc<AccessKey>, Error> {
        let key = AccessKey::generate(account, user, now)?;
        let name = format!("{PREFIX}{}", key.id);
        let value = record::write(FORMAT, &key).map_err(Error::Store)?;
        let write = Write { key: name, expect: Expect::Absent, value: Some(value) };
        self.catalog.commit(vec![write]).await.map_err(Error::Store)?;
        // The watch will bring it too; whoever made it must not have to wait for that.
        let key = Arc::new(key);
        self.snapshot.rcu(|now| {
            let mut next = Snapshot::clone(now);
            next.insert(key.id.clone(), entry(Arc::clone(&key)));
            next
        });
        Ok(key)
    }

    /// Who owns an active key, and what signs for this day, region and service with it.
    pub(crate) fn signing_key(
        &self,
        id: &str,
        day: &str,
        region: &str,
        service: &str,
    ) -> Option<(Arc<Principal>, Arc<hmac::Key>)> {
        let snapshot = self.snapshot.load();
        let entry = snapshot.get(id).filter(|entry| entry.key.active)?;
        let is_wanted = |scope: &str| {
            let rest = scope.strip_prefix(day).and_then(|rest| rest.strip_prefix('/')?.strip_prefix(region));
            rest.and_then(|rest| rest.strip_prefix('/')) == Some(service)
        };
        let mut derived = entry.derived.lock().unwrap_or_else(PoisonError::into_inner);
        let key = match derived.iter().find(|(scope, _)| is_wanted(scope)) {
            Some((_, key)) => Arc::clone(key),
            None => {
                let key = Arc::new(sigv4::signing_key(&entry.key.secret, day, region, service));
                if derived.len() >= MOST_DERIVED {
                    derived.remove(0);
                }
                derived.push((format!("{day}/{region}/{service}"), Arc::clone(&key)));
                key
            }
        };
        Some((Arc::clone(&entry.principal), key))
    }
}

fn entry(key: Arc<AccessKey>) -> Arc<Entry> {
    Arc::new(Entry { principal: Arc::new(key.principal()), key, derived: Mutex::default() })
}

fn apply(snapshot: &mut Snapshot, change: Change) -> Result<(), Error> {
    match change {
        Change::Ready => {}
        Change::Put(document) => {
            let key: AccessKey = record::read(FORMAT, &document).map_err(Error::Store)?;
            if snapshot.get(&key.id).is_none_or(|known| *known.key != key) {
                snapshot.insert(key.id.clone(), entry(Arc::new(key)));
            }
        }
        Change::Deleted { key, .. } => {
            if let Some(id) = key.strip_prefix(PREFIX) {
                snapshot.remove(id);
            }
        }
    }
    Ok(())
}
