//! Cells that belong to nobody yet, and the runtimes that wait in them.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use lambent_model::InstanceId;
use lambent_model::function::Network;
use lambent_sandbox::{BlankSpec, Cell, Error, ExitStatus, Mount, Order, Process, ProcessSpec, Specialisation};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::support::{self, Bench, PYTHON, finish, program, run, shell};

promises!(
    { on_cell: support::cell(), on_sim: support::sim() }
    (
        only_waiting_runtimes_are_started_before,
        what_waits_finds_all_that_came_after_it,
        becomes_somebodys_once,
        a_missing_mount_is_named_and_leaves_nothing,
        what_waits_and_dies_is_noticed,
        dropped_ones_leave_nothing,
    )
);

async fn blank(bench: &Bench) -> Arc<dyn Cell> {
    bench.sandbox.blank(BlankSpec { id: InstanceId::random(), mounts: Vec::new(), memory_mib: 512 }).await.unwrap()
}

fn somebodys(mounts: Vec<Mount>) -> Specialisation {
    let spec = support::spec();
    Specialisation {
        mounts,
        memory_mib: spec.memory_mib,
        milli_cpus: spec.milli_cpus,
        ephemeral_mib: spec.ephemeral_mib,
        processes: spec.processes,
        network: Network::None,
    }
}

fn waiting(argv: &[&str]) -> ProcessSpec {
    ProcessSpec { order_pipe: true, ..program(argv) }
}

fn order(value: &str) -> Order {
    Order { env: vec![("VALUE".into(), value.into())], cwd: "/var/task".into(), snapshot: None }
}

async fn give(cell: &Arc<dyn Cell>, process: &mut Process, value: &str) {
    cell.order(process.order_pipe.take().unwrap(), order(value)).await.unwrap();
}

async fn only_waiting_runtimes_are_started_before(bench: Bench) {
    let cell = blank(&bench).await;
    let refused = cell.spawn(shell("true")).await;
    assert!(matches!(refused, Err(Error::Step { .. })), "{refused:?}");
    let mut process = cell.spawn(waiting(&["/bin/sh", "-c", "cat <&$_LAMBENT_ORDER_FD"])).await.unwrap();
    let early = cell.order(process.order_pipe.take().unwrap(), order("early")).await;
    assert!(matches!(early, Err(Error::Step { .. })), "{early:?}");
    assert_eq!(finish(process).await.stdout, "", "the pipe was closed with the refusal");
    cell.specialise(somebodys(vec![])).await.unwrap();
    assert_eq!(run(&cell, shell("echo well")).await.stdout, "well\n");
    cell.destroy().await;
}

async fn what_waits_finds_all_that_came_after_it(bench: Bench) {
    let code = tempfile::tempdir().unwrap();
    std::fs::write(code.path().join("data"), "payload").unwrap();
    support::open_to_all(code.path());
    let cell = blank(&bench).await;
    let task = "import json, os\n\
        assert not os.path.exists(os.path.join(os.environ['TASK'], 'data'))\n\
        print('waiting', flush=True)\n\
        order = json.loads(os.fdopen(int(os.environ['_LAMBENT_ORDER_FD'])).read())\n\
        os.chdir(order['cwd'])\n\
        print(open('data').read(), order['env']['VALUE'])";
    let mut process = waiting(&[PYTHON, "-c", task]);
    process.env.push(("TASK".into(), "/var/task".into()));
    let mut process = cell.spawn(process).await.unwrap();
    let stdout = std::mem::replace(&mut process.stdout, std::fs::File::open("/dev/null").unwrap().into());
    let (mut stdout, mut line) = (tokio::net::unix::pipe::Receiver::from_owned_fd(stdout).unwrap(), [0; 8]);
    tokio::io::AsyncReadExt::read_exact(&mut stdout, &mut line).await.unwrap();
    assert_eq!(&line, b"waiting\n");
    let mount = Mount { source: code.path().into(), target: "/var/task".into() };
    cell.specialise(somebodys(vec![mount])).await.unwrap();
    give(&cell, &mut process, "grüß").await;
    let mut said = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stdout, &mut said).await.unwrap();
    assert_eq!(said, "payload grüß\n");
    assert_eq!(process.exit.await.unwrap(), ExitStatus::Code(0));
    cell.destroy().await;
}

async fn becomes_somebodys_once(bench: Bench) {
    let cell = blank(&bench).await;
    cell.specialise(somebodys(vec![])).await.unwrap();
    assert!(matches!(cell.specialise(somebodys(vec![])).await, Err(Error::Step { .. })));
    assert_eq!(run(&cell, shell("echo well")).await.stdout, "well\n", "the refusal harms nothing");
    cell.destroy().await;
    assert!(matches!(cell.specialise(somebodys(vec![])).await, Err(Error::Step { .. } | Error::Ended)));
    let cell = bench.sandbox.create(support::spec()).await.unwrap();
    assert!(matches!(cell.specialise(somebodys(vec![])).await, Err(Error::Step { .. })), "never was blank");
    cell.destroy().await;
}

