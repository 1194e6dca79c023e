//! Back ends to test, and ways to look at what runs in a cell.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lambent_model::InstanceId;
use lambent_model::function::Network;
use lambent_sandbox::{Cell, CellSpec, ExitStatus, Process, ProcessSpec, Sandbox, cell, sim};
use tokio::io::AsyncReadExt;

/// Longer than anything here takes; a test that waits for this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A back end, and the directory it works in.
pub struct Bench {
    pub sandbox: Arc<dyn Sandbox>,
    pub directory: tempfile::TempDir,
}

/// The simulated back end.
pub fn sim() -> Option<Bench> {
    let directory = tempfile::tempdir().unwrap();
    Some(Bench { sandbox: Arc::new(sim::Sim::new(directory.path())), directory })
}

/// The isolating back end, where the host can give it. Where it cannot, that is said loudly, and is a failure when CI demands it.
pub fn cell() -> Option<Bench> {
    let directory = tempfile::tempdir().unwrap();
    let mut config = cell::Config::new(directory.path());
    config.agent = env!("CARGO_BIN_EXE_cell-agent").into();
    let sandbox: Arc<dyn Sandbox> = Arc::new(cell::Cells::new(config).unwrap());
    let missing: Vec<_> =
        sandbox.barriers().into_iter().filter(|barrier| barrier.required && barrier.missing.is_some()).collect();
    if missing.is_empty() {
        return Some(Bench { sandbox, directory });
    }
    skip(&format!("{missing:#?}"));
    None
}

/// Says that a test did not run.
pub fn skip(reason: &str) {
    assert!(std::env::var_os("LAMBENT_TEST_REQUIRE_ISOLATION").is_none(), "isolation is required here, but: {reason}");
    eprintln!("SKIPPED: this host cannot isolate: {reason}");
}

/// A cell with room for anything ordinary.
pub fn spec() -> CellSpec {
    CellSpec {
        id: InstanceId::random(),
        mounts: Vec::new(),
        memory_mib: 256,
        milli_cpus: 1000,
        ephemeral_mib: 64,
        processes: 64,
        network: Network::None,
    }
}

/// A program with these arguments and an ordinary `PATH`.
pub fn program(argv: &[&str]) -> ProcessSpec {
    ProcessSpec {
        argv: argv.iter().map(|text| (*text).to_owned()).collect(),
        env: vec![("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())],
        cwd: "/".into(),
        log_pipe: false,
    }
}

/// A line of shell.
pub fn shell(line: &str) -> ProcessSpec {
    program(&["/bin/sh", "-c", line])
}

/// What a program said, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub stdout: String,
    pub stderr: String,
    pub exit: ExitStatus,
}

pub async fn read_all(fd: OwnedFd) -> Vec<u8> {
    let mut receiver = tokio::net::unix::pipe::Receiver::from_owned_fd(fd).unwrap();
    let mut bytes = Vec::new();
    receiver.read_to_end(&mut bytes).await.unwrap();
    bytes
}

/// Waits for the end of a process, reading all it says.
pub async fn finish(process: Process) -> Outcome {
    let all = async {
        let (stdout, stderr, exit) = tokio::join!(read_all(process.stdout), read_all(process.stderr), process.exit);
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Outcome { stdout: text(&stdout), stderr: text(&stderr), exit: exit.expect("the cell outlives its process") }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("the process ends")
}

/// Runs a program to its end.
pub async fn run(cell: &Arc<dyn Cell>, process: ProcessSpec) -> Outcome {
    finish(cell.spawn(process).await.expect("the program starts")).await
}

/// Waits until `condition` holds, looking again and again.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

/// Whether a process of the host still runs.
pub fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Paths that bear a cell's name, in the back end's directory or among the cgroups.
pub fn traces(bench: &Bench, cell: InstanceId) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for root in [bench.directory.path(), Path::new("/sys/fs/cgroup")] {
        search(root, &cell.to_string(), &mut found);
    }
    found
}

fn search(directory: &Path, name: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().contains(name) {
            found.push(entry.path());
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            search(&entry.path(), name, found);
        }
    }
}
