//! The file operations, against a directory that looks like a cgroup file system.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

const LIMITS: Limits = Limits { memory_bytes: 1 << 30, processes: 9, milli_cpus: 72 };

fn put(directory: &Path, files: &[(&str, &str)]) {
    fs::create_dir_all(directory).unwrap();
    for (name, text) in files {
        fs::write(directory.join(name), text).unwrap();
    }
}

fn get(directory: &Path, file: &str) -> String {
    fs::read_to_string(directory.join(file)).unwrap()
}

#[test]
fn version_2_limits_and_counts() {
    let top = tempfile::tempdir().unwrap();
    let cell = top.path().join("cell");
    put(
        &cell,
        &[
            ("memory.max", "max"),
            ("memory.swap.max", "max"),
            ("pids.max", "max"),
            ("cpu.max", "max"),
            ("memory.current", "5000\n"),
            ("memory.stat", "anon 1000\nfile 3000\nshmem 800\n"),
            ("memory.events", "low 0\noom 3\noom_kill 2\n"),
            ("cpu.stat", "usage_usec 1500\nuser_usec 1000\n"),
            ("pids.current", "4\n"),
        ],
    );
    let group = v2::Tree::open(&fake_v2(top.path()), "n").unwrap();
    assert_eq!(group.directories(), [top.path().join("n")]);
    assert_eq!(get(top.path(), "cgroup.subtree_control"), "+cpu +memory +pids");
    let group = Group::V2(v2_group(&cell));
    if let Group::V2(inner) = &group {
        inner.limit(LIMITS).unwrap();
    }
    assert_eq!(get(&cell, "memory.max"), "1073741824");
    assert!(get(&cell, "memory.swap.max").starts_with('0'));
    assert_eq!(get(&cell, "cpu.max"), "1440 20000");
    group.set_milli_cpus(2000).unwrap();
    assert_eq!(get(&cell, "cpu.max"), "40000 20000");
    let counts = group.counts().unwrap();
    let expected =
        Counts { charged_bytes: 5000, file_bytes: 2200, oom_kills: 2, cpu: Duration::from_micros(1500), processes: 4 };
    assert_eq!(counts, expected);
}

#[test]
fn version_2_says_what_is_not_delegated() {
    let top = tempfile::tempdir().unwrap();
    put(top.path(), &[("cgroup.controllers", "cpu pids\n"), ("cgroup.subtree_control", "")]);
    let hierarchies = Hierarchies { v2: vec![top.path().to_owned()], ..Hierarchies::default() };
    let refused = v2::Tree::open(&hierarchies, "n").unwrap_err();
    assert!(refused.contains("memory"), "{refused}");
}

#[test]
fn version_2_from_inside_the_leaf_takes_what_is_above() {
    let top = tempfile::tempdir().unwrap();
    fake_v2(top.path());
    put(&top.path().join("node"), &[("cgroup.controllers", ""), ("cgroup.subtree_control", "")]);
    let hierarchies = Hierarchies { v2: vec![top.path().join("node")], ..Hierarchies::default() };
    assert_eq!(v2::Tree::open(&hierarchies, "n").unwrap().directories(), [top.path().join("n")]);
}

/// A delegated directory whose child already has what the kernel would put there.
fn fake_v2(top: &Path) -> Hierarchies {
    put(top, &[("cgroup.controllers", "cpuset cpu io memory pids\n"), ("cgroup.subtree_control", "")]);
    put(&top.join("n"), &[("cgroup.subtree_control", "cpu memory pids")]);
    Hierarchies { v2: vec![top.to_owned()], ..Hierarchies::default() }
}

fn v2_group(directory: &Path) -> v2::Group {
    let hierarchies = fake_v2(directory.parent().unwrap());
    let tree = v2::Tree::open(&hierarchies, "n").unwrap();
    let name = format!("../{}", directory.file_name().unwrap().to_str().unwrap());
    tree.group(&name)
}

#[test]
fn version_1_wants_each_required_controller() {
    let top = tempfile::tempdir().unwrap();
    let mut hierarchies = Hierarchies::default();
    for controller in ["memory", "pids"] {
        fs::create_dir(top.path().join(controller)).unwrap();
        hierarchies.v1.insert(controller.to_owned(), vec![top.path().join(controller)]);
    }
    let refused = v1::Tree::open(&hierarchies, "n").unwrap_err();
    assert!(refused.contains("cpu"), "{refused}");
}

#[test]
fn a_quota_is_never_below_the_kernels_least() {
    assert_eq!(Limits::quota_us(1), 1000);
    assert_eq!(Limits::quota_us(1000), CPU_PERIOD_US);
}
