//! What [`Sandbox`](lambent_sandbox::Sandbox) and [`Cell`](lambent_sandbox::Cell) promise, whichever back end keeps it.

use std::io::Write;
use std::time::Duration;

use lambent_sandbox::{CellSpec, Error, ExitStatus, Mount};
use tokio::io::AsyncReadExt;

use crate::support::{self, Bench, PYTHON, open_to_all, program, run, shell, spec};

promises!(
    {
        on_cell: support::cell(),
        on_cell_by_blank: support::cell_by_blank(),
        on_sim_by_blank: support::sim_by_blank(),
        on_sim: support::sim(),
    }
    (
        exit_codes_and_signals_arrive,
        output_arrives_on_its_own_pipe,
        environment_is_exactly_what_was_given,
        nothing_is_inherited,
        a_program_that_cannot_run_is_refused,
        signals_reach_the_whole_group,
        signals_reach_what_a_process_left_behind,
        ends_by_any_signal_are_reported,
        runtime_api_is_reachable_and_given_out_once,
        ports_inside_are_reachable,
        mounts_are_where_they_were_put,
        log_pipe_is_named_by_the_environment,
        memory_hogs_are_killed_and_reported,
        sudden_memory_hogs_are_killed_and_reported,
        half_made_cells_leave_nothing,
        a_mount_that_is_not_there_is_named,
        a_flood_of_output_does_not_stop_others,
        destroy_ends_everything,
        drop_ends_everything,
    what_was_started_just_now_ends_too,
    )
);

async fn exit_codes_and_signals_arrive(bench: Bench) {
    let cell = bench.sandbox.create(spec()).await.unwrap();
    assert_eq!(run(&cell, shell("exit 0")).await.exit, ExitStatus::Code(0));
    assert_eq!(run(&cell, shell("exit 37")).await.exit, ExitStatus::Code(37));
    assert_eq!(run(&cell, shell("kill -SEGV $$")).await.exit, ExitStatus::Signal(11));
    cell.destroy().await;
}

async fn output_arrives_on_its_own_pipe(bench: Bench) {
    let cell = bench.sandbox.create(spec()).await.unwrap();
    let outcome = run(&cell, shell("echo to-out; echo to-err >&2; echo by-path > /dev/stdout")).await;
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("to-out\nby-path\n", "to-err\n"));
    cell.destroy().await;
}

async fn environment_is_exactly_what_was_given(bench: Bench) {
    let cell = bench.sandbox.create(spec()).await.unwrap();
    let mut process = program(&["/usr/bin/env"]);
    process.env = vec![("GREETING".into(), "grüß dich".into()), ("EMPTY".into(), String::new())];
    let outcome = run(&cell, process).await;
    let mut lines: Vec<&str> = outcome.stdout.lines().collect();
    lines.retain(|line| !line.starts_with("TMPDIR=") && !line.starts_with("LAMBENT_SIM_CELL="));
    lines.sort_unstable();
    assert_eq!(lines, ["EMPTY=", "GREETING=grüß dich"]);
    cell.destroy().await;
}

async fn nothing_is_inherited(bench: Bench) {
    let cell = bench.sandbox.create(spec()).await.unwrap();
    let status = run(&cell, program(&["/bin/cat", "/proc/self/status"])).await.stdout;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    assert_eq!((field("SigIgn:"), field("SigBlk:")), ("0000000000000000", "0000000000000000"));
    assert_eq!(field("Umask:"), "0022");
    // The last one is the directory that is being listed.
    let descriptors = run(&cell, program(&["/bin/ls", "/proc/self/fd"])).await.stdout;
    assert_eq!(descriptors, "0\n1\n2\n3\n");
    cell.destroy().await;
}

/// The promises that depend on it, in a node that was started as `nohup` and CI systems start programs.
#[test]
fn a_node_may_be_started_anyhow() {
    let line = "trap '' HUP INT QUIT TERM USR1 ALRM PIPE; umask 077; exec 9</dev/null; unset HOME; exec \"$@\" <&-";
    for promise in ["nothing_is_inherited", "ends_by_any_signal_are_reported", "mounts_are_where_they_were_put"] {
        let mut shell = std::process::Command::new("/bin/sh");
        shell.args(["-c", line, "sh"]).arg(std::env::current_exe().unwrap()).arg(promise);
        let output = shell.output().unwrap();
        let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && said.contains("4 passed"), "{promise}: {said}{complained}");
    }
}

