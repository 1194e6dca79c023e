//! Random kills under load: every call is answered or fails with a proper error, and nothing is left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::harness::{Harness, finish, processes_with};

/// Calls of one run; `LAMBENT_CHAOS_CALLS` sets another number.
const CALLS: u32 = 300;
const CLIENTS: u32 = 4;
/// Instances that wait, and are killed as well.
const WAITING: usize = 2;
/// Files that the node has open for a waiting instance, at most.
const FILES: usize = 12;

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Runs [`alone`] in a process of its own, where every open file is its own.
#[test]
fn no_call_is_lost_and_nothing_is_left() {
    let arguments = ["--exact", "chaos::alone", "--ignored", "--nocapture"];
    let output = std::process::Command::new(std::env::current_exe().unwrap()).args(arguments).output().unwrap();
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{complained}");
    eprintln!("{complained}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by no_call_is_lost_and_nothing_is_left"]
async fn alone() {
    let calls = std::env::var("LAMBENT_CHAOS_CALLS").ok().and_then(|text| text.parse().ok()).unwrap_or(CALLS);
    let harness = Arc::new(Harness::with(|config| config.pool.ceiling = WAITING).await);
    let Some(function) = harness.python("def handler(e, c):\n    print('call', e)\n    return e\n").await else {
        return;
    };
    harness.call(&function, "0").await;
    let before = open_files();
    let (left, killing) = (Arc::new(AtomicU32::new(calls)), Arc::new(AtomicBool::new(true)));
    let killer = tokio::task::spawn_blocking({
        let (killing, mark) = (Arc::clone(&killing), harness.path().join("cells").to_string_lossy().into_owned());
        move || kill_at_random(&mark, &killing)
    });
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (harness, function, left) = (Arc::clone(&harness), function.clone(), Arc::clone(&left));
            tokio::spawn(async move {
                let (mut good, mut bad) = (0, 0);
                while let Ok(n) = left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)) {
                    let outcome = finish(harness.start(&function, &n.to_string()).await.unwrap()).await;
                    match outcome.failed {
                        false => assert_eq!(outcome.body, n.to_string(), "another call's answer"),
                        true => {
                            assert!(outcome.body.contains("\"errorType\":\"Runtime.ExitError\""), "{}", outcome.body)
                        }
                    }
                    *if outcome.failed { &mut bad } else { &mut good } += 1;
                }
                (good, bad)
            })
        })
        .collect();
    let mut totals = (0, 0);
    for client in clients {
        let (good, bad) = client.await.unwrap();
        totals = (totals.0 + good, totals.1 + bad);
    }
    killing.store(false, Ordering::Release);
    let kills = killer.await.unwrap();
    eprintln!("{} answered, {} failed, {kills} kills", totals.0, totals.1);
    assert_eq!(totals.0 + totals.1, calls);
    assert!(totals.0 > 0);
    harness.fleet.retire(function.generation);
    harness.empty().await;
    assert!(open_files() <= before + 8 + WAITING * FILES, "{} files open, {before} before", open_files());
    Arc::into_inner(harness).unwrap().end().await;
}

#[allow(clippy::disallowed_methods, reason = "the pause is the point: kills come at random times")]
/// Kills a process of a container every now and then; returns how many.
fn kill_at_random(mark: &str, killing: &AtomicBool) -> u32 {
    let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut kills = 0;
    while killing.load(Ordering::Acquire) {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis(20 + (seed >> 33) % 100));
        let pids = processes_with(mark);
        if let Some(pid) = pids.get((seed >> 20) as usize % pids.len().max(1)) {
            kills += u32::from(
                std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success(),
            );
        }
    }
    kills
}
