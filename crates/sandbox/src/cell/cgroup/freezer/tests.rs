//! Which freezer is found, against directories that look like cgroup file systems. What the kernel does with them is tested on real cells.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::*;

/// A host with these hierarchies, whose node directories have what the kernel would put there.
fn host(top: &Path, v1: bool, v2: bool) -> (Hierarchies, super::super::Tree) {
    let mut hierarchies = Hierarchies { v1: BTreeMap::new(), v2: Vec::new() };
    for controller in ["memory", "pids", "cpu"] {
        fs::create_dir_all(top.join(controller)).unwrap();
        hierarchies.v1.insert(controller.to_owned(), vec![top.join(controller)]);
    }
    if v1 {
        fs::create_dir_all(top.join("freezer")).unwrap();
        hierarchies.v1.insert("freezer".to_owned(), vec![top.join("freezer")]);
    }
    if v2 {
        fs::create_dir_all(top.join("unified/n")).unwrap();
        fs::write(top.join("unified/n").join(FREEZE), "0").unwrap();
        hierarchies.v2.push(top.join("unified"));
    }
    let limits = super::super::Tree::V1(v1::Tree::open(&hierarchies, "n").unwrap());
    (hierarchies, limits)
}

#[test]
fn version_2_beside_version_1_comes_first() {
    let top = tempfile::tempdir().unwrap();
    let (hierarchies, limits) = host(top.path(), true, true);
    let found = |only| Tree::open(&hierarchies, &limits, "n", only).unwrap().directory().unwrap();
    assert_eq!(found(None), top.path().join("unified/n"));
    assert_eq!(found(Some(Version::V2)), top.path().join("unified/n"));
    assert_eq!(found(Some(Version::V1)), top.path().join("freezer/n"));
}

#[test]
fn version_1_is_taken_where_version_2_cannot_freeze() {
    let top = tempfile::tempdir().unwrap();
    let (mut hierarchies, limits) = host(top.path(), true, false);
    fs::create_dir(top.path().join("old")).unwrap();
    hierarchies.v2.push(top.path().join("old"));
    let found = Tree::open(&hierarchies, &limits, "n", None).unwrap();
    assert_eq!(found.directory().unwrap(), top.path().join("freezer/n"));
    assert!(!top.path().join("old/n").exists(), "what was made to try it is gone");
}

#[test]
fn a_host_without_any_is_told() {
    let top = tempfile::tempdir().unwrap();
    let (hierarchies, limits) = host(top.path(), false, false);
    let missing = Tree::open(&hierarchies, &limits, "n", None).unwrap_err();
    assert!(missing.contains("freezer controller is not mounted"), "{missing}");
    let missing = Tree::open(&hierarchies, &limits, "n", Some(Version::V2)).unwrap_err();
    assert!(missing.contains("no freezer is mounted"), "{missing}");
}

#[test]
fn what_is_not_wanted_any_more_is_undone() {
    let top = tempfile::tempdir().unwrap();
    let (hierarchies, limits) = host(top.path(), true, true);
    let freezer = Tree::open(&hierarchies, &limits, "n", None).unwrap().of("cell");
    freezer.thaw().unwrap();
    fs::create_dir(top.path().join("unified/n/cell")).unwrap();
    fs::write(top.path().join("unified/n/cell").join(FREEZE), "0").unwrap();
    fs::write(top.path().join("unified/n/cell/cgroup.events"), "populated 1\nfrozen 1\n").unwrap();
    let state = || fs::read_to_string(top.path().join("unified/n/cell").join(FREEZE)).unwrap();
    freezer.want(true);
    freezer.freeze().unwrap();
    assert_eq!(state(), "1");
    freezer.want(false);
    assert_eq!(freezer.freeze().unwrap_err().kind(), io::ErrorKind::Interrupted);
    assert_eq!(state(), "0");
}
