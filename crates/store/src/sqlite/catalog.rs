//! [`port::Catalog`](crate::port::Catalog) on SQLite.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use tokio::sync::{mpsc, oneshot};

use super::doubt::Doubt;
use super::writer::{Writer, stopped};
use super::{Durability, behind, sql};
use crate::Error;
use crate::port::{self, Change, Document, Expect, Write};

const SCHEMA: u32 = 1;
const TABLES: &str = "
    CREATE TABLE document (key TEXT PRIMARY KEY, revision INTEGER NOT NULL, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE head (revision INTEGER NOT NULL);
    INSERT INTO head (revision) VALUES (0);
";

/// Versioned documents in one SQLite file.
pub struct Catalog {
    writer: Writer<Request>,
    reader: Arc<Mutex<Connection>>,
    path: PathBuf,
    /// Kept from others as long as this lives.
    lock: Option<Arc<crate::embedded::DirectoryLock>>,
}

enum Request {
    Commit { writes: Vec<Write>, reply: oneshot::Sender<Result<u64, Error>> },
    Watch { prefix: String, reply: oneshot::Sender<Result<mpsc::UnboundedReceiver<Change>, Error>> },
}

struct Watcher {
    prefix: String,
    changes: mpsc::UnboundedSender<Change>,
}

impl Catalog {
    /// Opens or makes the file at `path`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let db = super::open(path, SCHEMA, TABLES, Durability::PowerCut)?;
        let reader = super::reader(path)?;
        let (mut doubt, mut watchers) = (Doubt::Some, Vec::new());
        let writer = Writer::start("catalog", db, move |db, group| serve(db, &mut doubt, &mut watchers, group))?;
        Ok(Self { writer, reader: Arc::new(Mutex::new(reader)), path: path.to_owned(), lock: None })
    }

    /// Keeps `lock` until the file is closed.
    pub(crate) fn holding(self, lock: Arc<crate::embedded::DirectoryLock>) -> Self {
        Self { lock: Some(lock), ..self }
    }

    async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let reader = self.reader.clone();
        tokio::task::spawn_blocking(move || query(&reader.lock().unwrap_or_else(PoisonError::into_inner)))
            .await
            .map_err(|e| Error::backend(operation, e))?
            .map_err(|e| sql(operation, e))
    }
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("path", &self.path).field("lock", &self.lock).finish_non_exhaustive()
    }
}

