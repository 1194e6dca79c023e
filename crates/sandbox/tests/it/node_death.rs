//! `kill -9` of the node, from outside: nothing of its cells stays.
//!
//! The node is this same test binary, started again with only [`a_node_to_be_killed`] to run.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use lambent_model::InstanceId;
use lambent_sandbox::Sandbox;
use lambent_sandbox::cell::FreezerVersion;

use crate::support::{self, shell, spec};

const BACK_END: &str = "LAMBENT_TEST_BACK_END";
const DIRECTORY: &str = "LAMBENT_TEST_DIRECTORY";
const FROZEN: &str = "LAMBENT_TEST_FROZEN";

fn back_end(name: &str, directory: &Path) -> std::sync::Arc<dyn Sandbox> {
    match name {
        "sim" => std::sync::Arc::new(lambent_sandbox::sim::Sim::new(directory)),
        "cell frozen by v1" => frozen_by(directory, FreezerVersion::V1),
        "cell frozen by v2" => frozen_by(directory, FreezerVersion::V2),
        _ => support::cells_in(directory),
    }
}

fn frozen_by(directory: &Path, version: FreezerVersion) -> std::sync::Arc<dyn Sandbox> {
    let mut config = support::config(directory);
    config.freezer = Some(version);
    std::sync::Arc::new(lambent_sandbox::cell::Cells::new(config).unwrap())
}

#[tokio::test]
#[ignore = "not a test: the victim of the others"]
async fn a_node_to_be_killed() {
    let (Ok(name), Some(directory)) = (std::env::var(BACK_END), std::env::var_os(DIRECTORY)) else { return };
    let cell = back_end(&name, Path::new(&directory)).create(spec()).await.unwrap();
    let time = support::long_time(cell.id());
    let line = format!("setsid sleep {time} & exec sleep {time}");
    let process = cell.spawn(shell(&line)).await.unwrap();
    support::until("both sleep", || support::sleepers(&time).len() == 2).await;
    if std::env::var_os(FROZEN).is_some() {
        cell.freeze().await.unwrap();
    }
    println!("\ncell {}", cell.id());
    process.exit.await.unwrap();
}

#[tokio::test]
#[ignore = "not a test by itself: kills the nursery of its process"]
async fn a_node_whose_nursery_dies() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let sandbox = support::cells_in(Path::new(&directory));
    let cell = sandbox.create(spec()).await.unwrap();
    let process = cell.spawn(shell("sleep 1000")).await.unwrap();
    for nursery in support::children_of_this_process("lambent-nursery") {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(nursery), nix::sys::signal::SIGKILL).unwrap();
    }
    assert!(process.exit.await.is_err(), "the cell ends with it, and says so");
    assert!(cell.spawn(shell("true")).await.is_err());
    cell.destroy().await;
    assert_eq!(support::run(&sandbox.create(spec()).await.unwrap(), shell("echo again")).await.stdout, "again\n");
}

#[tokio::test]
#[ignore = "not a test by itself: stops the agent and the nursery of its process"]
async fn a_node_whose_agents_are_stopped() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let mut config = support::config(Path::new(&directory));
    config.patience = std::time::Duration::from_secs(5);
    let sandbox: std::sync::Arc<dyn Sandbox> = std::sync::Arc::new(lambent_sandbox::cell::Cells::new(config).unwrap());
    let stop = |pid| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGSTOP).unwrap();
    let cell = sandbox.create(spec()).await.unwrap();
    let process = cell.spawn(shell("sleep 1000")).await.unwrap();
    let [nursery] = support::children_of_this_process("lambent-nursery")[..] else { panic!("one nursery") };
    let [agent] = support::children(nursery, "lambent-agent")[..] else { panic!("one agent") };
    stop(agent);
    assert!(matches!(cell.spawn(shell("true")).await, Err(lambent_sandbox::Error::Ended)));
    assert!(process.exit.await.is_err(), "the cell ends with its agent, and says so");
    cell.destroy().await;
    assert!(!support::alive(agent.cast_unsigned()));
    drop(cell);
    stop(nursery);
    assert!(sandbox.create(spec()).await.is_err());
    assert_eq!(support::run(&sandbox.create(spec()).await.unwrap(), shell("echo again")).await.stdout, "again\n");
    assert!(!support::alive(nursery.cast_unsigned()), "nobody needs it any more");
}

