//! The host's processes, as `/proc` shows them.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;

/// One process.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its number on the host.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// Its name, as the kernel has it.
    pub name: String,
    /// When it started, in ticks since boot: with its number, which process it is.
    pub start: u64,
}

/// All of them.
pub fn all() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| parse(pid, &std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)).collect()
}

/// A line of `stat`; the name may itself hold spaces and parentheses.
fn parse(pid: u32, stat: &str) -> Option<Process> {
    let (head, rest) = stat.rsplit_once(") ")?;
    let name = head.split_once('(')?.1.to_owned();
    let mut rest = rest.split_ascii_whitespace().skip(1);
    let parent = rest.next()?.parse().ok()?;
    let start = rest.nth(17)?.parse().ok()?;
    Some(Process { pid, parent, name, start })
}

/// Whether that very process still runs; one that has ended and that nobody has asked how does not.
pub fn runs(process: &Process) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap_or_default();
    let has_ended = stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'));
    !has_ended && parse(process.pid, &stat).is_some_and(|other| other.start == process.start)
}

/// Everything below `root`, nearest first.
pub fn below(root: u32, all: &[Process]) -> Vec<Process> {
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![root];
    while !parents.is_empty() {
        let children: Vec<Process> = all.iter().filter(|process| parents.contains(&process.parent)).cloned().collect();
        parents = children.iter().map(|process| process.pid).collect();
        found.extend(children);
    }
    found
}

/// The command line of a process, its arguments with spaces between them.
pub fn command(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// Namespaces these processes are in together.
pub fn namespaces(pids: impl Iterator<Item = u32>) -> usize {
    let kinds = ["user", "mnt", "net", "pid", "ipc", "uts", "cgroup"];
    let inode = |pid: u32, kind| std::fs::metadata(format!("/proc/{pid}/ns/{kind}")).map(|file| file.ino()).ok();
    pids.flat_map(|pid| kinds.map(|kind| (kind, inode(pid, kind))))
        .filter(|(_, inode)| inode.is_some())
        .collect::<HashSet<_>>()
        .len()
}

/// What these processes use of memory, in KiB: pages that several share are counted in shares.
pub fn proportional_kib(pids: impl Iterator<Item = u32>) -> u64 {
    pids.map(|pid| field(&format!("/proc/{pid}/smaps_rollup"), "Pss")).sum()
}

/// A field of a process's `status`, in its own unit.
pub fn status(pid: u32, field_name: &str) -> u64 {
    field(&format!("/proc/{pid}/status"), field_name)
}

/// The number behind a name in a file of such lines; 0 where there is none.
fn field(path: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_may_be_odd_and_descendants_are_found() {
        let odd = parse(7, "7 (a) (b c) S 5 7 7 0 -1 4194560 1 2 3 4 50 60 0 0 20 0 1 0 12345 1 1").unwrap();
        assert_eq!((odd.name.as_str(), odd.parent, odd.start), ("a) (b c", 5, 12345));
        let process = |pid, parent| Process { pid, parent, name: String::new(), start: 0 };
        let all = [process(1, 0), process(4, 3), process(3, 2), process(2, 1), process(9, 1)];
        let pids: Vec<u32> = below(2, &all).iter().map(|process| process.pid).collect();
        assert_eq!(pids, [3, 4]);
    }
}
