//! Back ends to test, and ways to look at what runs in a cell.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lambent_model::InstanceId;
use lambent_model::function::Network;
use lambent_sandbox::{
    Barrier, BlankSpec, Cell, CellSpec, Error, ExitStatus, Process, ProcessSpec, Sandbox, Specialisation, Template,
    TemplateSpec, cell, egress, sim,
};
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

/// The isolating back end as a node of this directory has it.
pub fn cells_in(directory: &Path) -> Arc<dyn Sandbox> {
    cells_with(directory, egress::Config::default())
}

/// The same with a way out as given.
pub fn cells_with(directory: &Path, egress: egress::Config) -> Arc<dyn Sandbox> {
    let mut config = config(directory);
    config.egress = Arc::new(egress);
    Arc::new(cell::Cells::new(config).unwrap())
}

/// What the isolating back end is told here.
pub fn config(directory: &Path) -> cell::Config {
    let mut config = cell::Config::new(directory);
    config.agent = agent_program();
    config
}

/// The isolating back end, where the host can give it. Where it cannot, that is said loudly, and is a failure when CI demands it.
pub fn cell() -> Option<Bench> {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = cells_in(directory.path());
    let missing: Vec<_> =
        sandbox.barriers().into_iter().filter(|barrier| barrier.required && barrier.missing.is_some()).collect();
    if missing.is_empty() {
        return Some(Bench { sandbox, directory });
    }
    skip(&format!("{missing:#?}"));
    None
}

/// The same with the freezer of this version, where the host has it.
pub fn cell_frozen_by(version: cell::FreezerVersion) -> Option<Bench> {
    let Bench { directory, .. } = cell()?;
    let mut config = config(directory.path());
    config.freezer = Some(version);
    let sandbox: Arc<dyn Sandbox> = Arc::new(cell::Cells::new(config).unwrap());
    if !sandbox.freezes() {
        // No lack of isolation: most hosts have only one of them.
        eprintln!("SKIPPED: this host has no freezer of {version:?}");
        return None;
    }
    Some(Bench { sandbox, directory })
}

/// The same, making each cell blank first. What a test shows of ordinary cells holds for these.
pub fn cell_by_blank() -> Option<Bench> {
    let Bench { sandbox, directory } = cell()?;
    Some(Bench { sandbox: Arc::new(ByBlank(sandbox)), directory })
}

/// As [`cell_by_blank`].
pub fn sim_by_blank() -> Option<Bench> {
    let Bench { sandbox, directory } = sim()?;
    Some(Bench { sandbox: Arc::new(ByBlank(sandbox)), directory })
}

/// Makes every cell blank, and then makes it whose it is.
pub struct ByBlank(pub Arc<dyn Sandbox>);

#[async_trait::async_trait]
impl Sandbox for ByBlank {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    async fn create(&self, spec: CellSpec) -> Result<Arc<dyn Cell>, Error> {
        let CellSpec { id, mounts, memory_mib, milli_cpus, ephemeral_mib, processes, network } = spec;
        let cell = self.0.blank(BlankSpec { id, mounts: Vec::new(), memory_mib: 512 }).await?;
        let what = Specialisation { mounts, memory_mib, milli_cpus, ephemeral_mib, processes, network };
        cell.specialise(what).await?;
        Ok(cell)
    }

    async fn blank(&self, spec: BlankSpec) -> Result<Arc<dyn Cell>, Error> {
        self.0.blank(spec).await
    }

    async fn template(&self, spec: TemplateSpec) -> Result<Arc<dyn Template>, Error> {
        self.0.template(spec).await
    }

    fn freezes(&self) -> bool {
        self.0.freezes()
    }

    async fn recover(&self) -> Result<usize, Error> {
        self.0.recover().await
    }

    fn barriers(&self) -> Vec<Barrier> {
        self.0.barriers()
    }
}

/// The program that serves as the agent: a test binary's `main` is not its own.
pub fn agent_program() -> PathBuf {
    std::env::var_os(AGENT).map_or_else(|| env!("CARGO_BIN_EXE_cell-agent").into(), PathBuf::from)
}

/// Names another place of the agent, for tests that run elsewhere as somebody else.
pub const AGENT: &str = "LAMBENT_TEST_AGENT";

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
        order_pipe: false,
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

/// Host processes `sleep` with this argument.
pub fn sleepers(argument: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(b"sleep\0") && line.split(|&byte| byte == 0).any(|part| part == argument.as_bytes())
    };
    pids.filter(has).collect()
}

/// Digits that no other test uses, from a cell's id: a time to sleep for that names the sleeper.
pub fn long_time(cell: InstanceId) -> String {
    let digits: String = cell.to_string().chars().filter(char::is_ascii_digit).take(8).collect();
    format!("100{digits}")
}

/// Whether a process of the host still runs.
pub fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Paths that bear a cell's name, in the back end's directory or among the cgroups.
pub fn traces(bench: &Bench, cell: InstanceId) -> Vec<PathBuf> {
    traces_below(bench.directory.path(), cell)
}

/// The same for any directory.
pub fn traces_below(directory: &Path, cell: InstanceId) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for root in [directory, Path::new("/sys/fs/cgroup")] {
        search(root, &cell.to_string(), &mut found);
    }
    found
}

