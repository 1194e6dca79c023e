//! Everything once more, as somebody without any privilege.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::support::{self, skip};

/// `nobody` on every distribution that matters here; no file or process of this host is relied on.
const NOBODY: u32 = 65_534;

/// Runs the other tests of this binary in a process of an ordinary user.
#[test]
fn the_same_as_an_ordinary_user() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("already an ordinary user: the other tests say it all");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let copy = |from: &Path, name: &str| {
        let to = place.path().join(name);
        std::fs::copy(from, &to).unwrap();
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o755)).unwrap();
        to
    };
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let tests = copy(&std::env::current_exe().unwrap(), "tests");
    let agent = copy(&support::agent_program(), "agent");
    let scratch = place.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    chown(&scratch, Some(NOBODY), Some(NOBODY)).unwrap();
    let mut command = Command::new(tests);
    command
        .args([
            "isolation::",
            "escape::",
            "blank::what",
            "template::",
            "freeze::a_host",
            "on_cell",
            "node_death::kill",
            "node_death::death",
            "node_death::who",
        ])
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/");
    command
        .env(support::AGENT, agent)
        .env("TMPDIR", scratch)
        .env("HOME", "/nonexistent")
        .env_remove("PYENV_ROOT")
        .env_remove("LAMBENT_TEST_REQUIRE_ISOLATION");
    let output = command.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    if said.contains("this host cannot isolate") {
        skip("an ordinary user cannot make cells here");
    }
}
