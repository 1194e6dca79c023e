//! Access keys: documents under `access-key/` of the catalog, and a snapshot of them in memory that a watch keeps fresh.

use std::sync::Arc;

use jiff::Timestamp;
use lambent_model::AccountId;
use lambent_store::Catalog;
use serde::{Deserialize, Serialize};

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

/// Why keys cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error("access keys cannot be read or written")]
    Store(#[source] lambent_store::Error),
    /// A stored key cannot be read back.
    #[error("stored access key {key} is damaged")]
    Damaged {
        /// The document's key.
        key: String,
        /// What is wrong with it.
        #[source]
        cause: serde_json::Error,
    },
    /// The kernel gave no random bytes.
    #[error("no random bytes for a secret")]
    Random(#[source] getrandom::Error),
}

/// All access keys of this node's accounts, readable without I/O.
pub struct Keys;

impl Keys {
    /// Reads the keys in `catalog` and follows their changes from then on.
    pub async fn open(_catalog: Arc<dyn Catalog>) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self))
    }

    /// The key of this id, active or not.
    pub fn find(&self, _id: &str) -> Option<Arc<AccessKey>> {
        None
    }

    /// The root key of `account`; made at the first call for that account.
    pub async fn root(&self, account: &AccountId, now: Timestamp) -> Result<Arc<AccessKey>, Error> {
        let (account, created_at) = (account.clone(), now);
        Ok(Arc::new(AccessKey {
            id: String::new(),
            secret: String::new(),
            account,
            user: None,
            created_at,
            active: true,
        }))
    }
}
