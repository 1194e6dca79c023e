//! [`port::Blobs`](crate::port::Blobs) as plain files: `ab/abcd…`, named by digest.
//!
//! Content is written to `tmp/`, synced, renamed to its name, and the directory synced: a name that exists is a blob
//! that is whole. What a crash leaves in `tmp/` is swept at the next start.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use lambent_model::Digest;

use crate::{Error, port};

/// Content-addressed files below one directory.
#[derive(Debug, Clone)]
pub struct Blobs {
    root: PathBuf,
}

impl Blobs {
    /// Opens or makes the directory, and sweeps what a crash left unfinished.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let failed = |e| Error::io("opening the blob directory", "the blob directory", e);
        let temps = root.join("tmp");
        fs::create_dir_all(&temps).map_err(failed)?;
        for entry in fs::read_dir(&temps).map_err(failed)? {
            fs::remove_file(entry.map_err(failed)?.path()).map_err(failed)?;
        }
        sync_dir(root).map_err(failed)?;
        Ok(Self { root: root.to_owned() })
    }

    fn path_of(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        let shard = name.get(..2).unwrap_or_default().to_owned();
        self.root.join(shard).join(name)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        run: impl FnOnce(&Self) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || run(&this))
            .await
            .map_err(|e| Error::backend(operation, e))?
            .map_err(|e| Error::io(operation, "a blob", e))
    }

    fn write(&self, content: &[u8]) -> std::io::Result<Digest> {
        let digest = digest_of(content);
        let path = self.path_of(digest);
        let dir = path.parent().unwrap_or(&self.root);
        if !path.exists() {
            // The temporary file removes itself when anything below fails.
            let mut temp = tempfile::NamedTempFile::new_in(self.root.join("tmp"))?;
            temp.write_all(content)?;
            temp.as_file().sync_all()?;
            if !dir.exists() {
                fs::create_dir_all(dir)?;
                sync_dir(&self.root)?;
            }
            temp.persist(&path).map_err(|e| e.error)?;
        }
        // Also for a name that was there: the one who made it may not have come to this line yet.
        sync_dir(dir)?;
        Ok(digest)
    }

    fn names(&self) -> std::io::Result<Vec<Digest>> {
        let mut digests = Vec::new();
        for shard in fs::read_dir(&self.root)? {
            let shard = shard?;
            if !shard.file_type()?.is_dir() || shard.file_name() == "tmp" {
                continue;
            }
            for file in fs::read_dir(shard.path())? {
                digests.extend(file?.file_name().to_str().and_then(|name| name.parse::<Digest>().ok()));
            }
        }
        Ok(digests)
    }
}

fn digest_of(content: &[u8]) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, content).as_ref());
    Digest::from(bytes)
}

fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

/// None where there is no such file.
fn if_there<T>(result: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

#[async_trait]
impl port::Blobs for Blobs {
    async fn put(&self, content: Bytes) -> Result<Digest, Error> {
        self.blocking("writing a blob", move |this| this.write(&content)).await
    }

    async fn get(&self, digest: Digest) -> Result<Option<Bytes>, Error> {
        self.blocking("reading a blob", move |this| {
            let Some(content) = if_there(fs::read(this.path_of(digest)))? else { return Ok(None) };
            if digest_of(&content) != digest {
                return Err(std::io::Error::new(ErrorKind::InvalidData, format!("blob {digest} is damaged on disk")));
            }
            Ok(Some(content.into()))
        })
        .await
    }

    async fn path(&self, digest: Digest) -> Result<Option<PathBuf>, Error> {
        self.blocking("finding a blob", move |this| {
            let path = this.path_of(digest);
            Ok(path.try_exists()?.then_some(path))
        })
        .await
    }

    async fn delete(&self, digest: Digest) -> Result<(), Error> {
        self.blocking("deleting a blob", move |this| if_there(fs::remove_file(this.path_of(digest))).map(drop)).await
    }

    async fn list(&self) -> Result<Vec<Digest>, Error> {
        self.blocking("listing blobs", Self::names).await
    }
}
