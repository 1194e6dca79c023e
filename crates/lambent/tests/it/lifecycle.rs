//! How a node begins and ends.

use std::process::{Command, Stdio};

use crate::node::{ANSWER, Node, fail, json, lambent, shell_function, succeed};

/// Processes whose command line names `what`.
fn processes(what: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let named = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(what)
    };
    pids.filter(named).collect()
}

/// Waits on a condition, within reason.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !condition() {
        assert!(begun.elapsed().as_secs() < 60, "{what} did not come about");
        std::thread::yield_now();
    }
}

#[test]
fn a_killed_node_comes_back_with_everything_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (data, code) = (dir.path().join("data"), dir.path().join("kept"));
    shell_function(&code, ANSWER);
    let node = Node::start(&data, &[]);
    let invoke = || json(&succeed(lambent().args(["invoke", "kept", "{}", "--data-dir"]).arg(&data)));
    succeed(lambent().arg("deploy").arg(&code).arg("--data-dir").arg(&data));
    assert_eq!(invoke()["ok"], true);
    let inside = data.to_string_lossy().into_owned();
    node.signal("KILL");
    node.wait();
    let node = Node::start(&data, &[]);
    // Whatever the old node's function was, it is gone: only the new node names the directory.
    until("the end of the old processes", || processes(&inside).len() == 1);
    assert_eq!(invoke()["ok"], true);
    node.stop();
    until("the end of all processes", || processes(&inside).is_empty());
}

#[test]
fn a_running_call_may_end_before_the_node_does() {
    let dir = tempfile::tempdir().unwrap();
    let (data, code, gate) = (dir.path().join("data"), dir.path().join("slow"), dir.path().join("gate"));
    // The call goes on until somebody opens the gate.
    let (begun, open) = (gate.with_extension("begun"), gate.with_extension("open"));
    let wait = format!("touch {}; until [ -e {} ]; do sleep 0.05; done; {ANSWER}", begun.display(), open.display());
    shell_function(&code, &wait);
    let node = Node::start(&data, &["--set", "shutdown.grace=60s"]);
    succeed(lambent().args(["deploy", "--timeout", "60"]).arg(&code).arg("--data-dir").arg(&data));
    let mut call = lambent();
    call.args(["invoke", "slow", "{}", "--data-dir"]).arg(&data).stdout(Stdio::piped());
    let call = call.spawn().unwrap();
    until("the call's beginning", || begun.exists());
    node.signal("TERM");
    let refused = || fail(lambent().args(["functions", "--endpoint", &node.endpoint, "--data-dir"]).arg(&data)).0 == 1;
    let endpoint = node.endpoint.trim_start_matches("http://").to_owned();
    until("the closing of the socket", || std::net::TcpStream::connect(&endpoint).is_err());
    assert!(refused());
    std::fs::write(&open, "").unwrap();
    let answer = call.wait_with_output().unwrap();
    assert_eq!(json(&String::from_utf8(answer.stdout).unwrap())["ok"], true);
    assert!(node.wait().success());
}

#[test]
fn a_second_signal_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (data, code) = (dir.path().join("data"), dir.path().join("endless"));
    let begun = dir.path().join("begun");
    shell_function(&code, &format!("touch {}; while true; do sleep 0.05; done", begun.display()));
    let node = Node::start(&data, &["--set", "shutdown.grace=600s"]);
    succeed(lambent().args(["deploy", "--timeout", "600"]).arg(&code).arg("--data-dir").arg(&data));
    let mut call =
        lambent().args(["invoke", "endless", "{}", "--data-dir"]).arg(&data).stderr(Stdio::null()).spawn().unwrap();
    until("the call's beginning", || begun.exists());
    node.signal("TERM");
    let endpoint = node.endpoint.trim_start_matches("http://").to_owned();
    until("the closing of the socket", || std::net::TcpStream::connect(&endpoint).is_err());
    node.signal("INT");
    assert_eq!(node.wait().code(), Some(130));
    assert!(!call.wait().unwrap().success());
    // What a node that ended at once left behind goes when the next one starts.
    Node::start(&data, &[]).stop();
    until("the end of all processes", || processes(&data.to_string_lossy()).is_empty());
}

#[test]
fn a_data_directory_has_one_node() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]);
    let mut second = lambent();
    second.args(["serve", "--sandbox", "sim", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.path());
    let (code, said) = fail(&mut second);
    assert_eq!(code, 1);
    assert!(said.contains("--data-dir"), "{said}");
    node.stop();
}

#[test]
fn a_taken_port_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let holder = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let taken = holder.local_addr().unwrap();
    let mut serve: Command = lambent();
    serve.args(["serve", "--sandbox", "sim", "--listen", &taken.to_string(), "--data-dir"]).arg(dir.path());
    let (code, said) = fail(&mut serve);
    drop(holder);
    assert_eq!(code, 1);
    assert!(said.contains(&format!("cannot listen on {taken}")) && said.contains("api.listen"), "{said}");
}
