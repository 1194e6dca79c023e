//! Numbers, for people: `cargo test -p lambent-sandbox --test it -- --ignored --nocapture measure`. Nothing here can fail for being slow.

use std::time::{Duration, Instant};

use crate::support::{self, run, shell, spec};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints measurements"]
async fn measure_cells() {
    let Some(bench) = support::cell() else { return };
    let _guard = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .without_time()
        .with_target(false)
        .with_test_writer()
        .try_init();
    let first = bench.sandbox.create(spec()).await.unwrap();
    let mut cells = vec![first];
    let mut created = Vec::new();
    for _ in 0..50 {
        let begin = Instant::now();
        cells.push(bench.sandbox.create(spec()).await.unwrap());
        created.push(begin.elapsed());
    }
    print("create a cell", created);
    let mut spawned = Vec::new();
    for _ in 0..50 {
        let begin = Instant::now();
        run(&cells[0], shell(":")).await;
        spawned.push(begin.elapsed());
    }
    print("run /bin/sh -c :", spawned);
    let usage = cells[1].usage().await.unwrap();
    println!("charged to an idle cell: {} KiB", usage.memory_bytes / 1024);
    agents();
    let mut destroyed = Vec::new();
    for cell in cells {
        let begin = Instant::now();
        cell.destroy().await;
        destroyed.push(begin.elapsed());
    }
    print("destroy a cell", destroyed);
}

/// Memory of each agent that is this process's, by the kernel's own account.
fn agents() {
    let mut private = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let rollup = std::fs::read_to_string(entry.path().join("smaps_rollup")).unwrap_or_default();
        let field = |name: &str| -> u64 {
            let line = rollup.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_ascii_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        match name.trim() {
            "lambent-agent" => private.push((field("Pss:"), field("Private_Dirty:"), field("Rss:"))),
            "lambent-nursery" => println!("nursery: pss {} KiB, rss {} KiB", field("Pss:"), field("Rss:")),
            _ => {}
        }
    }
    println!("agents: {}; first: (pss, private dirty, rss) KiB {:?}", private.len(), private.first());
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    println!("{what}: median {:?}, worst {:?}", times[times.len() / 2], times[times.len() - 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints measurements"]
async fn measure_freezing() {
    use lambent_sandbox::cell::FreezerVersion;
    for version in [FreezerVersion::V1, FreezerVersion::V2] {
        let Some(bench) = support::cell_frozen_by(version) else { continue };
        let (mut prepared, mut frozen, mut thawed) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..10 {
            let cell = bench.sandbox.create(spec()).await.unwrap();
            let process = cell
                .spawn(crate::support::program(&[support::PYTHON, "-c", "import time; time.sleep(1000)"]))
                .await
                .unwrap();
            let begin = Instant::now();
            cell.prepare_to_freeze().await.unwrap();
            prepared.push(begin.elapsed());
            for _ in 0..100 {
                let begin = Instant::now();
                cell.freeze().await.unwrap();
                frozen.push(begin.elapsed());
                let begin = Instant::now();
                cell.thaw().await.unwrap();
                thawed.push(begin.elapsed());
            }
            drop(process);
            cell.destroy().await;
        }
        println!("{version:?}");
        print("prepare to freeze", prepared);
        print("freeze", frozen);
        print("thaw", thawed);
    }
}
