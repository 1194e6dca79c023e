//! What is done when the disk fails a write or a sync.
//!
//! After a failed `fsync` nobody knows what reached the disk: the kernel may hold pages as clean that were never written, and the next
//! `fsync` succeeds without them. A commit that is appended to a log with such a hole would be acknowledged, and be lost behind it at the
//! next power cut. So the first such failure puts a file in doubt: nothing is committed to it, and so nothing acknowledged, until a
//! checkpoint has written everything that was committed anew to the database itself, synced that, and emptied the log. A process
//! may have died in doubt, so every file is in doubt when it is opened.

use rusqlite::{Connection, ErrorCode};

use super::sql;
use crate::Error;

/// Whether what is on disk is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Every page that a commit stands on was synced.
    None,
    /// A sync failed, here or in a process before.
    Some,
}

impl Doubt {
    /// Takes note of a failure.
    pub(super) fn note(&mut self, error: &Error) {
        let Error::Backend { operation, source } = error else { return };
        let code = source.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
        if code == Some(ErrorCode::SystemIoFailure) && *self == Self::None {
            tracing::error!(operation, error = %source, "the disk failed; nothing is kept until all of the file was written anew");
            *self = Self::Some;
        }
    }

    /// Writes everything anew where there is doubt; an error where it remains.
    pub(super) fn settle(&mut self, db: &Connection) -> Result<(), Error> {
        if *self == Self::None {
            return Ok(());
        }
        let checkpoint = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
        match checkpoint.map_err(|e| sql("writing everything anew after a failure of the disk", e)) {
            Ok(false) => {
                *self = Self::None;
                Ok(())
            }
            Ok(true) => Err(Error::Doubtful),
            Err(error @ Error::Full { .. }) => Err(error),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the disk still fails");
                Err(Error::Doubtful)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sqlite::{Durability, open, reader};

    #[test]
    fn doubt_lasts_until_everything_was_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file.db");
        let db = open(&path, 1, "CREATE TABLE t (n INTEGER)", Durability::PowerCut).unwrap();
        db.busy_timeout(std::time::Duration::ZERO).unwrap();
        let log = || std::fs::metadata(dir.path().join("file.db-wal")).unwrap().len();
        let mut doubt = Doubt::None;
        doubt.note(&Error::Full { what: "it" });
        assert_eq!(doubt, Doubt::None, "a full device is known to be one");
        let failure = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
        doubt.note(&sql("writing", rusqlite::Error::SqliteFailure(failure, None)));
        assert_eq!(doubt, Doubt::Some);
        // Somebody who reads keeps the log from being emptied.
        let other = reader(&path).unwrap();
        other.execute_batch("BEGIN; SELECT * FROM t").unwrap();
        db.execute("INSERT INTO t VALUES (1)", []).unwrap();
        assert!(matches!(doubt.settle(&db), Err(Error::Doubtful)));
        other.execute_batch("COMMIT").unwrap();
        assert!(log() > 0);
        doubt.settle(&db).unwrap();
        assert_eq!((doubt, log()), (Doubt::None, 0));
    }
}
