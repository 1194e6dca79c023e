//! A SQLite database that is a file of the node.
//!
//! It is opened for each query, read-only, so a file that was put in the place of another is seen, and nothing is held between. Of a
//! database in WAL mode SQLite keeps its `-shm` and `-wal` beside the file while it is read, and makes them where they are not.
//!
//! What a query may be is decided by SQLite itself while it compiles it ([`is_reading`]): reading, and computing with what was read.
//! Everything else is refused by not being on the list: other files (`ATTACH`), settings (`PRAGMA`), transactions, changes. A query ends at
//! its time, however much it has to compute.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use lambent_model::service::{Query, Scalar};
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::result::{Kind, Reading};
use super::{Error, MOST_BYTES, ResultDigest, Service, shown};

/// Instructions of SQLite's machine between two looks at the time: some tens of microseconds.
const LOOK_EVERY: i32 = 1_000;

/// The database.
#[derive(Debug, Clone)]
pub struct Sqlite {
    path: PathBuf,
    within: Duration,
}

impl Sqlite {
    /// The one in the file `path`, for queries that take no longer than `within`.
    pub fn new(path: PathBuf, within: Duration) -> Self {
        Self { path, within }
    }
}

#[async_trait]
impl Service for Sqlite {
    async fn digest(&self, query: &Query) -> Result<ResultDigest, Error> {
        let (this, query) = (self.clone(), query.clone());
        let read = tokio::task::spawn_blocking(move || this.read(&query));
        read.await.unwrap_or_else(|error| Err(Error::Unreachable(error.to_string())))
    }
}

impl Sqlite {
    fn open(&self) -> Result<Connection, rusqlite::Error> {
        let until = Instant::now() + self.within;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(self.within)?;
        connection.progress_handler(LOOK_EVERY, Some(move || Instant::now() >= until))?;
        // Else a mistyped "column" is a text, which never changes.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
        // Views of the file compute with nothing that could reach outside of it.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, i32::try_from(MOST_BYTES).unwrap_or(i32::MAX))?;
        connection.authorizer(Some(is_reading))?;
        Ok(connection)
    }

    fn read(&self, query: &Query) -> Result<ResultDigest, Error> {
        let failed = |error| self.failed(error);
        let connection = self.open().map_err(|error| Error::Unreachable(shown(&error.to_string())))?;
        let mut statement = connection.prepare(&query.text(|number| format!("?{number}"))).map_err(failed)?;
        if !statement.readonly() || statement.column_count() == 0 {
            return Err(Error::Refused("it does not only read".to_owned()));
        }
        let (places, values) = (statement.parameter_count(), query.values().count());
        if places != values {
            let text =
                format!("it has places for {places} values and is given {values}; one between quotes is no place");
            return Err(Error::Refused(text));
        }
        for (number, value) in (1..).zip(query.values()) {
            statement.raw_bind_parameter(number, bound(value)?).map_err(failed)?;
        }
        let columns = statement.column_count();
        let mut reading = Reading::of(statement.column_names().map(|name| (name, "")))?;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(failed)? {
            reading.row()?;
            for column in 0..columns {
                match row.get_ref(column).map_err(failed)? {
                    ValueRef::Null => reading.value(Kind::Null, b""),
                    ValueRef::Integer(number) => reading.value(Kind::Integer, &number.to_be_bytes()),
                    ValueRef::Real(number) => reading.value(Kind::Real, &number.to_bits().to_be_bytes()),
                    ValueRef::Text(text) => reading.value(Kind::Text, text),
                    ValueRef::Blob(blob) => reading.value(Kind::Blob, blob),
                }?;
            }
        }
        Ok(reading.end())
    }

    fn failed(&self, error: rusqlite::Error) -> Error {
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted | ErrorCode::DatabaseBusy) => Error::TimedOut(self.within),
            Some(ErrorCode::TooBig) => Error::TooLarge { most: MOST_BYTES, what: "bytes" },
            Some(ErrorCode::AuthorizationForStatementDenied) => Error::Refused("it does not only read".to_owned()),
            Some(
                ErrorCode::CannotOpen
                | ErrorCode::NotADatabase
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::SystemIoFailure,
            ) => Error::Unreachable(shown(&error.to_string())),
            _ => Error::Refused(shown(&error.to_string())),
        }
    }
}

/// Whether a query may do that.
fn is_reading(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => Authorization::Allow,
        AuthAction::Function { function_name } if !function_name.eq_ignore_ascii_case("load_extension") => {
            Authorization::Allow
        }
        _ => Authorization::Deny,
    }
}

