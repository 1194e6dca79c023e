//! Auxiliary services: databases outside that an operator has named, and what the node asks of them for functions.
//!
//! ```text
//! [services.shop]  ──► Services::digest("shop", query) ──► may this function? ──► Service ──► sqlite.rs | postgresql.rs
//! ```
//! For now there is one thing to ask: the state of a query's result, as a digest. Whoever may ask can find out, digest by digest, all that
//! the service's user may read; so a service says which functions may, and its user should be one that may read what they need and no more.
//!
//! Credentials are the node's: they are handed to a back end when the node starts, and nothing here tells them to anybody.
//!
//! What bounds a digest: [`MOST_ROWS`], [`MOST_BYTES`], and the time that a service was made with. A result beyond them has none. Queries
//! only read: each back end sees to that with its own means.

mod postgresql;
mod result;
mod sqlite;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lambent_model::service::{Query, ServiceName};
use lambent_model::{AccountId, FunctionArn, FunctionName};

pub use postgresql::{Login, PostgreSql};
pub use sqlite::Sqlite;

/// Most rows of a result.
pub const MOST_ROWS: usize = 10_000;
/// Most bytes of it, names of columns included.
pub const MOST_BYTES: usize = 8 << 20;

/// Why a result has no digest. For people: whoever may use the service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody made one of this name.
    #[error("there is no service {0}; services.{0} would make one")]
    Unknown(ServiceName),
    /// Others may.
    #[error("{function} may not use the service {service}; services.{service}.functions names those that may")]
    NotAllowed {
        /// Who asked.
        function: FunctionName,
        /// For what.
        service: ServiceName,
    },
    /// The service, or what reads its answer, does not take the query.
    #[error("the query is refused: {0}")]
    Refused(String),
    /// The result is too large.
    #[error("the result has more than {most} {what}")]
    TooLarge {
        /// The bound.
        most: usize,
        /// `rows` or `bytes`.
        what: &'static str,
    },
    /// It took too long.
    #[error("the query took longer than {0:?}")]
    TimedOut(Duration),
    /// The service does not answer as it should.
    #[error("the service cannot be reached: {0}")]
    Unreachable(String),
}

/// The SHA-256 of a result: of the names of its columns, and the types and values of its rows in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResultDigest(pub [u8; 32]);

/// A back end: something that queries can be asked of.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// The state of what `query` gives now. Equal digests: it gives the same rows, in the same order. Nothing is changed by asking.
    async fn digest(&self, query: &Query) -> Result<ResultDigest, Error>;
}

/// Who may use a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Users {
    /// All functions of the node's account.
    All,
    /// These of them.
    Only(Vec<FunctionName>),
}

struct Named {
    service: Arc<dyn Service>,
    users: Users,
}

/// The services of a node.
#[derive(Default)]
pub struct Services {
    account: AccountId,
    named: BTreeMap<ServiceName, Named>,
}

impl Services {
    /// None yet, for functions of `account`.
    pub fn of(account: AccountId) -> Self {
        Self { account, named: BTreeMap::new() }
    }

    /// Adds one.
    pub fn add(&mut self, name: ServiceName, service: Arc<dyn Service>, users: Users) {
        self.named.insert(name, Named { service, users });
    }

    /// Whether `function` may use a service.
    pub fn check(&self, function: &FunctionArn, name: &ServiceName) -> Result<(), Error> {
        self.used_by(function, name).map(drop)
    }

    /// The state of a query's result.
    pub async fn digest(&self, name: &ServiceName, query: &Query) -> Result<ResultDigest, Error> {
        let named = self.named.get(name).ok_or_else(|| Error::Unknown(name.clone()))?;
        named.service.digest(query).await
    }

    fn used_by(&self, function: &FunctionArn, name: &ServiceName) -> Result<&Named, Error> {
        let named = self.named.get(name).ok_or_else(|| Error::Unknown(name.clone()))?;
        let is_user = match &named.users {
            Users::All => function.account == self.account,
            Users::Only(names) => function.account == self.account && names.contains(&function.name),
        };
        match is_user {
            true => Ok(named),
            false => Err(Error::NotAllowed { function: function.name.clone(), service: name.clone() }),
        }
    }
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.named.iter().map(|(name, named)| (name.as_str(), &named.users))).finish()
    }
}

/// Text of others, so long that people can read it.
fn shown(text: &str) -> String {
    const MOST_CHARS: usize = 300;
    text.chars().take(MOST_CHARS).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Fixed;

    #[async_trait]
    impl Service for Fixed {
        async fn digest(&self, _: &Query) -> Result<ResultDigest, Error> {
            Ok(ResultDigest([7; 32]))
        }
    }

    #[tokio::test]
    async fn a_service_says_who_may_use_it() {
        let mut services = Services::of(AccountId::default());
        let (all, some): (ServiceName, ServiceName) = ("all".parse().unwrap(), "some".parse().unwrap());
        services.add(all.clone(), Arc::new(Fixed), Users::All);
        services.add(some.clone(), Arc::new(Fixed), Users::Only(vec!["f".parse().unwrap()]));
        let of = |name: &str| FunctionArn {
            region: Default::default(),
            account: Default::default(),
            name: name.parse().unwrap(),
        };
        let stranger = FunctionArn { account: "111111111111".parse().unwrap(), ..of("f") };
        assert!(services.check(&of("f"), &some).is_ok() && services.check(&of("g"), &all).is_ok());
        assert!(matches!(services.check(&of("g"), &some), Err(Error::NotAllowed { .. })));
        assert!(matches!(services.check(&stranger, &some), Err(Error::NotAllowed { .. })));
        assert!(matches!(services.check(&stranger, &all), Err(Error::NotAllowed { .. })));
        let none = "none".parse().unwrap();
        let query = "SELECT 1".parse().unwrap();
        assert!(matches!(services.check(&of("f"), &none), Err(Error::Unknown(_))));
        assert!(matches!(services.digest(&none, &query).await, Err(Error::Unknown(_))));
        assert_eq!(services.digest(&all, &query).await.unwrap(), ResultDigest([7; 32]));
    }
}