/// Processes with this text in their environment: of a simulated cell, if it is the cell's name.
pub fn marked(text: &str) -> Vec<u32> {
    processes(|pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(text)
    })
}

/// Processes whose last arguments are these.
pub fn commands(arguments: &[&str]) -> Vec<u32> {
    let end: String = arguments.iter().map(|argument| format!("\0{argument}")).collect();
    processes(|pid| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).trim_end_matches('\0').ends_with(&end)
    })
}

fn processes(wanted: impl Fn(u32) -> bool) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| wanted(pid)).collect()
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

/// The interpreter that tests use.
pub const PYTHON: &str = "/usr/bin/python3";

/// Lets the unprivileged user of a cell in, as the code cache does, whatever the umask was: all may do what the owner may, but write.
pub fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).unwrap().permissions().mode();
    let shared = mode & 0o500;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode | shared >> 3 | shared >> 6)).unwrap();
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        open_to_all(&entry.path());
    }
}

/// A daemon that left its process group, and the number it runs under on the host.
pub async fn with_daemon(bench: &Bench) -> (Arc<dyn Cell>, Vec<u32>) {
    let cell = bench.sandbox.create(spec()).await.unwrap();
    let marker = long_time(cell.id());
    let line = format!("setsid sleep {marker} >/dev/null 2>&1 </dev/null & sleep {marker}");
    let process = cell.spawn(shell(&line)).await.unwrap();
    drop((process.stdout, process.stderr));
    until("the daemon runs", || sleepers(&marker).len() == 2).await;
    let pids = sleepers(&marker);
    (cell, pids)
}

/// The first line that a process says.
pub async fn first_line(fd: OwnedFd) -> String {
    line(&mut tokio::net::unix::pipe::Receiver::from_owned_fd(fd).unwrap()).await
}

/// The next line that it says.
pub async fn line(receiver: &mut tokio::net::unix::pipe::Receiver) -> String {
    let mut line = String::new();
    let read = async {
        while let Ok(byte) = receiver.read_u8().await
            && byte != b'\n'
        {
            line.push(char::from(byte));
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("a line arrives");
    line
}

/// As [`until`], for conditions that must be waited for themselves.
pub async fn until_async<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

/// A process of the back end on the host.
pub struct Agent {
    pub uid: u32,
}

/// Agents below this process. Tests run side by side in it, so these are not one test's alone.
pub fn agents_of_this_process() -> Vec<Agent> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
        if field("Name:") != "lambent-agent" {
            continue;
        }
        let parent = std::fs::read_to_string(format!("/proc/{}/status", field("PPid:"))).unwrap_or_default();
        if parent
            .lines()
            .any(|line| line.strip_prefix("PPid:").is_some_and(|pid| pid.trim() == std::process::id().to_string()))
        {
            let uid = field("Uid:").split_whitespace().next().unwrap().parse().unwrap();
            found.push(Agent { uid });
        }
    }
    found
}

/// An interpreter of the host, and the directory it needs beside the system's.
pub struct Interpreter {
    pub kind: &'static str,
    pub program: String,
    pub mount: Option<PathBuf>,
}

/// Those found on this host: the system's, and versions installed side by side.
pub fn interpreters() -> Vec<Interpreter> {
    let mut found = Vec::new();
    for (kind, program) in [("python", PYTHON), ("node", "/usr/bin/node")] {
        if Path::new(program).exists() {
            found.push(Interpreter { kind, program: program.to_owned(), mount: None });
        }
    }
    let home = std::env::var_os("PYENV_ROOT").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".pyenv")));
    let versions = home.and_then(|home| std::fs::read_dir(home.join("versions")).ok());
    for version in versions.into_iter().flatten().flatten() {
        let supported = ["3.8.", "3.9.", "3.10.", "3.11.", "3.12.", "3.13."];
        let name = version.file_name().to_string_lossy().into_owned();
        let program = version.path().join("bin/python3");
        if supported.iter().any(|prefix| name.starts_with(prefix)) && program.exists() {
            let program = program.to_string_lossy().into_owned();
            found.push(Interpreter { kind: "python", program, mount: Some(version.path()) });
        }
    }
    found
}

/// How many descriptors of this process are sockets or pidfds of a cell, or lie below a directory. Other tests' are counted as well,
/// so only a bound from above that is waited for says anything.
pub fn open_here(directory: &Path) -> usize {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let is_ours = |target: PathBuf| target.starts_with(directory) || target.to_string_lossy().contains("[pidfd]");
    entries.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(is_ours)).count()
}

/// Direct children of this process with this name.
pub fn children_of_this_process(name: &str) -> Vec<i32> {
    children(std::process::id().cast_signed(), name)
}

/// Those of any process.
pub fn children(parent: i32, name: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{parent}/task")).unwrap().flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            if std::fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default().trim() == name {
                found.push(child.parse().unwrap());
            }
        }
    }
    found
}

/// Memory of processes by the kernel's own account, for people: PSS counts a page by how many share it.
pub fn memory(pids: &[i32]) -> String {
    let (mut pss, mut private) = (0, 0);
    for pid in pids {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let field = |name: &str| -> u64 {
            let line = rollup.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_ascii_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        (pss, private) = (pss + field("Pss:"), private + field("Private_Dirty:"));
    }
    format!("{} processes, PSS {pss} KiB, private dirty {private} KiB", pids.len())
}
