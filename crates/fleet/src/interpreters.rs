//! Which interpreters this machine has, asked of the interpreters themselves, once, when that is first needed.
//!
//! Looked for on `PATH`, in the usual directories, in those of version managers, and wherever the configuration says. What answers first in
//! that order is used. Scripts that stand for an interpreter (pyenv's shims) are seen through: what counts is the program that ran.
//!
//! Asking takes a process each, so what a program said is [remembered](memory) for as long as its file stays the same, and a node looks
//! only after it has begun to answer: whoever needs the outcome waits for [`Interpreters::ready`].

mod memory;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures_util::future::join_all;
use lambent_model::function::{Provided, Runtime};
use lambent_sandbox::Mount;
use tokio::sync::OnceCell;

use memory::{Memory, Said};

/// How long an interpreter may take to say what it is.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Most candidates asked; a machine has a handful.
const CANDIDATES: usize = 64;
/// Where an interpreter is shown whose own place is taken inside a cell.
const ELSEWHERE: &str = "/var/lang";

/// A language interpreter of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interpreter {
    /// The program, as seen inside a cell.
    pub program: String,
    /// What of the host a cell must show for it.
    pub mount: Option<Mount>,
}

type Found = BTreeMap<Runtime, Interpreter>;

/// All interpreters found.
#[derive(Debug)]
pub(crate) struct Interpreters {
    more: Vec<PathBuf>,
    memory: PathBuf,
    found: OnceCell<Found>,
}

impl Interpreters {
    /// Of this machine and of the directories `more`; `memory` is the file that remembers earlier answers. Looks at nothing yet.
    pub(crate) fn new(more: Vec<PathBuf>, memory: PathBuf) -> Self {
        Self { more, memory, found: OnceCell::new() }
    }

    /// Returns when all that there is was found. Who comes first looks, the others wait.
    pub(crate) async fn ready(&self) {
        self.found.get_or_init(|| find(self.more.clone(), self.memory.clone())).await;
    }

    /// The interpreter of a runtime; none for `provided`, for those that are not here, and before [`Self::ready`].
    pub(crate) fn of(&self, runtime: &Runtime) -> Option<&Interpreter> {
        self.found.get()?.get(runtime)
    }

    /// Everything that can be run here.
    pub(crate) fn runtimes(&self) -> Vec<Runtime> {
        let provided = [Runtime::Provided(Provided::Al2), Runtime::Provided(Provided::Al2023), Runtime::Wasm];
        self.found.get().into_iter().flat_map(BTreeMap::keys).cloned().chain(provided).collect()
    }
}

async fn find(more: Vec<PathBuf>, file: PathBuf) -> Found {
    let looked = tokio::task::spawn_blocking(move || (candidates(&directories(&more)), Memory::open(file)));
    let Ok((candidates, memory)) = looked.await else { return Found::new() };
    let answers = join_all(candidates.iter().map(async |candidate| match memory.of(candidate) {
        Some(said) => Some(said),
        None => ask(candidate).await,
    }));
    let answers: Vec<Option<Said>> = answers.await;
    let mut found = Found::new();
    for said in answers.iter().flatten() {
        if let Some((runtime, program, prefix)) = understood(said) {
            found.entry(runtime).or_insert_with(|| place(&program, &prefix));
        }
    }
    let said = candidates.into_iter().zip(answers).filter_map(|(path, said)| Some((path, said?))).collect();
    // Nobody needs to wait until that is written.
    tokio::task::spawn_blocking(move || memory.keep(said));
    found
}

