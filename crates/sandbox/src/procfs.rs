//! What `/proc` tells about process trees, for back ends that must count and find processes without a cgroup.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::port::Mapped;

/// What a set of processes uses.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// Memory that is theirs alone: anonymous and shared-memory pages, not the pages of files.
    pub memory_bytes: u64,
    /// CPU time of those alive.
    pub cpu: Duration,
    /// Threads alive.
    pub threads: u64,
}

/// `pid` and everything below it. Bounded by the number of processes on the host.
pub(crate) fn tree(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        next += 1;
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for child in children.split_ascii_whitespace().filter_map(|text| text.parse().ok()) {
                if !found.contains(&child) {
                    found.push(child);
                }
            }
        }
    }
    found
}

/// What these processes use together; those that ended meanwhile count nothing.
pub(crate) fn footprint(pids: &[u32]) -> Footprint {
    let mut sum = Footprint::default();
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_ascii_whitespace().next()).and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        sum.memory_bytes += (field("RssAnon:") + field("RssShmem:")) * 1024;
        sum.threads += field("Threads:");
        sum.cpu += cpu(*pid);
    }
    sum
}

/// What these processes map; those that ended meanwhile count nothing.
pub(crate) fn mapped(pids: &[u32]) -> Mapped {
    let mut sum = Mapped::default();
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        let private = bytes("Private_Clean:") + bytes("Private_Dirty:") + bytes("Private_Hugetlb:");
        sum.private_bytes += private;
        sum.shared_bytes += bytes("Pss:").saturating_sub(private);
    }
    sum
}

/// User and system time of one process.
fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let ticks = |n: usize| -> u64 { stat_field(&stat, n).and_then(|text| text.parse().ok()).unwrap_or(0) };
    // Linux reports in USER_HZ, which is 100 on every architecture we build for.
    Duration::from_millis((ticks(14) + ticks(15)) * 10)
}

/// Field `n` (numbered from 1 as in proc(5)) of a `stat` line; the name, field 2, may itself hold spaces and parentheses.
fn stat_field(stat: &str, n: usize) -> Option<&str> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split_ascii_whitespace().nth(n.checked_sub(3)?)
}

/// When a process started, in clock ticks since boot: with its number, its identity across reuse of numbers. None if it is gone.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat_field(&stat, 22)?.parse().ok()
}

/// The same, but none also if it has ended and only waits to be reaped.
pub(crate) fn runs(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    match stat_field(&stat, 3)? {
        "Z" | "X" => None,
        _ => stat_field(&stat, 22)?.parse().ok(),
    }
}

/// Whether a process is stopped, all its threads, or has ended.
pub(crate) fn is_stopped(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    tasks.flatten().all(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        matches!(stat_field(&stat, 3), None | Some("T" | "Z" | "X"))
    })
}

/// Live processes (not zombies) whose environment holds this `NAME=value` prefix.
pub(crate) fn with_environment(prefix: &str) -> Vec<(u32, String)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(environment) = fs::read(Path::new("/proc").join(pid.to_string()).join("environ")) else { continue };
        let hit = environment.split(|&byte| byte == 0).find(|entry| entry.starts_with(prefix.as_bytes()));
        if let Some(entry) = hit {
            found.push((pid, String::from_utf8_lossy(entry).into_owned()));
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_shift_fields() {
        let line = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 50 60 0 0 20 0 1 0 12345 1 1";
        assert_eq!(stat_field(line, 14), Some("50"));
        assert_eq!(stat_field(line, 22), Some("12345"));
    }

    #[test]
    fn own_process_has_a_start_time_and_memory() {
        let me = std::process::id();
        assert!(start_time(me).is_some());
        assert_eq!(runs(me), start_time(me));
        assert!(footprint(&[me]).memory_bytes > 0);
        assert!(footprint(&[me]).threads > 0);
        assert_eq!(tree(me).first(), Some(&me));
    }
}
