//! Cells that are frozen, by each freezer that the host has.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use lambent_sandbox::cell::FreezerVersion;
use lambent_sandbox::{Cell, Error, Mount};

use crate::support::{self, Bench, PYTHON, open_to_all, program, run, shell, spec, until_async};

promises!(
    {
        by_v1: support::cell_frozen_by(FreezerVersion::V1),
        by_v2: support::cell_frozen_by(FreezerVersion::V2),
        on_sim: support::sim(),
    }
    (
        what_is_frozen_uses_no_cpu_until_it_is_thawed,
        what_forks_all_the_time_is_frozen_whole,
        what_is_sent_and_asked_waits,
        a_freeze_that_nobody_waits_for_is_undone_by_a_thaw,
        it_may_be_said_twice,
        frozen_cells_are_destroyed,
        frozen_cells_are_dropped,
    )
);

async fn cpu(cell: &Arc<dyn Cell>) -> Duration {
    cell.usage().await.unwrap().cpu
}

/// Waits until the busy processes of this cell have used so much more CPU time: for others as long as it takes.
async fn until_used(cell: &Arc<dyn Cell>, more: Duration) {
    let before = cpu(cell).await;
    until_async("CPU time is used", || async { cpu(cell).await >= before + more }).await;
}

/// Shows that a cell uses no CPU while another does. A process that is on its way to stand still is counted as frozen a few microseconds before.
async fn stands(cell: &Arc<dyn Cell>, witness: &Arc<dyn Cell>) {
    let before = cpu(cell).await;
    until_used(witness, Duration::from_millis(50)).await;
    let used = cpu(cell).await - before;
    assert!(used < Duration::from_millis(1), "{used:?}");
}

/// A cell with a process that is busy, and another that has left its session.
async fn busy(bench: &Bench) -> Arc<dyn Cell> {
    let cell = bench.sandbox.create(spec()).await.unwrap();
    let process = cell.spawn(shell("setsid /bin/sh -c 'while :; do :; done' & while :; do :; done")).await.unwrap();
    drop((process.stdout, process.stderr));
    until_used(&cell, Duration::from_millis(20)).await;
    cell
}

async fn what_is_frozen_uses_no_cpu_until_it_is_thawed(bench: Bench) {
    let (frozen, witness) = (busy(&bench).await, busy(&bench).await);
    for _ in 0..3 {
        frozen.freeze().await.unwrap();
        stands(&frozen, &witness).await;
        frozen.thaw().await.unwrap();
        until_used(&frozen, Duration::from_millis(20)).await;
    }
    frozen.destroy().await;
    witness.destroy().await;
}

async fn what_forks_all_the_time_is_frozen_whole(bench: Bench) {
    let cell = bench.sandbox.create(spec()).await.unwrap();
    let process = cell.spawn(shell("while :; do /bin/sh -c : & /bin/true; wait; done")).await.unwrap();
    drop((process.stdout, process.stderr));
    until_used(&cell, Duration::from_millis(10)).await;
    let witness = busy(&bench).await;
    for _ in 0..10 {
        // One that is just about to start a program is not stopped at once everywhere; then it runs on, and that is said.
        until_async("it is frozen", || async { cell.freeze().await.is_ok() }).await;
        stands(&cell, &witness).await;
        cell.thaw().await.unwrap();
    }
    cell.destroy().await;
    witness.destroy().await;
}

async fn what_is_sent_and_asked_waits(bench: Bench) {
    let (cell, other) = (bench.sandbox.create(spec()).await.unwrap(), bench.sandbox.create(spec()).await.unwrap());
    let server = "import socket; s=socket.create_server(('127.0.0.1',0)); print(s.getsockname()[1],flush=True)\n\
                  c=s.accept()[0]; print(c.recv(5).decode(),flush=True); s.accept()";
    let server = cell.spawn(program(&[PYTHON, "-c", server])).await.unwrap();
    let mut said = tokio::net::unix::pipe::Receiver::from_owned_fd(server.stdout).unwrap();
    let port = support::line(&mut said).await.parse().unwrap();
    let mut stream = cell.connect(port).await.unwrap();
    cell.freeze().await.unwrap();
    stream.write_all(b"hello").unwrap();
    let mut spawned = std::pin::pin!(run(&cell, shell("echo late")));
    let mut connected = std::pin::pin!(cell.connect(port));
    // As long as somebody else takes for the same.
    for _ in 0..3 {
        tokio::select! {
            biased;
            _ = &mut spawned => panic!("a program was started in a frozen cell"),
            _ = &mut connected => panic!("a frozen cell was asked for a socket"),
            outcome = run(&other, shell("echo now")) => assert_eq!(outcome.stdout, "now\n"),
        }
    }
    cell.thaw().await.unwrap();
    assert_eq!(support::line(&mut said).await, "hello");
    assert_eq!(spawned.await.stdout, "late\n");
    connected.await.unwrap();
    cell.destroy().await;
    other.destroy().await;
}