/// Directories that may hold interpreters, in order, each once.
fn directories(more: &[PathBuf]) -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = more.to_vec();
    directories.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    directories.extend(["/usr/local/bin", "/usr/bin"].map(PathBuf::from));
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let managed = [
        home.as_ref().map(|home| home.join(".pyenv/versions")),
        std::env::var_os("PYENV_ROOT").map(|root| PathBuf::from(root).join("versions")),
        home.as_ref().map(|home| home.join(".nvm/versions/node")),
        home.as_ref().map(|home| home.join(".local/share/uv/python")),
        Some(PathBuf::from("/opt")),
    ];
    for parent in managed.into_iter().flatten() {
        let versions = std::fs::read_dir(parent).into_iter().flatten().flatten();
        let mut versions: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
        versions.sort();
        directories.extend(versions);
    }
    let mut seen = HashSet::new();
    // pyenv's shims are slow scripts, and what they stand for is found among its versions.
    directories.retain(|directory| !directory.ends_with("shims") && seen.insert(directory.clone()));
    directories
}

/// Programs with an interpreter's name.
fn candidates(directories: &[PathBuf]) -> Vec<PathBuf> {
    let is_one = |name: &str| {
        let minor = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
        name == "node" || name == "nodejs" || name == "python3" || name.strip_prefix("python3.").is_some_and(minor)
    };
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for directory in directories {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut names: Vec<PathBuf> =
            entries.filter(|entry| entry.file_name().to_str().is_some_and(is_one)).map(|entry| entry.path()).collect();
        names.sort();
        // The same file under several names needs to be asked once.
        names.retain(|path| std::fs::canonicalize(path).is_ok_and(|real| is_shim(&real) || seen.insert(real)));
        found.extend(names);
    }
    found.truncate(CANDIDATES);
    found
}

/// A script picks its program by the name it is called by, so one file may stand for many.
fn is_shim(path: &Path) -> bool {
    use std::io::Read as _;
    let mut magic = [0; 2];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && &magic == b"#!"
}

const ASK_PYTHON: &str = "import os, sys\n\
    base = getattr(sys, '_base_executable', None) or sys.executable\n\
    print('%d.%d' % sys.version_info[:2], os.path.realpath(base), sys.base_prefix, sep='\\n')";
const ASK_NODE: &str = "console.log(process.versions.node + '\\n' + require('fs').realpathSync(process.execPath))";

/// What the bootstraps in `runtimes/` are written for and tested on.
const OLDEST_PYTHON_3: u8 = 8;
/// The same for Node.js.
const OLDEST_NODE: u8 = 18;

/// Runs a candidate.
async fn ask(candidate: &Path) -> Option<Said> {
    let node = is_node(candidate);
    let mut command = tokio::process::Command::new(candidate);
    match node {
        true => command.args(["-e", ASK_NODE]),
        false => command.args(["-I", "-S", "-c", ASK_PYTHON]),
    };
    command.stdin(Stdio::null()).stderr(Stdio::null()).current_dir("/").kill_on_drop(true);
    let output = tokio::time::timeout(ANSWER_WITHIN, command.output()).await.ok()?.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut lines = text.lines();
    let (version, program) = (lines.next()?.to_owned(), PathBuf::from(lines.next()?));
    let prefix = if node { program.parent()?.parent()?.to_owned() } else { PathBuf::from(lines.next()?) };
    Some(Said { node, version, program, prefix })
}

fn is_node(candidate: &Path) -> bool {
    candidate.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"node"))
}

/// What that means: which runtime it is, its program and its prefix.
fn understood(said: &Said) -> Option<(Runtime, PathBuf, PathBuf)> {
    Some((served(said.node, &said.version)?, said.program.clone(), said.prefix.clone()))
}

/// The runtime that an interpreter of this version is; none where our bootstraps do not run on it.
fn served(node: bool, version: &str) -> Option<Runtime> {
    let (major, rest) = version.split_once('.')?;
    let major: u8 = major.parse().ok()?;
    if node {
        return (major >= OLDEST_NODE).then_some(Runtime::Node { major });
    }
    let minor: u8 = rest.parse().ok()?;
    (major == 3 && minor >= OLDEST_PYTHON_3).then_some(Runtime::Python { minor })
}

