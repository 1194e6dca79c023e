//! The embedded back end: SQLite in WAL mode, one writer thread a file.
//!
//! A writer thread takes what has queued up while it was busy and commits it as one transaction, so that many callers
//! share one `fsync`. Readers have a connection of their own and never wait for the writer.

mod catalog;
mod doubt;
mod events;
mod logs;
mod records;
mod writer;

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OptionalExtension as _};

use crate::Error;

pub use catalog::Catalog;
pub use events::Events;
pub use logs::Logs;
pub use records::Records;

/// Whether a commit waits until it has reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// It does: a commit survives a power cut.
    PowerCut,
    /// It reaches the kernel: a commit survives the death of the process.
    Crash,
}

/// Opens `path`, makes `tables` when it is new, and refuses what a later release wrote.
fn open(path: &Path, schema: u32, tables: &str, durability: Durability) -> Result<Connection, Error> {
    let mut db = connect(path, durability).map_err(|e| sql("opening a database", e))?;
    let transaction = db.transaction().map_err(|e| sql("opening a database", e))?;
    let found: Option<u32> = transaction
        .execute_batch("CREATE TABLE IF NOT EXISTS schema (version INTEGER NOT NULL)")
        .and_then(|()| transaction.query_row("SELECT version FROM schema", [], |row| row.get(0)).optional())
        .map_err(|e| sql("reading the schema version", e))?;
    match found {
        Some(found) if found > schema => {
            return Err(Error::Newer { path: path.to_owned(), found, known: schema });
        }
        Some(_) => {}
        None => transaction
            .execute_batch(tables)
            .and_then(|()| transaction.execute("INSERT INTO schema (version) VALUES (?1)", [schema]).map(drop))
            .map_err(|e| sql("making the tables", e))?,
    }
    transaction.commit().map_err(|e| sql("making the tables", e))?;
    Ok(db)
}

fn connect(path: &Path, durability: Durability) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match durability {
        Durability::PowerCut => "FULL",
        Durability::Crash => "NORMAL",
    };
    db.pragma_update(None, "synchronous", synchronous)?;
    db.pragma_update(None, "foreign_keys", true)?;
    db.busy_timeout(std::time::Duration::from_secs(10))?;
    Ok(db)
}

/// A second connection to a database that is open already.
fn reader(path: &Path) -> Result<Connection, Error> {
    let db = Connection::open(path).map_err(|e| sql("opening a database", e))?;
    db.pragma_update(None, "query_only", true).map_err(|e| sql("opening a database", e))?;
    db.busy_timeout(std::time::Duration::from_secs(10)).map_err(|e| sql("opening a database", e))?;
    Ok(db)
}

fn sql(operation: &'static str, error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Error::Full { what: operation },
        _ => Error::backend(operation, error),
    }
}

/// The first text behind all that start with `prefix`, in byte order.
fn behind(prefix: &str) -> String {
    format!("{prefix}{}", char::MAX)
}
