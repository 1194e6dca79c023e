//! What a node holds of its host: processes, mounts, cgroups, namespaces, descriptors, memory.

use std::path::Path;
use std::time::{Duration, Instant};

use super::procs;

/// How long a node may take to end what is idle.
const PATIENCE: Duration = Duration::from_secs(40);
/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What there is at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Census {
    /// Calls answered until then.
    pub calls: usize,
    /// Agents, each of them a cell.
    pub cells: usize,
    /// Processes of the node but itself, those included that lost their parents.
    pub processes: usize,
    /// Mounts that the node sees.
    pub mounts: usize,
    /// Groups in the node's cgroups.
    pub cgroups: usize,
    /// Namespaces of all kinds that the node's processes are in.
    pub namespaces: usize,
    /// Open descriptors of the node.
    pub descriptors: usize,
    /// Threads of the node.
    pub threads: usize,
    /// The node's resident memory.
    pub resident_kib: u64,
    /// What of it is no file's.
    pub anonymous_kib: u64,
}

/// Whose things are counted.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The node.
    pub node: u32,
    /// In the environment of every process it starts for a function.
    pub mark: String,
}

impl Subject {
    /// Counts.
    pub fn count(&self, calls: usize) -> Census {
        let all = procs::all();
        let tree = procs::below(self.node, &all);
        let known = |pid: u32| pid == self.node || tree.iter().any(|process| process.pid == pid);
        let astray = all.iter().filter(|process| !known(process.pid) && self.is_ours(process.pid)).count();
        let directory =
            |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", self.node)).map_or(0, Iterator::count);
        let mounts = std::fs::read_to_string(format!("/proc/{}/mountinfo", self.node)).unwrap_or_default();
        Census {
            calls,
            cells: tree.iter().filter(|process| process.name == "lambent-agent").count(),
            processes: tree.len() + astray,
            mounts: mounts.lines().count(),
            cgroups: self.cgroups(),
            namespaces: procs::namespaces(tree.iter().map(|process| process.pid).chain([self.node])),
            descriptors: directory("fd"),
            threads: directory("task"),
            resident_kib: procs::status(self.node, "VmRSS"),
            anonymous_kib: procs::status(self.node, "RssAnon"),
        }
    }

    /// Waits until no cell is left and, where `before` is given, everything is as it was then; what there is in the end, either way.
    pub fn settle(&self, calls: usize, before: Option<&Census>) -> Census {
        let begun = Instant::now();
        loop {
            let census = self.count(calls);
            let back = census.cells == 0 && before.is_none_or(|before| census.differences(before).is_empty());
            if back || begun.elapsed() > PATIENCE {
                return census;
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "nothing tells when another process's containers have ended"
            )]
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Processes that bear the mark, wherever they are.
    pub fn astray(&self) -> usize {
        procs::all().iter().filter(|process| self.is_ours(process.pid)).count()
    }

    fn is_ours(&self, pid: u32) -> bool {
        procs::environment_holds(pid, &self.mark)
    }

    /// Groups below the directories that bear the node's number.
    pub fn cgroups(&self) -> usize {
        let mut found = 0;
        search(Path::new("/sys/fs/cgroup"), &format!("lambent-{}-", self.node), &mut found);
        found
    }
}

fn search(directory: &Path, name: &str, found: &mut usize) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().starts_with(name) {
            let below = std::fs::read_dir(entry.path()).into_iter().flatten().flatten();
            *found += below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).count();
        } else {
            search(&entry.path(), name, found);
        }
    }
}

impl Census {
    /// What is more than it was, in words. Threads come and go with their pool, and memory is judged apart.
    pub fn differences(&self, before: &Self) -> Vec<String> {
        let pairs = [
            ("cells", self.cells, before.cells),
            ("processes", self.processes, before.processes),
            ("mounts", self.mounts, before.mounts),
            ("cgroups", self.cgroups, before.cgroups),
            ("namespaces", self.namespaces, before.namespaces),
            ("descriptors", self.descriptors, before.descriptors),
        ];
        let more = pairs.into_iter().filter(|(_, now, before)| now > before);
        more.map(|(what, now, before)| format!("{now} {what} after {} calls, {before} before", self.calls)).collect()
    }
}
