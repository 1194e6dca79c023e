//! The auxiliary services of the configuration, with their credentials.

use std::sync::Arc;

use anyhow::{Context, Result};
use lambent_policy::services::{Login, PostgreSql, Service, Services, Sqlite, Users};

use crate::config::{Config, Password, Place};

/// Makes all of them. Whether they can be reached shows when they are asked.
pub fn open(config: &Config) -> Result<Services> {
    let mut services = Services::of(config.account.clone());
    let within = config.executions.look_within;
    for (name, configured) in &config.services {
        let service: Arc<dyn Service> = match &configured.place {
            Place::Sqlite { path } => Arc::new(Sqlite::new(path.clone(), within)),
            Place::PostgreSql { host, port, database, user, password } => {
                let password = password.as_ref().map(self::password).transpose();
                let login = Login {
                    host: host.clone(),
                    port: *port,
                    database: database.clone(),
                    user: user.clone(),
                    password: password.with_context(|| format!("cannot read services.{name}.password_file"))?,
                };
                Arc::new(PostgreSql::new(login, within))
            }
        };
        let users = configured.functions.clone().map_or(Users::All, Users::Only);
        services.add(name.clone(), service, users);
    }
    Ok(services)
}

fn password(place: &Password) -> Result<String> {
    match place {
        Password::Given(text) => Ok(text.clone()),
        Password::File(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            let line = text.strip_suffix('\n').unwrap_or(&text);
            Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
        }
    }
}
