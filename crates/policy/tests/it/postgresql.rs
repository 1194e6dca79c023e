use std::time::Duration;

use lambent_policy::services::{Error, Login, PostgreSql, ResultDigest, Service as _};

use super::server::Server;

const WITHIN: Duration = Duration::from_secs(30);

const SETUP: &str = "
    CREATE TABLE items (id int PRIMARY KEY, name text, price numeric, at timestamptz, tags text[], kind mood);
    INSERT INTO items VALUES (1, 'pen', 2.50, '2026-01-01T00:00:00Z', '{a,b}', 'sad'), (2, NULL, 7, NULL, NULL, 'ok');
    CREATE TABLE secrets (word text);
    CREATE SEQUENCE numbers;
    CREATE ROLE reader LOGIN PASSWORD 'right and proper';
    GRANT SELECT ON items TO reader;
    GRANT USAGE ON numbers TO reader;
";

struct Bench {
    server: Server,
    service: PostgreSql,
}

impl Bench {
    async fn new() -> Option<Self> {
        let server = tokio::task::spawn_blocking(Server::start).await.unwrap()?;
        server.change("CREATE TYPE mood AS ENUM ('sad', 'ok')").await;
        server.change(SETUP).await;
        let service = PostgreSql::new(server.login("reader"), WITHIN);
        Some(Self { server, service })
    }

    async fn of(&self, query: &str) -> Result<ResultDigest, String> {
        self.service.digest(&query.parse().unwrap()).await.map_err(|error| error.to_string())
    }

    async fn refused(&self, query: &str) -> String {
        let error = self.service.digest(&query.parse().unwrap()).await.unwrap_err();
        assert!(matches!(error, Error::Refused(_)), "{query}: {error}");
        error.to_string()
    }
}

/// One server for all of it: starting one takes seconds.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_real_server() {
    let Some(bench) = Bench::new().await else { return };
    digests(&bench).await;
    values(&bench).await;
    refusals(&bench).await;
    bounds(&bench).await;
    doors(&bench).await;
    bench.server.restart();
    bench.of("SELECT 1").await.unwrap();
    bench.server.stop();
    let error = bench.service.digest(&"SELECT 1".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)), "{error}");
}

async fn digests(bench: &Bench) {
    let query = "SELECT name, price, at, tags, kind, id FROM items WHERE id = {1}";
    let before = bench.of(query).await.unwrap();
    let change = |sql: &'static str| bench.server.change(sql);
    change("UPDATE items SET name = 'x' WHERE id = 2").await;
    assert_eq!(bench.of(query).await.unwrap(), before, "another row");
    for (there, back) in [
        ("UPDATE items SET name = NULL WHERE id = 1", "UPDATE items SET name = 'pen' WHERE id = 1"),
        ("UPDATE items SET price = 2.51 WHERE id = 1", "UPDATE items SET price = 2.50 WHERE id = 1"),
        ("UPDATE items SET at = at + '1us' WHERE id = 1", "UPDATE items SET at = at - '1us'::interval WHERE id = 1"),
        ("UPDATE items SET tags = '{ab}' WHERE id = 1", "UPDATE items SET tags = '{a,b}' WHERE id = 1"),
        ("UPDATE items SET kind = 'ok' WHERE id = 1", "UPDATE items SET kind = 'sad' WHERE id = 1"),
        ("DELETE FROM items WHERE id = 1", "INSERT INTO items VALUES (1, 'pen', 2.50, '2026-01-01Z', '{a,b}', 'sad')"),
    ] {
        change(there).await;
        assert_ne!(bench.of(query).await.unwrap(), before, "{there}");
        change(back).await;
        assert_eq!(bench.of(query).await.unwrap(), before, "{back}");
    }
    let many = "SELECT n, repeat('x', 100) FROM generate_series(1, {10000}) AS n";
    assert_eq!(bench.of(many).await.unwrap(), bench.of(many).await.unwrap());
}