#[async_trait]
impl port::Catalog for Catalog {
    async fn get(&self, key: &str) -> Result<Option<Document>, Error> {
        let key = key.to_owned();
        self.read("reading a document", move |db| {
            db.prepare_cached("SELECT key, revision, value FROM document WHERE key = ?1")?
                .query_row([key], document)
                .optional()
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Document>, Error> {
        let prefix = prefix.to_owned();
        self.read("listing documents", move |db| list(db, &prefix)).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<u64, Error> {
        let (reply, answer) = oneshot::channel();
        self.writer.send(Request::Commit { writes, reply }).await?;
        answer.await.map_err(|_| stopped())?
    }

    async fn watch(&self, prefix: &str) -> Result<mpsc::UnboundedReceiver<Change>, Error> {
        let (reply, answer) = oneshot::channel();
        self.writer.send(Request::Watch { prefix: prefix.to_owned(), reply }).await?;
        answer.await.map_err(|_| stopped())?
    }
}

fn document(row: &Row<'_>) -> rusqlite::Result<Document> {
    Ok(Document { key: row.get(0)?, revision: row.get(1)?, value: Bytes::from(row.get::<_, Vec<u8>>(2)?) })
}

fn list(db: &Connection, prefix: &str) -> rusqlite::Result<Vec<Document>> {
    db.prepare_cached("SELECT key, revision, value FROM document WHERE key >= ?1 AND key < ?2 ORDER BY key")?
        .query_map([prefix, &behind(prefix)], document)?
        .collect()
}

type Pending = (Vec<Write>, oneshot::Sender<Result<u64, Error>>);

/// Commits between two watches form one transaction; a watch sees exactly what was committed before it.
fn serve(db: &mut Connection, doubt: &mut Doubt, watchers: &mut Vec<Watcher>, group: Vec<Request>) {
    let mut commits = Vec::new();
    for request in group {
        match request {
            Request::Commit { writes, reply } => commits.push((writes, reply)),
            Request::Watch { prefix, reply } => {
                commit_all(db, doubt, watchers, std::mem::take(&mut commits));
                let _ = reply.send(begin_watch(db, watchers, prefix));
            }
        }
    }
    commit_all(db, doubt, watchers, commits);
}

fn begin_watch(
    db: &Connection,
    watchers: &mut Vec<Watcher>,
    prefix: String,
) -> Result<mpsc::UnboundedReceiver<Change>, Error> {
    let (changes, receiver) = mpsc::unbounded_channel();
    for document in list(db, &prefix).map_err(|e| sql("listing documents", e))? {
        let _ = changes.send(Change::Put(document));
    }
    let _ = changes.send(Change::Ready);
    watchers.push(Watcher { prefix, changes });
    Ok(receiver)
}

fn commit_all(db: &mut Connection, doubt: &mut Doubt, watchers: &mut Vec<Watcher>, commits: Vec<Pending>) {
    if commits.is_empty() {
        return;
    }
    if let Err(error) = doubt.settle(db) {
        refuse(commits, error);
        return;
    }
    let outcomes = transact(db, &commits);
    if let Err(error) = &outcomes {
        doubt.note(error);
    }
    let outcomes = match outcomes {
        Ok(outcomes) => outcomes,
        Err(error) if *doubt == Doubt::Some => {
            refuse(commits, error);
            return;
        }
        // One that is too large for the device must not take the others with it: each by itself.
        Err(_) if commits.len() > 1 => {
            for commit in commits {
                commit_all(db, doubt, watchers, vec![commit]);
            }
            return;
        }
        Err(error) => {
            if let Some((_, reply)) = commits.into_iter().next() {
                let _ = reply.send(Err(error));
            }
            return;
        }
    };
    for ((writes, reply), outcome) in commits.into_iter().zip(outcomes) {
        if let Ok(revision) = outcome {
            tell(watchers, &writes, revision);
        }
        let _ = reply.send(outcome);
    }
}

/// Answers every commit with an error: the first with this one, the others with what it means for them.
fn refuse(commits: Vec<Pending>, error: Error) {
    let is_full = matches!(error, Error::Full { .. });
    let mut first = Some(error);
    for (_, reply) in commits {
        let others = || if is_full { Error::Full { what: "documents" } } else { Error::Doubtful };
        let _ = reply.send(Err(first.take().unwrap_or_else(others)));
    }
}

fn tell(watchers: &mut Vec<Watcher>, writes: &[Write], revision: u64) {
    watchers.retain(|watcher| {
        let mut changes = writes.iter().filter(|write| write.key.starts_with(&watcher.prefix)).map(|write| {
            let key = write.key.clone();
            match &write.value {
                Some(value) => Change::Put(Document { key, revision, value: value.clone() }),
                None => Change::Deleted { key, revision },
            }
        });
        !watcher.changes.is_closed() && changes.all(|change| watcher.changes.send(change).is_ok())
    });
}

/// All of `commits` in one transaction, each applied whole or, where an expectation fails, not at all.
fn transact(db: &mut Connection, commits: &[Pending]) -> Result<Vec<Result<u64, Error>>, Error> {
    let failed = |e| sql("committing documents", e);
    let mut transaction = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
    let mut revision: u64 = transaction.query_row("SELECT revision FROM head", [], |row| row.get(0)).map_err(failed)?;
    let mut outcomes = Vec::with_capacity(commits.len());
    for (writes, _) in commits {
        let savepoint = transaction.savepoint().map_err(failed)?;
        match apply(&savepoint, writes, revision + 1)? {
            Ok(()) => {
                savepoint.commit().map_err(failed)?;
                revision += 1;
                outcomes.push(Ok(revision));
            }
            Err(conflict) => {
                drop(savepoint);
                outcomes.push(Err(conflict));
            }
        }
    }
    transaction.execute("UPDATE head SET revision = ?1", [revision]).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    Ok(outcomes)
}

fn apply(db: &Connection, writes: &[Write], revision: u64) -> Result<Result<(), Error>, Error> {
    let failed = |e| sql("committing documents", e);
    for write in writes {
        let actual: Option<u64> = db
            .prepare_cached("SELECT revision FROM document WHERE key = ?1")
            .and_then(|mut query| query.query_row([&write.key], |row| row.get(0)).optional())
            .map_err(failed)?;
        let as_expected = match write.expect {
            Expect::Anything => true,
            Expect::Absent => actual.is_none(),
            Expect::Revision(expected) => actual == Some(expected),
        };
        if !as_expected {
            return Ok(Err(Error::Conflict { key: write.key.clone(), actual }));
        }
        match &write.value {
            Some(value) => db
                .prepare_cached("INSERT OR REPLACE INTO document (key, revision, value) VALUES (?1, ?2, ?3)")
                .and_then(|mut insert| insert.execute(params![write.key, revision, value.as_ref()])),
            None => db
                .prepare_cached("DELETE FROM document WHERE key = ?1")
                .and_then(|mut delete| delete.execute([&write.key])),
        }
        .map_err(failed)?;
    }
    Ok(Ok(()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::port::Catalog as _;

    fn put(key: &str, size: usize) -> Vec<Write> {
        vec![Write { key: key.to_owned(), expect: Expect::Anything, value: Some(vec![7; size].into()) }]
    }

    #[tokio::test]
    async fn a_full_disk_changes_nothing_and_smaller_commits_still_go_through() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        let db = super::super::open(&path, SCHEMA, TABLES, Durability::PowerCut).unwrap();
        let pages: u32 = db.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        db.query_row(&format!("PRAGMA max_page_count = {}", pages + 8), [], |_| Ok(())).unwrap();
        let (mut doubt, mut watchers) = (Doubt::Some, Vec::new());
        let writer =
            Writer::start("catalog", db, move |db, group| serve(db, &mut doubt, &mut watchers, group)).unwrap();
        let reader = Arc::new(Mutex::new(super::super::reader(&path).unwrap()));
        let catalog = Catalog { writer, reader, path, lock: None };

        let mut both = put("small", 10);
        both.extend(put("huge", 1 << 20));
        assert!(matches!(catalog.commit(both).await, Err(Error::Full { .. })));
        assert_eq!(catalog.list("").await.unwrap(), []);
        assert_eq!(catalog.commit(put("small", 10)).await.unwrap(), 1);
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        drop(super::super::open(&path, SCHEMA + 1, TABLES, Durability::PowerCut).unwrap());
        let error = Catalog::open(&path).unwrap_err();
        assert!(matches!(error, Error::Newer { found: 2, known: 1, .. }), "{error}");
    }
}