async fn a_missing_mount_is_named_and_leaves_nothing(bench: Bench) {
    let cell = blank(&bench).await;
    let id = cell.id();
    let mount = Mount { source: "/does/not/exist".into(), target: "/var/task".into() };
    let refused = cell.specialise(somebodys(vec![mount])).await.unwrap_err();
    assert!(refused.to_string().contains("/does/not/exist"), "{refused}");
    assert!(cell.spawn(shell("true")).await.is_err(), "it never became somebody's");
    drop(cell);
    support::until("all is cleared away", || support::traces(&bench, id).is_empty()).await;
}

async fn what_waits_and_dies_is_noticed(bench: Bench) {
    let cell = blank(&bench).await;
    let mut process = cell.spawn(waiting(&["/bin/sh", "-c", "exec sleep 1000"])).await.unwrap();
    cell.signal(process.pid, 9).await.unwrap();
    assert_eq!((&mut process.exit).await.unwrap(), ExitStatus::Signal(9));
    cell.specialise(somebodys(vec![])).await.unwrap();
    let pipe = process.order_pipe.take().unwrap();
    // A process that another test starts right now has a copy of every descriptor until it runs its program.
    support::until("nobody reads the pipe any more", || nobody_reads(&pipe)).await;
    let late = cell.order(pipe, order("late")).await;
    assert!(matches!(late, Err(Error::Ended)), "{late:?}");
    cell.destroy().await;
}

/// As poll(2) has it: the writing end of a pipe is in error once its last reading end is closed.
fn nobody_reads(pipe: &OwnedFd) -> bool {
    let mut ends = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
    poll(&mut ends, PollTimeout::ZERO).unwrap();
    ends[0].any().unwrap()
}

async fn dropped_ones_leave_nothing(bench: Bench) {
    let mut ids = Vec::new();
    for _ in 0..5 {
        let cell = blank(&bench).await;
        cell.spawn(waiting(&["/bin/sh", "-c", "cat <&$_LAMBENT_ORDER_FD; exec sleep 1000"])).await.unwrap();
        ids.push(cell.id());
    }
    support::until("all is cleared away", || ids.iter().all(|id| support::traces(&bench, *id).is_empty())).await;
}

/// What a waiting runtime may do before its cell is anybody's: no more than a function.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_has_no_privilege_from_its_start() {
    let Some(bench) = support::cell() else { return };
    let cell = blank(&bench).await;
    let probe = "import ctypes, os\n\
        status = dict(line.split(':\\t', 1) for line in open('/proc/self/status') if ':\\t' in line)\n\
        print(sorted({int(status['Cap' + s], 16) for s in ('Inh', 'Prm', 'Eff', 'Bnd', 'Amb')}), \
              status['NoNewPrivs'].strip(), status['Seccomp'].strip())\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        for call in (165, 166, 272, 308, 101): print(libc.syscall(call, 0, 0, 0, 0, 0), ctypes.get_errno())\n\
        for name in ('mem', 'maps', 'environ', 'fd', 'root'):\n\
        \x20try: os.stat('/proc/1/' + name); print(name)\n\
        \x20except OSError: pass\n\
        print(os.listdir('/var/task/lib'), os.listdir('/opt/lib'), len(os.listdir('/proc/self/fd')))";
    let outcome = finish(cell.spawn(waiting(&[PYTHON, "-c", probe])).await.unwrap()).await;
    // Of the descriptors, one is the directory that is being listed.
    let expected = format!("[0] 1 2\n{}[] [] 5\n", "-1 1\n".repeat(5));
    assert_eq!(outcome.stdout, expected, "{outcome:?}");
    cell.destroy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_function_may_not_have_is_gone_afterwards() {
    let Some(bench) = support::cell() else { return };
    let cell = blank(&bench).await;
    let what = Specialisation { memory_mib: 300, ephemeral_mib: 8, ..somebodys(vec![]) };
    let wait = "cat <&$_LAMBENT_ORDER_FD >/dev/null; ls /var/task /opt; cat /etc/resolv.conf; head -1 /proc/meminfo; \
                df -k /tmp | tail -1 | awk '{print $2}'; ulimit -u; awk 'NR > 2 {print $1}' /proc/net/dev";
    let mut process = cell.spawn(waiting(&["/bin/bash", "-c", wait])).await.unwrap();
    cell.specialise(what).await.unwrap();
    give(&cell, &mut process, "").await;
    let outcome = finish(process).await;
    assert_eq!(outcome.stdout, "/opt:\n\n/var/task:\nMemTotal:         307200 kB\n8192\n65\nlo:\n", "{outcome:?}");
    cell.destroy().await;
}
