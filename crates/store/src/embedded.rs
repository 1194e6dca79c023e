//! The store of a single machine: one directory with a catalog, blobs, logs, events and records, used by one process at a time.
//!
//! ```text
//! DIR/lock          held while the store is open
//! DIR/catalog.db    documents
//! DIR/logs.db       log events
//! DIR/events.db     events that are not done yet
//! DIR/records.db    what executions returned
//! DIR/blobs/        code and layers by digest
//! ```

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;

use crate::queue::{Bounds, EventQueue};
use crate::records::{self, Records};
use crate::{Error, files, port, sqlite};

/// The open store. The directory is free again when this and all of the ports taken from it are gone.
pub struct Embedded {
    /// Documents.
    pub catalog: Arc<dyn port::Catalog>,
    /// Code and layers.
    pub blobs: Arc<dyn port::Blobs>,
    /// Logs.
    pub logs: Arc<dyn port::Logs>,
    /// Events.
    pub events: Arc<dyn EventQueue>,
    /// What executions returned.
    pub records: Arc<dyn Records>,
    lock: Arc<DirectoryLock>,
}

impl Embedded {
    /// Opens or makes the store in `dir`; only its owner can read it.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        Self::open_bounded(dir, Bounds::default(), records::Bounds::default())
    }

    /// As [`Embedded::open`], with bounds for the events and the records it keeps.
    pub fn open_bounded(dir: &Path, events: Bounds, records: records::Bounds) -> Result<Self, Error> {
        make_private(dir).map_err(|e| Error::io("making the data directory", "the data directory", e))?;
        let lock = Arc::new(DirectoryLock::take(dir)?);
        Ok(Self {
            catalog: Arc::new(sqlite::Catalog::open(&dir.join("catalog.db"))?.holding(lock.clone())),
            blobs: Arc::new(files::Blobs::open(&dir.join("blobs"))?),
            logs: Arc::new(sqlite::Logs::open(&dir.join("logs.db"))?.holding(lock.clone())),
            events: Arc::new(sqlite::Events::open(&dir.join("events.db"), events)?.holding(lock.clone())),
            records: Arc::new(sqlite::Records::open(&dir.join("records.db"), records)?.holding(lock.clone())),
            lock,
        })
    }
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").field("lock", &self.lock).finish_non_exhaustive()
    }
}

fn make_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        other => other,
    }
}

/// What keeps others out of a directory. It is given back in so many words: the file alone would stay locked, after its end here, for as long
/// as a process that is just being started has inherited it and is not yet the program it is to be (flock(2)).
#[derive(Debug)]
pub(crate) struct DirectoryLock(File);

impl DirectoryLock {
    fn take(dir: &Path) -> Result<Self, Error> {
        let failed = |e| Error::io("locking the data directory", "the data directory", e);
        let file = File::options().create(true).truncate(false).write(true).open(dir.join("lock")).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(Error::Locked { path: dir.to_owned() }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Where that fails, its end does it.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_crash_left_unfinished_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Embedded::open(dir.path()).unwrap();
        store.blobs.put("kept".into()).await.unwrap();
        drop(store);
        let left = dir.path().join("blobs/tmp/half");
        std::fs::write(&left, "a half").unwrap();
        let store = Embedded::open(dir.path()).unwrap();
        assert!(!left.exists());
        assert_eq!(store.blobs.list().await.unwrap().len(), 1);
    }

    #[test]
    fn a_directory_has_one_user_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let store = Embedded::open(&path).unwrap();
        assert!(matches!(Embedded::open(&path), Err(Error::Locked { .. })));
        let catalog = store.catalog.clone();
        drop(store);
        assert!(matches!(Embedded::open(&path), Err(Error::Locked { .. })), "a port is in use");
        drop(catalog);
        Embedded::open(&path).unwrap();
    }

    #[test]
    fn a_directory_is_free_though_a_copy_of_the_lock_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::take(dir.path()).unwrap();
        // As a process has it between fork and exec.
        let _inherited = lock.0.try_clone().unwrap();
        assert!(matches!(DirectoryLock::take(dir.path()), Err(Error::Locked { .. })));
        drop(lock);
        DirectoryLock::take(dir.path()).unwrap();
    }
}
