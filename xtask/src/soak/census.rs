//! What a node holds of its host: processes, mounts, cgroups, namespaces, descriptors, memory.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use super::procs::{self, Process};
use crate::api;

/// How long a node without a warming pool to speak of may take to end what is idle.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What there is at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Census {
    /// Calls answered until then.
    pub calls: usize,
    /// Agents, each of them a cell; a node may keep some that are nobody's yet.
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

/// How often a first count must repeat itself before it is taken: what a node makes ahead of any call it makes in its own time.
const STEADY: usize = 10;

/// Whose things are counted.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The node.
    pub node: u32,
    /// Where it answers.
    pub address: SocketAddr,
    /// How long it may take to end what is idle.
    pub patience: Duration,
}

impl Subject {
    /// Counts.
    pub fn count(&self, calls: usize) -> Census {
        let all = procs::all();
        let tree = procs::below(self.node, &all);
        let known = |pid: u32| pid == self.node || tree.iter().any(|process| process.pid == pid);
        let astray = all.iter().filter(|process| !known(process.pid) && self.has_in_cgroup(process.pid)).count();
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

    /// Waits until no function has a container and everything is as it was `before`; what there is in the end, either way.
    pub fn settle(&self, calls: usize, before: &Census) -> Census {
        self.wait(calls, |now, _| now.differences(before).is_empty())
    }

    /// Waits until no function has a container and nothing changes any more.
    pub fn begin(&self) -> Census {
        self.wait(0, |_, repeated| repeated >= STEADY)
    }

    fn wait(&self, calls: usize, is_enough: impl Fn(&Census, usize) -> bool) -> Census {
        let begun = Instant::now();
        let (mut last, mut repeated) = (self.count(calls), 0);
        loop {
            let idle = self.containers() == Some(0.0);
            if idle && is_enough(&last, repeated) || begun.elapsed() > self.patience {
                return last;
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "nothing tells when another process's containers have ended"
            )]
            std::thread::sleep(LOOK_EVERY);
            let now = self.count(calls);
            repeated =
                if now.differences(&last).is_empty() && last.differences(&now).is_empty() { repeated + 1 } else { 0 };
            last = now;
        }
    }

    /// Containers of functions, as the node's metrics have them; none where they cannot be read.
    fn containers(&self) -> Option<f64> {
        Some(api::sum(&api::metrics(self.address).ok()?, "lambent_containers"))
    }

    /// All processes below the node; to be asked for again when it is gone.
    pub fn descendants(&self) -> Vec<Process> {
        procs::below(self.node, &procs::all())
    }

    fn has_in_cgroup(&self, pid: u32) -> bool {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        text.contains(&self.group())
    }

    /// How the directories of its cgroups begin.
    fn group(&self) -> String {
        format!("lambent-{}-", self.node)
    }

    /// Groups below the directories that bear the node's number.
    pub fn cgroups(&self) -> usize {
        let mut found = 0;
        search(Path::new("/sys/fs/cgroup"), &self.group(), &mut found);
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
