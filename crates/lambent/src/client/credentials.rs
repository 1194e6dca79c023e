//! The access key a client command signs with: the environment's, the data directory's, or that of `~/.aws/credentials`.

use anyhow::Result;

use crate::cmd::WrongUsage;
use crate::config::Env;
use crate::node::Home;

/// An access key.
#[derive(Clone)]
pub struct Credentials {
    /// Its id.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// For temporary credentials.
    pub session_token: Option<String>,
}

impl From<&Home> for Credentials {
    fn from(home: &Home) -> Self {
        let (access_key_id, secret_access_key) = (home.access_key_id.clone(), home.secret_access_key.clone());
        Self { access_key_id, secret_access_key, session_token: None }
    }
}

impl Credentials {
    /// The key of a node where one is named, else the environment's, else that of the shared credentials file.
    pub fn find(home: Option<&Home>, env: &dyn Env) -> Result<Self> {
        if let Some(home) = home {
            return Ok(Self::from(home));
        }
        if let (Some(id), Some(secret)) = (env.get("AWS_ACCESS_KEY_ID"), env.get("AWS_SECRET_ACCESS_KEY")) {
            let session_token = env.get("AWS_SESSION_TOKEN");
            return Ok(Self { access_key_id: id, secret_access_key: secret, session_token });
        }
        let profile = env.get("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
        let shared = env.get("AWS_SHARED_CREDENTIALS_FILE");
        let path = shared.or_else(|| env.get("HOME").map(|home| format!("{home}/.aws/credentials")));
        let text = path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        of_profile(&text, &profile).ok_or_else(|| {
            WrongUsage("no access key: name the node's --data-dir, or set what `lambent credentials` prints".to_owned())
                .into()
        })
    }
}

/// The key of one profile of an `~/.aws/credentials` text.
fn of_profile(text: &str, profile: &str) -> Option<Credentials> {
    let section = format!("[{profile}]");
    let lines = text.lines().map(str::trim).skip_while(|line| *line != section).skip(1);
    let pairs: Vec<(&str, &str)> = lines
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim(), value.trim()))
        .collect();
    let get = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    Some(Credentials {
        access_key_id: get("aws_access_key_id")?,
        secret_access_key: get("aws_secret_access_key")?,
        session_token: get("aws_session_token"),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_told_apart() {
        let text = "[default]\naws_access_key_id = A\naws_secret_access_key = B\n\n[two]\naws_access_key_id=C\naws_secret_access_key=D\n";
        let key = of_profile(text, "two").unwrap();
        assert_eq!((key.access_key_id.as_str(), key.secret_access_key.as_str()), ("C", "D"));
        assert_eq!(of_profile(text, "default").unwrap().access_key_id, "A");
        assert!(of_profile(text, "three").is_none());
        assert!(of_profile("[x]\naws_access_key_id = A", "x").is_none());
    }
}
