//! `[services.NAME]`: auxiliary services, whose rows functions' answers may depend on.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lambent_model::FunctionName;
use lambent_model::service::ServiceName;
use serde::{Deserialize, Serialize};

use super::reader::{Error, Reader};
use super::sections::Secret;

/// Where PostgreSQL listens where nothing else is said.
const DEFAULT_PORT: u16 = 5432;

/// A service. Its name is 1 to 32 of a-z, 0-9 and `_`, and begins with a letter. Since 0.2.
#[derive(Debug, Clone)]
pub struct Service {
    /// What it is, and where.
    pub place: Place,
    /// `functions`: those that may use it; they, and their code, can find out all that its user may read. Default: all of the account.
    pub functions: Option<Vec<FunctionName>>,
}

/// `kind`: `sqlite` or `postgresql`; the other keys depend on it.
#[derive(Debug, Clone)]
pub enum Place {
    /// A file of the node.
    Sqlite {
        /// `path`: the file, as a whole path. It is only read.
        path: PathBuf,
    },
    /// A server.
    PostgreSql {
        /// `host`: name, address, or the directory of a Unix socket. There is no TLS: let it be this machine, or a network that is trusted.
        host: String,
        /// `port`. Default 5432.
        port: u16,
        /// `database`.
        database: String,
        /// `user`: should be one that may read what is asked for and nothing else.
        user: String,
        /// `password`, or `password_file`; neither where the server wants none.
        password: Option<Password>,
    },
}

/// Where a password is.
#[derive(Clone)]
pub enum Password {
    /// `password`: here. `LAMBENT_SERVICES_NAME_PASSWORD` is another place for it.
    Given(String),
    /// `password_file`: in a file, whose last line end does not count. Read when the node starts.
    File(PathBuf),
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Given(_) => f.write_str("Given"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Sqlite,
    PostgreSql,
}

/// All that there are. A file or a flag makes one; variables of the environment only add to it, as their names do not tell its name from its keys.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<BTreeMap<ServiceName, Service>, Error> {
    let mut services = BTreeMap::new();
    for name in reader.below("services") {
        let name: ServiceName = name.parse().map_err(|error| Error::Contradiction(format!("services: {error}")))?;
        let service = service(reader, &name)?;
        services.insert(name, service);
    }
    Ok(services)
}

fn service(reader: &mut Reader<'_>, name: &ServiceName) -> Result<Service, Error> {
    let key = |key: &str| format!("services.{name}.{key}");
    let missing = |key: &str| Error::Contradiction(format!("services.{name}.{key} is missing"));
    let kind = reader.optional::<Kind>(key("kind"))?;
    let mut text = |name: &str| reader.optional::<String>(key(name))?.ok_or_else(|| missing(name));
    let place = match kind.ok_or_else(|| {
        Error::Contradiction(format!("services.{name}.kind is missing: give \"sqlite\" or \"postgresql\""))
    })? {
        Kind::Sqlite => Place::Sqlite { path: PathBuf::from(text("path")?) },
        Kind::PostgreSql => {
            let (host, database, user) = (text("host")?, text("database")?, text("user")?);
            let port = reader.value(key("port"), DEFAULT_PORT)?;
            let given = reader.optional::<Secret>(key("password"))?.map(|secret| Password::Given(secret.0));
            let file = reader.optional::<PathBuf>(key("password_file"))?.map(Password::File);
            if given.is_some() && file.is_some() {
                let text = format!("services.{name}.password and services.{name}.password_file: set one of them");
                return Err(Error::Contradiction(text));
            }
            Place::PostgreSql { host, port, database, user, password: given.or(file) }
        }
    };
    if let Place::Sqlite { path } = &place
        && !path.is_absolute()
    {
        return Err(Error::Contradiction(format!("services.{name}.path = {path:?}: give a whole path")));
    }
    Ok(Service { place, functions: reader.optional(key("functions"))? })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::super::{Use, join};
    use super::*;

    fn loaded(text: &str, env: &[(&str, &str); 1]) -> Result<super::super::Loaded, String> {
        let file = Some((PathBuf::from("lambent.toml"), text.parse().unwrap()));
        join(file, env, &[], Use::Serve).map_err(|error| error.to_string())
    }

    const NONE: [(&str, &str); 1] = [("HOME", "/root")];

    #[test]
    fn services_are_named_and_their_secrets_are_not_shown() {
        let text = "[services.shop]\nkind = 'postgresql'\nhost = '/run/postgresql'\ndatabase = 'd'\nuser = 'u'\npassword = 'S3CR3T'\n\
                    [services.book_2]\nkind = 'sqlite'\npath = '/srv/b.db'\nfunctions = ['f']";
        let found = loaded(text, &NONE).unwrap();
        let names: Vec<&str> = found.config.services.keys().map(ServiceName::as_str).collect();
        assert_eq!(names, ["book_2", "shop"]);
        let shown = |key: &str| found.effective.iter().find(|each| each.key == key).and_then(|each| each.value.clone());
        assert_eq!(shown("services.shop.port").unwrap().as_integer(), Some(5432));
        assert_eq!(shown("services.shop.password").unwrap().as_str(), Some("********"));
        assert!(!format!("{:?} {:?}", found.effective, found.config).contains("S3CR3T"));
        let env = [("LAMBENT_SERVICES_SHOP_PASSWORD", "OTHER")];
        let found = loaded(text, &env).unwrap();
        let Place::PostgreSql { password: Some(Password::Given(password)), .. } =
            &found.config.services[&"shop".parse::<ServiceName>().unwrap()].place
        else {
            panic!()
        };
        assert_eq!(password, "OTHER");
    }

    #[test]
    fn what_is_no_service_is_refused() {
        for (text, expected) in [
            ("[services.shop]", "services.shop.kind is missing: give \"sqlite\" or \"postgresql\""),
            ("[services.Shop]\nkind = 'sqlite'", "services: \"Shop\" is no name of a service"),
            ("[services.shop]\nkind = 'mysql'", "services.shop.kind = \"mysql\" (from lambent.toml) is not usable: "),
            ("[services.shop]\nkind = 'sqlite'", "services.shop.path is missing"),
            ("[services.shop]\nkind = 'sqlite'\npath = 'b.db'", "services.shop.path = \"b.db\": give a whole path"),
            (
                "[services.shop]\nkind = 'sqlite'\npath = '/b'\nhost = 'h'",
                "unknown key \"services.shop.host\" in lambent.toml",
            ),
            ("[services.shop]\nkind = 'sqlite'\npath = '/b'\nfunctions = ['a b']", "services.shop.functions = "),
            (
                "[services.shop]\nkind = 'postgresql'\nhost = 'h'\ndatabase = 'd'\nuser = 'u'\npassword = 'a'\npassword_file = '/b'",
                "services.shop.password and services.shop.password_file: set one of them",
            ),
        ] {
            let error = loaded(text, &NONE).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        let error = loaded("", &[("LAMBENT_SERVICES_SHOP_KIND", "sqlite")]).unwrap_err();
        assert!(error.starts_with("unknown key \"LAMBENT_SERVICES_SHOP_KIND\" in the environment"), "{error}");
    }
}
