//! Which interpreters this machine has, asked of the interpreters themselves, once, at start.
//!
//! Looked for on `PATH`, in the usual directories, in those of version managers, and wherever the configuration says. What answers first in
//! that order is used. Scripts that stand for an interpreter (pyenv's shims) are seen through: what counts is the program that ran.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures_util::future::join_all;
use lambent_model::function::{Provided, Runtime};
use lambent_sandbox::Mount;

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

/// All interpreters found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interpreters(BTreeMap<Runtime, Interpreter>);

impl Interpreters {
    /// Looks around.
    pub(crate) async fn find(more: &[PathBuf]) -> Self {
        let candidates = candidates(&directories(more));
        let answers = join_all(candidates.iter().map(|candidate| ask(candidate))).await;
        let mut found = BTreeMap::new();
        for (runtime, program, prefix) in answers.into_iter().flatten() {
            found.entry(runtime).or_insert_with(|| place(&program, &prefix));
        }
        Self(found)
    }

    /// The interpreter of a runtime; none for `provided`, and for those that are not here.
    pub(crate) fn of(&self, runtime: &Runtime) -> Option<&Interpreter> {
        self.0.get(runtime)
    }

    /// Everything that can be run here.
    pub(crate) fn runtimes(&self) -> Vec<Runtime> {
        let provided = [Runtime::Provided(Provided::Al2), Runtime::Provided(Provided::Al2023)];
        self.0.keys().cloned().chain(provided).collect()
    }
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

/// Runs a candidate: which runtime it is, its program and its prefix.
async fn ask(candidate: &Path) -> Option<(Runtime, PathBuf, PathBuf)> {
    let node = candidate.file_name()?.to_str()?.starts_with("node");
    let mut command = tokio::process::Command::new(candidate);
    match node {
        true => command.args(["-e", ASK_NODE]),
        false => command.args(["-I", "-S", "-c", ASK_PYTHON]),
    };
    command.stdin(Stdio::null()).stderr(Stdio::null()).current_dir("/").kill_on_drop(true);
    let output = tokio::time::timeout(ANSWER_WITHIN, command.output()).await.ok()?.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut lines = text.lines();
    let (version, program) = (lines.next()?, PathBuf::from(lines.next()?));
    let runtime = served(node, version)?;
    let prefix = if node { program.parent()?.parent()?.to_owned() } else { PathBuf::from(lines.next()?) };
    Some((runtime, program, prefix))
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

    #[tokio::test]
    async fn scripts_are_seen_through_and_liars_ignored() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        for (name, script) in [("node", "echo 99.1.0; echo /usr/bin/fake-node"), ("python3.7", "exit 1")] {
            let path = directory.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let found = join_all(candidates(&[directory.path().to_owned()]).iter().map(|path| ask(path))).await;
        let found: Vec<_> = found.into_iter().flatten().collect();
        let node = (Runtime::Node { major: 99 }, PathBuf::from("/usr/bin/fake-node"), PathBuf::from("/usr"));
        assert_eq!(found, [node]);
    }
}