/// A value as SQLite has it.
fn bound(value: &Scalar) -> Result<Value, Error> {
    Ok(match value {
        Scalar::Text(text) => Value::Text(text.clone()),
        Scalar::Truth(truth) => Value::Integer(i64::from(*truth)),
        Scalar::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::Integer(whole),
            // Rounded it would be another number, and the rows those of another.
            (None, Some(real)) if number.is_f64() => Value::Real(real),
            (None, _) => return Err(Error::Refused(format!("{number} has more than 64 bits"))),
        },
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Two tables, and something to attach.
    struct Bench {
        dir: tempfile::TempDir,
        service: Sqlite,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let service = Sqlite::new(dir.path().join("shop.db"), Duration::from_secs(20));
            let bench = Self { dir, service };
            bench.change("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, price); CREATE VIEW cheap AS SELECT * FROM items WHERE price < 5");
            bench.change("INSERT INTO items VALUES (1, 'pen', 2), (2, 'ink', 7.5), (3, NULL, x'00ff')");
            bench
        }

        fn change(&self, sql: &str) {
            Connection::open(self.dir.path().join("shop.db")).unwrap().execute_batch(sql).unwrap();
        }

        async fn of(&self, query: &str) -> Result<ResultDigest, String> {
            self.service.digest(&query.parse().unwrap()).await.map_err(|error| error.to_string())
        }
    }

    #[tokio::test]
    async fn a_digest_changes_with_the_rows_and_with_nothing_else() {
        let bench = Bench::new();
        let query = "SELECT name, price FROM items WHERE id = {2}";
        let before = bench.of(query).await.unwrap();
        bench.change("UPDATE items SET price = 3 WHERE id = 1");
        assert_eq!(bench.of(query).await.unwrap(), before, "another row");
        bench.change("UPDATE items SET price = '7.5' WHERE id = 2");
        assert_ne!(bench.of(query).await.unwrap(), before, "a text");
        bench.change("UPDATE items SET price = 7.5 WHERE id = 2");
        assert_eq!(bench.of(query).await.unwrap(), before);
        bench.change("DELETE FROM items WHERE id = 2");
        let none = bench.of(query).await.unwrap();
        assert_ne!(none, before);
        assert_eq!(bench.of("SELECT name, price FROM items WHERE id = {9}").await.unwrap(), none, "no rows");
        bench.of("WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT upper(name), i FROM n, cheap")
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn values_are_bound_and_never_text_of_the_query() {
        let bench = Bench::new();
        let none = bench.of("SELECT id FROM items WHERE name = {\"\"}").await.unwrap();
        let hostile = r#"SELECT id FROM items WHERE name = {"x' OR '1'='1"}"#;
        assert_eq!(bench.of(hostile).await.unwrap(), none);
        let pen = bench.of(r#"SELECT id FROM items WHERE name = {"pen"}"#).await.unwrap();
        assert_eq!(bench.of("SELECT id FROM items WHERE price = {2.0} AND {true}").await.unwrap(), pen);
        for (query, why) in [
            (
                "SELECT '{1}'",
                "the query is refused: it has places for 0 values and is given 1; one between quotes is no place",
            ),
            (
                "SELECT ?",
                "the query is refused: it has places for 1 values and is given 0; one between quotes is no place",
            ),
            ("SELECT {18446744073709551615}", "the query is refused: 18446744073709551615 has more than 64 bits"),
        ] {
            assert_eq!(bench.of(query).await.unwrap_err(), why, "{query}");
        }
    }

    #[tokio::test]
    async fn a_query_only_reads() {
        let bench = Bench::new();
        let before = std::fs::read(bench.dir.path().join("shop.db")).unwrap();
        let other = bench.dir.path().join("other.db");
        let attach = format!("ATTACH '{}' AS other", other.display());
        let refused = "the query is refused: it does not only read";
        for query in [
            "DELETE FROM items",
            "INSERT INTO items VALUES (9, 'a', 1) RETURNING id",
            "UPDATE items SET price = 0",
            "DROP TABLE items",
            "CREATE TEMP TABLE t (a)",
            "PRAGMA user_version = 7",
            "PRAGMA table_info(items)",
            "BEGIN IMMEDIATE",
            "VACUUM",
            &attach,
        ] {
            assert_eq!(bench.of(query).await.unwrap_err(), refused, "{query}");
        }
        for query in [
            "SELECT 1; DELETE FROM items",
            "SELECT 1; SELECT 2",
            "SELECT load_extension({\"x\"})",
            "SELECT * FROM pragma_user_version",
            r#"SELECT "nmae" FROM items"#,
            "SELECT nmae FROM items",
            "SELECT name FROM other.items",
            "nonsense",
            "-- nothing",
        ] {
            let error = bench.of(query).await.unwrap_err();
            assert!(error.starts_with("the query is refused: "), "{query}: {error}");
        }
        assert_eq!(std::fs::read(bench.dir.path().join("shop.db")).unwrap(), before);
        assert!(!other.exists());
    }

    #[tokio::test]
    async fn a_result_and_its_time_are_bounded() {
        let bench = Bench::new();
        let many = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
        assert_eq!(bench.of(many).await.unwrap_err(), "the result has more than 10000 rows");
        let large = "SELECT zeroblob({9000000})";
        assert_eq!(bench.of(large).await.unwrap_err(), "the result has more than 8388608 bytes");
        let sum = "SELECT zeroblob({5000000}), zeroblob({5000000})";
        assert_eq!(bench.of(sum).await.unwrap_err(), "the result has more than 8388608 bytes");
        let endless = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
        let hasty = Sqlite::new(bench.dir.path().join("shop.db"), Duration::from_millis(50));
        let error = hasty.digest(&endless.parse().unwrap()).await.unwrap_err();
        assert_eq!(error.to_string(), "the query took longer than 50ms");
    }

    #[tokio::test]
    async fn what_is_no_database_cannot_be_reached() {
        let dir = tempfile::tempdir().unwrap();
        let of = |name: &str| Sqlite::new(dir.path().join(name), Duration::from_secs(20));
        std::fs::write(dir.path().join("text"), "no database, but long enough to be one".repeat(50)).unwrap();
        for name in ["none", "text", "."] {
            let error = of(name).digest(&"SELECT 1 FROM a".parse().unwrap()).await.unwrap_err();
            assert!(matches!(error, Error::Unreachable(_)), "{name}: {error}");
        }
        assert!(!dir.path().join("none").exists());
    }

    #[tokio::test]
    async fn a_database_in_wal_mode_is_read_while_it_is_written() {
        let bench = Bench::new();
        bench.change("PRAGMA journal_mode = WAL");
        let query = "SELECT count(*) FROM items";
        let before = bench.of(query).await.unwrap();
        let writer = Connection::open(bench.dir.path().join("shop.db")).unwrap();
        writer.execute_batch("BEGIN IMMEDIATE; INSERT INTO items VALUES (4, 'nib', 1)").unwrap();
        assert_eq!(bench.of(query).await.unwrap(), before);
        writer.execute_batch("COMMIT").unwrap();
        assert_ne!(bench.of(query).await.unwrap(), before);
    }

    /// A value that a row may get.
    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            (0..3i64).prop_map(Value::Integer),
            (0..3i64).prop_map(|number| Value::Real(number as f64)),
            "[01]{0,2}".prop_map(Value::Text),
            "[01]{0,2}".prop_map(|text| Value::Blob(text.into_bytes())),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        /// Two digests are the same exactly where the rows are, whatever happened between.
        #[test]
        fn digests_are_the_same_where_rows_are(steps in proptest::collection::vec((0..3i64, proptest::option::of((value(), value()))), 1..24)) {
            let dir = tempfile::tempdir().unwrap();
            let database = Connection::open(dir.path().join("db")).unwrap();
            database.execute_batch("PRAGMA synchronous = OFF; CREATE TABLE t (id INTEGER PRIMARY KEY, a, b)").unwrap();
            let service = Sqlite::new(dir.path().join("db"), Duration::from_secs(20));
            let query = "SELECT id, a, b FROM t WHERE id < {2} ORDER BY id".parse().unwrap();
            let (mut rows, mut seen) = (std::collections::BTreeMap::new(), Vec::new());
            for (id, change) in steps {
                match change {
                    None => {
                        rows.remove(&id);
                        database.execute("DELETE FROM t WHERE id = ?1", [id]).unwrap();
                    }
                    Some((a, b)) => {
                        database.execute("INSERT OR REPLACE INTO t VALUES (?1, ?2, ?3)", rusqlite::params![id, a, b]).unwrap();
                        rows.insert(id, (a, b));
                    }
                }
                let result: Vec<_> = rows.clone().into_iter().filter(|(id, _)| *id < 2).collect();
                let digest = service.read(&query).unwrap();
                for (then, before) in &seen {
                    prop_assert_eq!(then == &result, before == &digest, "{:?} {:?}", then, result);
                }
                seen.push((result, digest));
            }
        }
    }
}
