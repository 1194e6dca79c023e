//! What a node leaves in its data directory for the client commands: where it answers, and with which key.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use lambent_model::AccountId;
use lambent_policy::keys::Keys;
use lambent_store::Embedded;
use serde::{Deserialize, Serialize};

/// The file's name in the data directory.
const FILE: &str = "node.json";

/// What the client commands need to know of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// Base URL of its API; none where it has never run.
    pub endpoint: Option<String>,
    /// The region to sign for; none where it has never run.
    pub region: Option<String>,
    /// The account of the key.
    pub account: AccountId,
    /// The root key's id.
    pub access_key_id: String,
    /// The root key's secret.
    pub secret_access_key: String,
}

impl Home {
    /// What the node of `dir` left; none where it never ran.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        match std::fs::read(&path) {
            Ok(content) => {
                serde_json::from_slice(&content).with_context(|| format!("{} is damaged", path.display())).map(Some)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// What the node of `dir` left; where it never ran, its key is made now.
    pub async fn read_or_make(dir: &Path, account: &AccountId) -> Result<Self> {
        if let Some(home) = Self::read(dir)? {
            return Ok(home);
        }
        match super::open_store(dir).await {
            Ok(store) => Self::of_store(&store, account).await,
            // A node that was starting a moment ago has it, and has left its file by now.
            Err(error) => Self::read(dir)?.ok_or(error),
        }
    }

    async fn of_store(store: &Embedded, account: &AccountId) -> Result<Self> {
        let keys = Keys::open(store.catalog.clone()).await.context("cannot read the access keys")?;
        let key = keys.root(account, jiff::Timestamp::now()).await.context("cannot make an access key")?;
        Ok(Self {
            endpoint: None,
            region: None,
            account: account.clone(),
            access_key_id: key.id.clone(),
            secret_access_key: key.secret.clone(),
        })
    }

    /// Leaves this in `dir`, for its owner only; the file is there whole or not at all.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let write = || -> std::io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            file.as_file().set_permissions(std::fs::Permissions::from_mode(0o600))?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.persist(dir.join(FILE))?;
            Ok(())
        };
        write().with_context(|| format!("cannot write {}", dir.join(FILE).display()))
    }
}