/// Where a cell sees an interpreter.
fn place(program: &Path, prefix: &Path) -> Interpreter {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    if prefix.starts_with("/usr") || program.starts_with("/usr") {
        return Interpreter { program: text(program), mount: None };
    }
    // A prefix as broad as `/` or a home folder would show what is not the interpreter's: then only the program is shown.
    let source = if prefix.components().count() > 2 && program.starts_with(prefix) { prefix } else { program };
    let taken = ["/opt", "/tmp", "/var", "/proc", "/dev", "/etc"].iter().any(|taken| source.starts_with(taken));
    let target = if taken { PathBuf::from(ELSEWHERE) } else { source.to_owned() };
    let inside = match program.strip_prefix(source) {
        Ok(rest) if !rest.as_os_str().is_empty() => target.join(rest),
        _ => target.clone(),
    };
    Interpreter { program: text(&inside), mount: Some(Mount { source: source.to_owned(), target }) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_the_interpreters_is_shown() {
        let placed = |program: &str, prefix: &str| {
            let placed = place(Path::new(program), Path::new(prefix));
            (placed.program, placed.mount.map(|mount| (mount.source, mount.target)))
        };
        let mounted = |program: &str, source: &str, target: &str| {
            (program.to_owned(), Some((PathBuf::from(source), PathBuf::from(target))))
        };
        assert_eq!(placed("/usr/bin/python3.11", "/usr"), ("/usr/bin/python3.11".to_owned(), None));
        let pyenv = "/root/.pyenv/versions/3.12.1";
        assert_eq!(
            placed(&format!("{pyenv}/bin/python3.12"), pyenv),
            mounted(&format!("{pyenv}/bin/python3.12"), pyenv, pyenv)
        );
        assert_eq!(
            placed("/opt/node-v22/bin/node", "/opt/node-v22"),
            mounted("/var/lang/bin/node", "/opt/node-v22", "/var/lang")
        );
        assert_eq!(placed("/home/bin/node", "/home"), mounted("/home/bin/node", "/home/bin/node", "/home/bin/node"));
    }

    #[test]
    fn interpreters_too_old_for_our_bootstraps_are_no_runtimes() {
        assert_eq!(served(false, "3.8"), Some(Runtime::Python { minor: 8 }));
        assert_eq!(served(true, "18.20.1"), Some(Runtime::Node { major: 18 }));
        for (node, version) in [(false, "3.7"), (false, "2.7"), (true, "16.20.0"), (true, "x"), (false, "")] {
            assert_eq!(served(node, version), None, "{version}");
        }
    }

    fn program(directory: &Path, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = directory.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[tokio::test]
    async fn scripts_are_seen_through_and_liars_ignored() {
        let directory = tempfile::tempdir().unwrap();
        program(directory.path(), "node", "echo 99.1.0; echo /usr/bin/fake-node");
        program(directory.path(), "python3.7", "exit 1");
        let found = join_all(candidates(&[directory.path().to_owned()]).iter().map(|path| ask(path))).await;
        let found: Vec<_> = found.iter().flatten().filter_map(understood).collect();
        let node = (Runtime::Node { major: 99 }, PathBuf::from("/usr/bin/fake-node"), PathBuf::from("/usr"));
        assert_eq!(found, [node]);
    }

    #[tokio::test]
    async fn whoever_needs_an_interpreter_waits_for_it() {
        use std::io::Write as _;
        let directory = tempfile::tempdir().unwrap();
        let [gate, memory] = ["gate", "fleet/interpreters.json"].map(|name| directory.path().join(name));
        nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
        program(
            directory.path(),
            "node",
            &format!("read line < {}; echo 99.1.0; echo /usr/bin/fake-node", gate.display()),
        );
        let interpreters = Interpreters::new(vec![directory.path().to_owned()], memory);
        let node = Runtime::Node { major: 99 };
        assert_eq!(interpreters.of(&node), None);
        // Opening it waits until the program has begun to read.
        let open = tokio::task::spawn_blocking(move || writeln!(std::fs::File::options().write(true).open(gate)?));
        let (opened, (), ()) = tokio::join!(open, interpreters.ready(), interpreters.ready());
        opened.unwrap().unwrap();
        assert!(interpreters.of(&node).is_some());
        assert!(interpreters.runtimes().contains(&node));
    }
}
