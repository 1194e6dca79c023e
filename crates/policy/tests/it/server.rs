//! A PostgreSQL server of a test's own: a fresh directory, a Unix socket in it and a port of 127.0.0.1, gone with its handle.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lambent_policy::services::Login;

/// The programs' directory, where it is not one of Debian's.
const PROGRAMS: &str = "LAMBENT_TEST_POSTGRES";
/// Set where the server must be there.
const REQUIRED: &str = "LAMBENT_TEST_REQUIRE_POSTGRES";
/// Who runs it in the place of root, whom it refuses.
const NOBODY: u32 = 65534;
pub const PASSWORD: &str = "right and proper";

pub struct Server {
    dir: tempfile::TempDir,
    programs: PathBuf,
    port: u16,
}

fn programs() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(PROGRAMS) {
        return Some(named.into());
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    versions.flatten().map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").is_file()).max()
}

/// As nobody where this is root.
fn command(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
        .current_dir(dir)
        .env_clear()
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").unwrap().lines().any(|line| line.starts_with("Uid:\t0\t"))
}

impl Server {
    /// None, said aloud: it is not on this machine.
    pub fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            assert!(std::env::var_os(REQUIRED).is_none(), "no PostgreSQL server on this machine");
            eprintln!("SKIPPED: no PostgreSQL server on this machine; {PROGRAMS} names the directory of its programs");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        if is_root() {
            std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let (data, password) = (dir.path().join("data"), dir.path().join("password"));
        std::fs::File::create(&password).unwrap().write_all(PASSWORD.as_bytes()).unwrap();
        let mut init = command(&programs.join("initdb"), dir.path());
        init.args(["--username=admin", "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8"]);
        init.arg(format!("--pwfile={}", password.display())).arg(format!("--pgdata={}", data.display()));
        assert!(init.status().unwrap().success(), "initdb failed");
        // Another process could take it in between; then the start fails, loudly.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Self { dir, programs, port };
        server.serve();
        Some(server)
    }

    /// Comes back when it takes connections.
    fn serve(&self) {
        let dir = self.dir.path().display();
        let port = self.port;
        let options =
            format!("-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={dir} -c fsync=off");
        let mut start = command(&self.programs.join("pg_ctl"), self.dir.path());
        start.args(["start", "--wait", "--timeout=60", "-D", "data", "-l", "log", "-o"]).arg(options);
        let log = || std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        assert!(start.status().unwrap().success(), "the server did not start: {}", log());
    }

    /// Ends it, with all its sessions, and starts it again.
    pub fn restart(&self) {
        self.stop();
        self.serve();
    }

    pub fn stop(&self) {
        let mut stop = command(&self.programs.join("pg_ctl"), self.dir.path());
        // It fails where it has ended already.
        let _ = stop.args(["stop", "--mode=immediate", "-D", "data"]).status();
    }

    pub fn login(&self, user: &str) -> Login {
        Login {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            database: "postgres".to_owned(),
            user: user.to_owned(),
            password: Some(PASSWORD.to_owned()),
        }
    }

    /// The directory of its socket.
    pub fn socket(&self) -> String {
        self.dir.path().display().to_string()
    }

    /// Its owner's doing.
    pub async fn change(&self, sql: &str) {
        let login = self.login("admin");
        let mut config = tokio_postgres::Config::new();
        config.host(&login.host).port(login.port).user(&login.user).dbname(&login.database).password(PASSWORD);
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        client.batch_execute(sql).await.unwrap();
        drop(client);
        driver.await.unwrap().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