async fn a_freeze_that_nobody_waits_for_is_undone_by_a_thaw(bench: Bench) {
    let cell = busy(&bench).await;
    for round in 0..20 {
        let _ = tokio::time::timeout(Duration::from_micros(round * 40), cell.freeze()).await;
        cell.thaw().await.unwrap();
        until_used(&cell, Duration::from_millis(10)).await;
    }
    assert_eq!(run(&cell, shell("echo well")).await.stdout, "well\n");
    cell.destroy().await;
}

async fn it_may_be_said_twice(bench: Bench) {
    let cell = busy(&bench).await;
    cell.thaw().await.unwrap();
    cell.prepare_to_freeze().await.unwrap();
    until_used(&cell, Duration::from_millis(10)).await;
    cell.freeze().await.unwrap();
    cell.freeze().await.unwrap();
    cell.thaw().await.unwrap();
    cell.thaw().await.unwrap();
    until_used(&cell, Duration::from_millis(10)).await;
    cell.destroy().await;
    assert!(matches!(cell.freeze().await, Err(Error::Ended)));
}

async fn frozen_cells_are_destroyed(bench: Bench) {
    let (cell, pids) = support::with_daemon(&bench).await;
    cell.freeze().await.unwrap();
    let late = tokio::spawn({
        let cell = Arc::clone(&cell);
        async move { cell.spawn(shell("true")).await.map(drop) }
    });
    cell.destroy().await;
    assert!(!pids.iter().any(|&pid| support::alive(pid)), "destroy waits");
    assert_eq!(support::traces(&bench, cell.id()), Vec::<std::path::PathBuf>::new());
    let late = tokio::time::timeout(support::PATIENCE, late).await.unwrap().unwrap();
    assert!(matches!(late, Err(Error::Ended)), "{late:?}");
}

async fn frozen_cells_are_dropped(bench: Bench) {
    let (cell, pids) = support::with_daemon(&bench).await;
    let id = cell.id();
    cell.freeze().await.unwrap();
    drop(cell);
    support::until("nothing is left", || {
        !pids.iter().any(|&pid| support::alive(pid)) && support::traces(&bench, id).is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_files_are_given_back() {
    const BYTES: usize = 32 << 20;
    let Some(bench) = support::cell().filter(|bench| bench.sandbox.freezes()) else { return };
    // On a disk, and not in the cache: whoever reads it first is charged for it.
    let code = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut file = std::fs::File::create(code.path().join("data")).unwrap();
    file.write_all(&vec![1; BYTES]).unwrap();
    file.sync_all().unwrap();
    let forget = "import os,sys; os.posix_fadvise(os.open(sys.argv[1],os.O_RDONLY),0,0,os.POSIX_FADV_DONTNEED)";
    let forgotten = std::process::Command::new(PYTHON).args(["-c", forget]).arg(code.path().join("data")).status();
    assert!(forgotten.unwrap().success());
    open_to_all(code.path());
    let mut spec = spec();
    spec.mounts.push(Mount { source: code.path().into(), target: "/var/task".into() });
    let cell = bench.sandbox.create(spec).await.unwrap();
    assert_eq!(run(&cell, shell("cat /var/task/data | wc -c")).await.stdout.trim(), BYTES.to_string());
    cell.freeze().await.unwrap();
    let given = cell.reclaim().await.unwrap();
    assert!(given >= BYTES as u64 / 2, "{given} of {BYTES} bytes");
    cell.thaw().await.unwrap();
    assert_eq!(run(&cell, shell("echo well")).await.stdout, "well\n");
    cell.destroy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_cannot_freeze_says_so() {
    let Some(bench) = support::cell() else { return };
    let freezes = bench.sandbox.freezes();
    let barriers = bench.sandbox.barriers();
    let barrier = barriers.iter().find(|barrier| barrier.name == "freezer").unwrap();
    assert_eq!((barrier.missing.is_none(), barrier.advice.is_none()), (freezes, freezes), "{barrier:?}");
    assert!(!barrier.required);
    let cell = bench.sandbox.create(spec()).await.unwrap();
    assert_eq!(cell.freeze().await.is_ok(), freezes);
    cell.thaw().await.unwrap();
    assert_eq!(run(&cell, shell("echo well")).await.stdout, "well\n");
    cell.destroy().await;
}