/// Runs one of the above in a process of its own, whose nursery is no other test's.
fn alone(name: &str) {
    let directory = tempfile::tempdir().unwrap();
    if support::cell().is_none() {
        return;
    }
    let mut node = Command::new(std::env::current_exe().unwrap());
    node.args(["--exact", name, "--ignored"]).env(DIRECTORY, directory.path());
    let output = node.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn death_of_the_nursery_ends_its_cells_and_is_repaired() {
    alone("node_death::a_node_whose_nursery_dies");
}

#[test]
fn who_does_not_answer_is_given_up() {
    alone("node_death::a_node_whose_agents_are_stopped");
}

/// Starts a node, kills it when its cell runs, and returns the cell.
fn kill_a_node(name: &str, directory: &Path, frozen: bool) -> InstanceId {
    let mut node = Command::new(std::env::current_exe().unwrap());
    node.args(["--exact", "node_death::a_node_to_be_killed", "--ignored", "--nocapture"]);
    node.env(BACK_END, name).env(DIRECTORY, directory).stdout(Stdio::piped()).stdin(Stdio::null());
    if frozen {
        node.env(FROZEN, "yes");
    }
    let mut node = node.spawn().unwrap();
    let lines = BufReader::new(node.stdout.take().unwrap()).lines().map_while(Result::ok);
    let id = lines.filter_map(|line| line.strip_prefix("cell ")?.parse::<uuid::Uuid>().ok()).next();
    node.kill().unwrap();
    node.wait().unwrap();
    id.expect("the node makes a cell").into()
}

async fn leaves_nothing(name: &str, directory: &Path, frozen: bool) {
    // A living node in the same directory, whose cell must survive the recovery.
    let living = back_end(name, directory);
    let survivor = living.create(spec()).await.unwrap();
    let id = kill_a_node(name, directory, frozen);
    let time = support::long_time(id);
    if name.starts_with("cell") && !(frozen && name.ends_with("v1")) {
        // By the kernel alone; a simulated cell's daemons, and who is frozen by version 1, wait for the recovery.
        support::until("its processes are gone", || support::sleepers(&time).is_empty()).await;
    }
    let next = back_end(name, directory);
    let found = next.recover().await.unwrap();
    let limited = next.barriers().iter().all(|barrier| barrier.name != "cpu share" || barrier.missing.is_none());
    assert_eq!(found, usize::from(limited), "there is something to find where there are cgroups or directories");
    assert!(support::sleepers(&time).is_empty());
    assert_eq!(support::traces_below(directory, id), Vec::<std::path::PathBuf>::new());
    assert_eq!(next.recover().await.unwrap(), 0);
    assert_eq!(support::run(&survivor, shell("echo alive")).await.stdout, "alive\n");
    survivor.destroy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_a_node_of_cells_leaves_nothing() {
    let Some(bench) = support::cell() else { return };
    leaves_nothing("cell", bench.directory.path(), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_a_node_of_sims_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    leaves_nothing("sim", directory.path(), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_a_node_leaves_nothing_of_frozen_cells() {
    for (name, version) in [("cell frozen by v1", FreezerVersion::V1), ("cell frozen by v2", FreezerVersion::V2)] {
        let Some(bench) = support::cell_frozen_by(version) else { continue };
        leaves_nothing(name, bench.directory.path(), true).await;
    }
    let directory = tempfile::tempdir().unwrap();
    leaves_nothing("sim", directory.path(), true).await;
}