async fn values(bench: &Bench) {
    let none = bench.of("SELECT id FROM items WHERE name = {\"\"}").await.unwrap();
    assert_eq!(bench.of(r#"SELECT id FROM items WHERE name = {"x' OR '1'='1"}"#).await.unwrap(), none);
    let pen = bench.of(r#"SELECT id FROM items WHERE name = {"pen"}"#).await.unwrap();
    for query in [
        "SELECT id FROM items WHERE price = {2.5} AND {true}",
        r#"SELECT id FROM items WHERE kind = {"sad"} AND id = {1}"#,
        r#"SELECT id FROM items WHERE id = {"1"}"#,
    ] {
        assert_eq!(bench.of(query).await.unwrap(), pen, "{query}");
    }
    let quoted = bench.refused("SELECT '{1}'").await;
    assert_eq!(
        quoted,
        "the query is refused: it has places for 0 values and is given 1; one between quotes is no place"
    );
    bench.refused(r#"SELECT id FROM items WHERE id = {"1 OR true"}"#).await;
}

async fn refusals(bench: &Bench) {
    for query in [
        "DELETE FROM items",
        "INSERT INTO items (id) VALUES (9) RETURNING id",
        "WITH gone AS (DELETE FROM items RETURNING id) SELECT * FROM gone",
        "SELECT nextval('numbers')",
        "SELECT word FROM secrets",
        "SELECT 1; SELECT 2",
        "SELECT 1; DELETE FROM items",
        "SET TRANSACTION READ WRITE",
        "SELECT set_config('transaction_read_only', 'off', true)",
        "COMMIT",
        "COPY items TO STDOUT",
        "DO $$ BEGIN END $$",
        "SELECT pg_read_file('/etc/passwd')",
        "nonsense",
        "-- nothing",
    ] {
        bench.refused(query).await;
    }
    // Also of one who may.
    let admin = PostgreSql::new(bench.server.login("admin"), WITHIN);
    for query in [
        "DELETE FROM items RETURNING id",
        "SELECT nextval('numbers')",
        "COPY items TO PROGRAM 'false'",
        "CREATE TABLE t ()",
    ] {
        let error = admin.digest(&query.parse().unwrap()).await.unwrap_err();
        assert!(matches!(error, Error::Refused(_)), "{query}: {error}");
    }
    // What a query leaves in its session is not there for the next one.
    let shown = bench
        .of("SELECT current_setting('application_name'), count(*) FROM pg_locks WHERE locktype = 'advisory'")
        .await
        .unwrap();
    bench.of("SELECT set_config('application_name', 'x', false), pg_advisory_lock(7)::text").await.unwrap();
    assert_eq!(
        bench
            .of("SELECT current_setting('application_name'), count(*) FROM pg_locks WHERE locktype = 'advisory'")
            .await
            .unwrap(),
        shown
    );
}

async fn bounds(bench: &Bench) {
    for (query, expected) in [
        ("SELECT n FROM generate_series(1, {10001}) AS n", "the result has more than 10000 rows"),
        ("SELECT repeat('x', {9000000})", "the result has more than 8388608 bytes"),
        ("SELECT repeat('x', {500000000})", "the result has more than 8388608 bytes"),
        ("SELECT repeat('x', {1000000}) FROM generate_series(1, 100)", "the result has more than 8388608 bytes"),
    ] {
        assert_eq!(bench.of(query).await.unwrap_err(), expected, "{query}");
    }
    let hasty = PostgreSql::new(bench.server.login("reader"), Duration::from_millis(300));
    hasty.digest(&"SELECT 1".parse().unwrap()).await.unwrap();
    let error = hasty.digest(&"SELECT pg_sleep(60)".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.to_string(), "the query took longer than 300ms");
    // Nothing of it goes on at the server.
    let count =
        "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()";
    let none = bench.of("SELECT 1 FROM items WHERE false").await.unwrap();
    while bench.of(count).await.unwrap() != none {
        tokio::task::yield_now().await;
    }
}

async fn doors(bench: &Bench) {
    let pen = bench.of("SELECT 1").await.unwrap();
    let socket = Login { host: bench.server.socket(), ..bench.server.login("reader") };
    assert_eq!(PostgreSql::new(socket, WITHIN).digest(&"SELECT 1".parse().unwrap()).await.unwrap(), pen);
    let wrong = Login { password: Some("wrong".to_owned()), ..bench.server.login("reader") };
    let nobody = Login { password: None, ..bench.server.login("reader") };
    let elsewhere = Login { host: "/nonexistent".to_owned(), ..bench.server.login("reader") };
    for login in [wrong, nobody, elsewhere] {
        let error = PostgreSql::new(login, WITHIN).digest(&"SELECT 1".parse().unwrap()).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable(_)) && !error.to_string().contains("wrong\""), "{error}");
    }
}