async fn a_program_that_cannot_run_is_refused(bench: Bench) {
    let code = tempfile::tempdir().unwrap();
    std::fs::write(code.path().join("not-executable"), "#!/bin/sh\n").unwrap();
    let write_mode = |name: &str, text: &str| {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.create(true).write(true).mode(0o755).open(code.path().join(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    write_mode("no-format", "echo hi\n");
    write_mode("no-interpreter", "#!/does/not/exist\n");
    open_to_all(code.path());
    let mut spec = spec();
    spec.mounts.push(Mount { source: code.path().into(), target: "/var/task".into() });
    let cell = bench.sandbox.create(spec).await.unwrap();
    for name in ["missing", "not-executable", "no-format", "no-interpreter"] {
        let path = format!("/var/task/{name}");
        let refused = cell.spawn(program(&[&path])).await;
        assert!(matches!(&refused, Err(Error::Exec { path: named, .. }) if *named == path), "{name}: {refused:?}");
    }
    assert_eq!(run(&cell, shell("exit 0")).await.exit, ExitStatus::Code(0), "a refusal harms nothing");
    cell.destroy().await;
}

async fn signals_reach_the_whole_group(bench: Bench) {
    let cell = bench.sandbox.create(spec()).await.unwrap();
    let mut process = cell.spawn(shell("sleep 1000 & echo up; wait")).await.unwrap();
    let mut stdout = tokio::net::unix::pipe::Receiver::from_owned_fd(process.stdout).unwrap();
    let mut line = [0; 3];
    stdout.read_exact(&mut line).await.unwrap();
    cell.signal(process.pid, 15).await.unwrap();
    let exit = tokio::time::timeout(support::PATIENCE, &mut process.exit).await.unwrap().unwrap();
    assert_eq!(exit, ExitStatus::Signal(15));
    // The background process held the pipe as well: its end of file says that it ended, too.
    tokio::time::timeout(support::PATIENCE, stdout.read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    cell.signal(process.pid, 15).await.ok();
    cell.destroy().await;
}

async fn signals_reach_what_a_process_left_behind(bench: Bench) {
    let cell = bench.sandbox.create(spec()).await.unwrap();
    let time = support::long_time(cell.id());
    let process = cell.spawn(shell(&format!("sleep {time} & exit 5"))).await.unwrap();
    assert_eq!(process.exit.await.unwrap(), ExitStatus::Code(5));
    support::until("the child sleeps", || support::sleepers(&time).len() == 1).await;
    cell.signal(process.pid, 9).await.unwrap();
    support::until("it is gone", || support::sleepers(&time).is_empty()).await;
    cell.signal(process.pid, 9).await.unwrap();
    assert_eq!(run(&cell, shell("echo well")).await.stdout, "well\n");
    cell.destroy().await;
}

async fn ends_by_any_signal_are_reported(bench: Bench) {
    let cell = bench.sandbox.create(spec()).await.unwrap();
    for signal in [1, 6, 11, 15, 34, 64] {
        let killed = run(&cell, program(&[PYTHON, "-c", &format!("import os; os.kill(os.getpid(), {signal})")])).await;
        assert_eq!(killed.exit, ExitStatus::Signal(signal));
    }
    cell.destroy().await;
}

async fn runtime_api_is_reachable_and_given_out_once(bench: Bench) {
    let cell = bench.sandbox.create(spec()).await.unwrap();
    let listener = cell.take_runtime_api().unwrap();
    assert!(cell.take_runtime_api().is_none());
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let address = cell.runtime_api_address();
    let (host, port) = address.split_once(':').unwrap();
    let client = format!("exec 3<>/dev/tcp/{host}/{port}; head -c 5 <&3");
    let client = cell.spawn(program(&["/bin/bash", "-c", &client])).await.unwrap();
    let (stream, _) = tokio::time::timeout(support::PATIENCE, listener.accept()).await.unwrap().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut { stream }, b"hello").await.unwrap();
    assert_eq!(support::finish(client).await.stdout, "hello");
    cell.destroy().await;
}

async fn ports_inside_are_reachable(bench: Bench) {
    let cell = bench.sandbox.create(spec()).await.unwrap();
    let server = "import socket; s=socket.create_server(('127.0.0.1',0)); print(s.getsockname()[1],flush=True); \
                  c=s.accept()[0]; c.sendall(b'welcome'); c.close()";
    let process = cell.spawn(program(&[PYTHON, "-c", server])).await.unwrap();
    let mut stdout = tokio::net::unix::pipe::Receiver::from_owned_fd(process.stdout).unwrap();
    let mut port = String::new();
    while !port.ends_with('\n') {
        port.push(char::from(stdout.read_u8().await.expect("the server says its port")));
    }
    let stream = cell.connect(port.trim().parse().unwrap()).await.unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut stream = tokio::net::TcpStream::from_std(stream).unwrap();
    let mut greeting = String::new();
    stream.read_to_string(&mut greeting).await.unwrap();
    assert_eq!(greeting, "welcome");
    assert!(cell.connect(1).await.is_err(), "nobody listens there");
    cell.destroy().await;
}

async fn mounts_are_where_they_were_put(bench: Bench) {
    let code = tempfile::tempdir().unwrap();
    std::fs::write(code.path().join("data"), "payload").unwrap();
    open_to_all(code.path());
    let mut spec = spec();
    spec.mounts.push(Mount { source: code.path().into(), target: "/var/task".into() });
    let cell = bench.sandbox.create(spec).await.unwrap();
    let mut cat = program(&["/bin/cat", "/var/task/data", "data"]);
    cat.cwd = "/var/task".into();
    assert_eq!(run(&cell, cat).await.stdout, "payloadpayload");
    let scratch = program(&["/bin/cp", "/var/task/data", "/tmp/copy"]);
    assert_eq!(run(&cell, scratch).await.exit, ExitStatus::Code(0));
    assert_eq!(run(&cell, program(&["/bin/cat", "/tmp/copy"])).await.stdout, "payload");
    cell.destroy().await;
    assert!(code.path().join("data").exists(), "what was mounted stays");
}

async fn log_pipe_is_named_by_the_environment(bench: Bench) {
    let cell = bench.sandbox.create(spec()).await.unwrap();
    let mut process = program(&["/bin/bash", "-c", "echo framed >&$_LAMBDA_TELEMETRY_LOG_FD"]);
    process.log_pipe = true;
    let mut process = cell.spawn(process).await.unwrap();
    let log = support::read_all(process.log_pipe.take().unwrap()).await;
    assert_eq!(log, b"framed\n");
    assert_eq!(support::finish(process).await.exit, ExitStatus::Code(0));
    assert!(cell.spawn(shell("true")).await.unwrap().log_pipe.is_none());
    cell.destroy().await;
}

async fn memory_hogs_are_killed_and_reported(bench: Bench) {
    let mut spec = spec();
    spec.memory_mib = 64;
    let cell = bench.sandbox.create(spec).await.unwrap();
    let hog = "import time\nkeep=[]\nwhile True:\n keep.append(bytearray(b'x'*(4<<20)))\n time.sleep(0.005)";
    let outcome = run(&cell, program(&[PYTHON, "-c", hog])).await;
    assert_eq!(outcome.exit, ExitStatus::OutOfMemory);
    let usage = cell.usage().await.unwrap();
    assert!(usage.oom_kills >= 1, "{usage:?}");
    assert!(usage.memory_peak_bytes > 16 << 20, "{usage:?}");
    assert_eq!(run(&cell, shell("echo well")).await.stdout, "well\n", "the cell survives");
    cell.destroy().await;
}

async fn sudden_memory_hogs_are_killed_and_reported(bench: Bench) {
    let cell = bench.sandbox.create(CellSpec { memory_mib: 64, ..spec() }).await.unwrap();
    for _ in 0..3 {
        let outcome =
            run(&cell, program(&[PYTHON, "-c", "keep = b'x' * (1 << 30); import time; time.sleep(1000)"])).await;
        assert_eq!(outcome.exit, ExitStatus::OutOfMemory);
    }
    // A kill by somebody else is none for memory.
    let killed = run(&cell, shell("kill -KILL $$")).await;
    assert_eq!(killed.exit, ExitStatus::Signal(9));
    cell.destroy().await;
}

async fn a_mount_that_is_not_there_is_named(bench: Bench) {
    let mut spec = spec();
    spec.mounts.push(Mount { source: "/does/not/exist".into(), target: "/var/task".into() });
    let id = spec.id;
    let refused = bench.sandbox.create(spec).await.err().unwrap();
    assert!(refused.to_string().contains("/does/not/exist"), "{refused}");
    support::until("all is cleared away", || support::traces(&bench, id).is_empty()).await;
}

async fn half_made_cells_leave_nothing(bench: Bench) {
    let mut ids = Vec::new();
    for round in 0..40 {
        let spec = spec();
        ids.push(spec.id);
        // Given up at some point of its making, a later one each round.
        let _ = tokio::time::timeout(std::time::Duration::from_micros(round * 150), bench.sandbox.create(spec)).await;
    }
    support::until("all is cleared away", || ids.iter().all(|id| support::traces(&bench, *id).is_empty())).await;
    let cell = bench.sandbox.create(spec()).await.unwrap();
    assert_eq!(run(&cell, shell("echo well")).await.stdout, "well\n");
    cell.destroy().await;
}

async fn a_flood_of_output_does_not_stop_others(bench: Bench) {
    let cell = bench.sandbox.create(spec()).await.unwrap();
    let flood = cell.spawn(shell("exec yes")).await.unwrap();
    for _ in 0..3 {
        assert_eq!(run(&cell, shell("echo calm")).await.stdout, "calm\n");
    }
    // Nobody reads: the pipe is full and bounds what a flood costs.
    assert!(cell.usage().await.unwrap().memory_bytes < 128 << 20);
    cell.signal(flood.pid, 9).await.unwrap();
    assert_eq!(flood.exit.await.unwrap(), ExitStatus::Signal(9));
    cell.destroy().await;
}

async fn destroy_ends_everything(bench: Bench) {
    let (cell, pids) = support::with_daemon(&bench).await;
    cell.destroy().await;
    assert!(!pids.iter().any(|&pid| support::alive(pid)), "destroy waits");
    assert_eq!(support::traces(&bench, cell.id()), Vec::<std::path::PathBuf>::new());
    assert!(matches!(cell.spawn(shell("true")).await, Err(Error::Ended)));
    assert!(matches!(cell.usage().await, Err(Error::Ended)));
    cell.destroy().await;
}

async fn what_was_started_just_now_ends_too(bench: Bench) {
    for round in 0..24 {
        let cell = bench.sandbox.create(spec()).await.unwrap();
        let process = cell.spawn(program(&[PYTHON, "-c", "import time; time.sleep(600)"])).await.unwrap();
        let pid = process.pid;
        match round % 2 {
            0 => cell.destroy().await,
            _ => drop(cell),
        }
        let ended = tokio::time::timeout(Duration::from_secs(20), process.exit).await;
        assert!(ended.is_ok(), "process {pid} goes on without its cell");
    }
    // So does what is given up while it starts.
    let cell = bench.sandbox.create(spec()).await.unwrap();
    for micros in (0..2_000).step_by(40) {
        let starting = cell.spawn(program(&[PYTHON, "-c", "import time; time.sleep(600)"]));
        let _ = tokio::time::timeout(Duration::from_micros(micros), starting).await;
    }
    let id = cell.id();
    cell.destroy().await;
    assert_eq!(support::traces(&bench, id), Vec::<std::path::PathBuf>::new());
    // One may be on its way still, with nobody who waits for it.
    support::until("nothing runs", || support::marked(&id.to_string()).is_empty()).await;
}

async fn drop_ends_everything(bench: Bench) {
    let (cell, pids) = support::with_daemon(&bench).await;
    let id = cell.id();
    drop(cell);
    support::until("nothing is left", || {
        !pids.iter().any(|&pid| support::alive(pid)) && support::traces(&bench, id).is_empty()
    })
    .await;
}
