//! Templates: a loaded Python, forked into cells.

use std::path::Path;
use std::sync::Arc;

use lambent_model::InstanceId;
use lambent_model::function::Network;
use lambent_sandbox::{
    BlankSpec, Cell, CellSpec, Error, ExitStatus, Mount, Order, Process, Sandbox, Specialisation, Template,
    TemplateSpec,
};

use crate::support::{self, Bench, PYTHON, finish, shell};

promises!(
    { on_cell: support::cell(), on_sim: support::sim() }
    (
        forks_run_code_and_end_as_they_do,
        forks_are_signalled_with_their_group,
        unwanted_forks_end,
    )
);

/// The runtimes as a node writes them, readable by everybody.
pub fn runtimes(bench: &Path) -> Mount {
    let target = bench.join("runtime");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtimes/python");
    if !target.exists() {
        for directory in ["python", "python/_lambent"] {
            std::fs::create_dir_all(target.join(directory)).unwrap();
        }
        std::fs::copy(source.join("bootstrap.py"), target.join("python/bootstrap.py")).unwrap();
        for file in std::fs::read_dir(source.join("_lambent")).unwrap().flatten() {
            if file.path().is_file() {
                std::fs::copy(file.path(), target.join("python/_lambent").join(file.file_name())).unwrap();
            }
        }
        support::open_to_all(bench);
    }
    Mount { source: target, target: "/var/runtime".into() }
}

pub fn template_spec(bench: &Path) -> TemplateSpec {
    let bootstrap = "/var/runtime/python/bootstrap.py";
    TemplateSpec {
        argv: [PYTHON, "-s", "-u", bootstrap].map(str::to_owned).into(),
        env: vec![("LANG".into(), "en_US.UTF-8".into()), ("TZ".into(), ":UTC".into())],
        mounts: vec![runtimes(bench)],
    }
}

async fn template(bench: &Bench) -> Arc<dyn Template> {
    bench.sandbox.template(template_spec(bench.directory.path())).await.unwrap()
}

async fn blank(bench: &Bench) -> Arc<dyn Cell> {
    let spec = BlankSpec { id: InstanceId::random(), mounts: vec![runtimes(bench.directory.path())], memory_mib: 512 };
    bench.sandbox.blank(spec).await.unwrap()
}

/// Runs a probe in a fork, in a cell as specified, and gives the lines it printed.
pub async fn probe(sandbox: &Arc<dyn Sandbox>, directory: &Path, spec: CellSpec, probe: &str) -> Vec<String> {
    let template = sandbox.template(template_spec(directory)).await.unwrap();
    let layer = tempfile::tempdir().unwrap();
    std::fs::create_dir(layer.path().join("python")).unwrap();
    std::fs::write(layer.path().join("python/app.py"), format!("{probe}\nos._exit(0)")).unwrap();
    support::open_to_all(layer.path());
    let blank = BlankSpec { id: spec.id, mounts: vec![runtimes(directory)], memory_mib: 512 };
    let cell = sandbox.blank(blank).await.unwrap();
    let mut process = cell.fork_from(&template).await.unwrap();
    let CellSpec { id: _, mut mounts, memory_mib, milli_cpus, ephemeral_mib, processes, network } = spec;
    mounts.push(Mount { source: layer.path().into(), target: "/opt".into() });
    let what = Specialisation { mounts, memory_mib, milli_cpus, ephemeral_mib, processes, network };
    cell.specialise(what).await.unwrap();
    give(&cell, &mut process).await;
    let outcome = finish(process).await;
    assert_eq!((outcome.exit, outcome.stderr.as_str()), (ExitStatus::Code(0), ""), "{outcome:?}");
    cell.destroy().await;
    outcome.stdout.lines().map(str::to_owned).collect()
}

/// Makes the cell a function's with this code, and gives the order to run it.
async fn start(cell: &Arc<dyn Cell>, process: &mut Process, code: &Path) {
    let spec = support::spec();
    let what = Specialisation {
        mounts: vec![Mount { source: code.to_owned(), target: "/var/task".into() }],
        memory_mib: spec.memory_mib,
        milli_cpus: spec.milli_cpus,
        ephemeral_mib: spec.ephemeral_mib,
        processes: spec.processes,
        network: Network::None,
    };
    cell.specialise(what).await.unwrap();
    give(cell, process).await;
}

async fn give(cell: &Arc<dyn Cell>, process: &mut Process) {
    let env = [
        ("_HANDLER", "app.handler"),
        ("LAMBDA_TASK_ROOT", "/var/task"),
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1"),
        ("PATH", "/usr/bin:/bin"),
        ("MINE", "yes"),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    cell.order(process.order_pipe.take().unwrap(), Order { env, cwd: "/var/task".into(), snapshot: None })
        .await
        .unwrap();
}

/// A function whose module is this code.
fn function(code: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("app.py"), code).unwrap();
    support::open_to_all(directory.path());
    directory
}

async fn forks_run_code_and_end_as_they_do(bench: Bench) {
    let template = template(&bench).await;
    let cases = [
        (
            "import os; print('out', os.environ['MINE'], os.getcwd() != '/', flush=True); os._exit(7)",
            ExitStatus::Code(7),
        ),
        ("import os; os.write(2, b'err'); os.kill(os.getpid(), 11)", ExitStatus::Signal(11)),
        ("keep = b'x' * (1 << 30)\nimport time; time.sleep(1000)", ExitStatus::OutOfMemory),
    ];
    let said = [("out yes True\n", ""), ("", "err"), ("", "")];
    for ((code, exit), said) in cases.into_iter().zip(said) {
        let (code, cell) = (function(code), blank(&bench).await);
        let mut process = cell.fork_from(&template).await.unwrap();
        start(&cell, &mut process, code.path()).await;
        let outcome = finish(process).await;
        assert_eq!((outcome.exit, outcome.stdout.as_str(), outcome.stderr.as_str()), (exit, said.0, said.1));
        cell.destroy().await;
    }
    assert!(template.usable());
}

async fn forks_are_signalled_with_their_group(bench: Bench) {
    let (template, cell) = (template(&bench).await, blank(&bench).await);
    let time = support::long_time(cell.id());
    let code =
        format!("import subprocess; subprocess.Popen(['sleep', '{time}']); subprocess.call(['sleep', '{time}'])");
    let code = function(&code);
    let mut process = cell.fork_from(&template).await.unwrap();
    start(&cell, &mut process, code.path()).await;
    support::until("both sleep", || support::sleepers(&time).len() == 2).await;
    cell.signal(process.pid, 15).await.unwrap();
    assert_eq!(process.exit.await.unwrap(), ExitStatus::Signal(15));
    support::until("they are gone", || support::sleepers(&time).is_empty()).await;
    assert_eq!(support::run(&cell, shell("echo well")).await.stdout, "well\n");
    cell.destroy().await;
}

async fn unwanted_forks_end(bench: Bench) {
    let template = template(&bench).await;
    let cell = blank(&bench).await;
    let mut process = cell.fork_from(&template).await.unwrap();
    drop(process.order_pipe.take());
    assert_eq!(finish(process).await.exit, ExitStatus::Code(0), "no order is to come, so it ends");
    // Given up at some point of its making, a later one each round.
    for round in 0..20 {
        let fork = cell.fork_from(&template);
        let _ = tokio::time::timeout(std::time::Duration::from_micros(round * 300), fork).await;
    }
    support::until_async("nothing runs in the cell", || async { cell.usage().await.unwrap().processes == 0 }).await;
    cell.destroy().await;
}

/// What only forks could get hold of: what is the template's, the node's, or another fork's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forks_are_processes_of_their_cell_and_nothing_else() {
    let Some(bench) = support::cell() else { return };
    let template = template(&bench).await;
    let code = function(
        "import ctypes, json, os, random, sys, tempfile, uuid\n\
         status = dict(line.split(':\\t', 1) for line in open('/proc/self/status') if ':\\t' in line)\n\
         assert not any(int(status['Cap' + s], 16) for s in ('Inh', 'Prm', 'Eff', 'Bnd', 'Amb')), status\n\
         assert (status['NoNewPrivs'].strip(), status['Seccomp'].strip()) == ('1', '2'), status\n\
         assert os.getresuid() == (993,) * 3 and os.getresgid() == (990,) * 3 and os.getgroups() in ([], [65534]), os.getgroups()\n\
         assert os.getpid() == os.getsid(0) == os.getpgid(0) and os.getppid() == 0\n\
         assert [p for p in os.listdir('/proc') if p.isdigit()] == [str(os.getpid())]\n\
         assert sorted(os.environ) == ['AWS_LAMBDA_RUNTIME_API', 'LAMBDA_TASK_ROOT', 'MINE', 'PATH', '_HANDLER'], os.environ\n\
         started = {pair.split(b'=')[0] for pair in open('/proc/self/environ', 'rb').read().split(b'\\0')}\n\
         assert started <= {b'LANG', b'TZ', b'_LAMBENT_TEMPLATE_FD', b''}, started\n\
         assert open('/proc/self/oom_score_adj').read() == '1000\\n'\n\
         limits = {line[:26].strip(): line[26:].split()[:2] for line in open('/proc/self/limits')}\n\
         assert limits['Max open files'] == ['1024', '1024'] and limits['Max core file size'] == ['1', '1'], limits\n\
         assert limits['Max processes'] == ['65', '65'] and limits['Max locked memory'] == ['65536', '65536'], limits\n\
         links = {n: os.readlink('/proc/self/fd/' + n) for n in os.listdir('/proc/self/fd') if os.path.lexists('/proc/self/fd/' + n)}\n\
         assert set(links) == {'0', '1', '2', '62'} and links['0'] == '/dev/null', links\n\
         others = [line.split()[-1] for line in open('/proc/self/maps') if '/' in line.split()[-1][:1]]\n\
         assert all(path.startswith(('/usr/', '/lib')) for path in others), others\n\
         assert os.readlink('/proc/self/root') == '/' and os.readlink('/proc/self/exe').startswith('/usr/bin/python3')\n\
         libc = ctypes.CDLL(None, use_errno=True)\n\
         for call in (165, 166, 272, 308, 101): assert libc.syscall(call, 0, 0, 0, 0, 0) == -1 and ctypes.get_errno() == 1, call\n\
         assert '/proc/sys' in open('/proc/self/mounts').read()\n\
         print(json.dumps([random.random(), uuid.uuid4().hex, os.urandom(8).hex(), tempfile.mktemp()]), flush=True)\n\
         os._exit(0)",
    );
    let mut drawn = Vec::new();
    for _ in 0..2 {
        let cell = blank(&bench).await;
        let mut process = cell.fork_from(&template).await.unwrap();
        start(&cell, &mut process, code.path()).await;
        let outcome = finish(process).await;
        assert_eq!(outcome.exit, ExitStatus::Code(0), "{} {}", outcome.stderr, outcome.stdout);
        drawn.push(serde_json::from_str::<Vec<serde_json::Value>>(&outcome.stdout).unwrap());
        cell.destroy().await;
    }
    assert!(drawn[0].iter().zip(&drawn[1]).all(|(one, two)| one != two), "{drawn:?}");
}

/// The number of this bench's only template on the host.
fn templates(bench: &Bench) -> Vec<i32> {
    let place = bench.directory.path().join("runtime");
    let of_this = |pid: &i32| {
        let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let template = environment.split(|byte| *byte == 0).any(|pair| pair.starts_with(b"_LAMBENT_TEMPLATE_FD"));
        let root = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        template && mounts.contains(&*place.to_string_lossy()) && root.contains("\nSeccomp:\t0")
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(of_this).collect()
}

fn kill(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

/// Forks outlive their template, whose death is an error for whoever asks it for one more, and another one can be had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_that_is_killed_is_replaced() {
    let Some(bench) = support::cell() else { return };
    let (first, cell) = (template(&bench).await, blank(&bench).await);
    let code = function("print('alive', flush=True)\nimport os; os._exit(0)");
    let mut process = cell.fork_from(&first).await.unwrap();
    let pids = templates(&bench);
    assert_eq!(pids.len(), 1, "{pids:?}");
    kill(pids[0], nix::sys::signal::Signal::SIGKILL);
    support::until("its death is noticed", || !first.usable()).await;
    let other = blank(&bench).await;
    assert!(matches!(other.fork_from(&first).await, Err(Error::Ended)));
    start(&cell, &mut process, code.path()).await;
    assert_eq!(finish(process).await.stdout, "alive\n");
    let second = template(&bench).await;
    let mut process = other.fork_from(&second).await.unwrap();
    start(&other, &mut process, code.path()).await;
    assert_eq!(finish(process).await.stdout, "alive\n");
    drop((first, second));
    support::until("no template is left", || templates(&bench).is_empty()).await;
    cell.destroy().await;
    other.destroy().await;
}

/// A template that hangs costs whoever waits for it some time, and nobody else anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_that_hangs_is_given_up() {
    let Some(mut bench) = support::cell() else { return };
    let mut config = lambent_sandbox::cell::Config::new(bench.directory.path());
    config.agent = support::agent_program();
    config.patience = std::time::Duration::from_secs(5);
    bench.sandbox = Arc::new(lambent_sandbox::cell::Cells::new(config).unwrap());
    let (template, cell) = (template(&bench).await, blank(&bench).await);
    let pids = templates(&bench);
    kill(pids[0], nix::sys::signal::Signal::SIGSTOP);
    assert!(matches!(cell.fork_from(&template).await, Err(Error::Step { .. })));
    assert!(!template.usable());
    support::until("it is gone", || templates(&bench).is_empty()).await;
    cell.destroy().await;
}

/// A cell that ends while it is being forked into.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forks_into_cells_that_end_are_errors() {
    let Some(bench) = support::cell() else { return };
    let template = template(&bench).await;
    for round in 0..10 {
        let cell = blank(&bench).await;
        let end = async {
            tokio::time::sleep(std::time::Duration::from_micros(round * 500)).await;
            cell.destroy().await;
        };
        let (fork, ()) = tokio::join!(cell.fork_from(&template), end);
        if let Ok(process) = fork {
            let _ = process.exit.await;
        }
    }
    let cell = blank(&bench).await;
    assert!(cell.fork_from(&template).await.is_ok(), "the template is none the worse");
    cell.destroy().await;
}

/// Each version has its own ways to the kernel, and some builds lie outside of the system's directories.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_python_can_be_a_template() {
    let Some(bench) = support::cell() else { return };
    let code = function("import sys; print(sys.executable, flush=True)\nimport os; os._exit(0)");
    for python in support::interpreters().into_iter().filter(|interpreter| interpreter.kind == "python") {
        let mut spec = template_spec(bench.directory.path());
        spec.argv[0].clone_from(&python.program);
        spec.mounts.extend(python.mount.map(|path| Mount { source: path.clone(), target: path }));
        let blank = BlankSpec { id: InstanceId::random(), mounts: spec.mounts.clone(), memory_mib: 512 };
        let (template, cell) = (bench.sandbox.template(spec).await.unwrap(), bench.sandbox.blank(blank).await.unwrap());
        let mut process = cell.fork_from(&template).await.unwrap();
        start(&cell, &mut process, code.path()).await;
        let outcome = finish(process).await;
        assert_eq!(outcome.stdout.trim(), python.program, "{}", outcome.stderr);
        cell.destroy().await;
    }
}

/// Numbers, for people: `cargo test -p lambent-sandbox --test it -- --ignored --nocapture measure_forks`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints measurements"]
async fn measure_forks() {
    let Some(bench) = support::cell() else { return };
    let begin = std::time::Instant::now();
    let template = template(&bench).await;
    println!("start a template: {:?}", begin.elapsed());
    let code = function("import os; os.write(1, b'up')\nimport time; time.sleep(1000)");
    let (mut forks, mut specialises, mut starts, mut kept) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..50 {
        let cell = blank(&bench).await;
        let begin = std::time::Instant::now();
        let process = cell.fork_from(&template).await.unwrap();
        forks.push(begin.elapsed());
        kept.push((cell, process));
    }
    println!("waiting forks: {}", support::memory(&templates_and_forks(&bench)));
    for (cell, process) in &mut kept {
        let begin = std::time::Instant::now();
        let spec = support::spec();
        let what = Specialisation {
            mounts: vec![Mount { source: code.path().to_owned(), target: "/var/task".into() }],
            memory_mib: spec.memory_mib,
            milli_cpus: spec.milli_cpus,
            ephemeral_mib: spec.ephemeral_mib,
            processes: spec.processes,
            network: Network::Internet,
        };
        cell.specialise(what).await.unwrap();
        specialises.push(begin.elapsed());
        give(cell, process).await;
        let stdout = std::mem::replace(&mut process.stdout, std::fs::File::open("/dev/null").unwrap().into());
        let mut byte = [0; 2];
        let mut stdout = tokio::net::unix::pipe::Receiver::from_owned_fd(stdout).unwrap();
        tokio::io::AsyncReadExt::read_exact(&mut stdout, &mut byte).await.unwrap();
        starts.push(begin.elapsed());
    }
    println!("loaded forks: {}", support::memory(&templates_and_forks(&bench)));
    for (what, mut times) in [("fork", forks), ("specialise", specialises), ("specialise to user code", starts)] {
        times.sort_unstable();
        println!("{what}: median {:?}, worst {:?}", times[times.len() / 2], times[times.len() - 1]);
    }
}

/// Every process that was forked from this bench's templates, and the templates.
fn templates_and_forks(bench: &Bench) -> Vec<i32> {
    let place = bench.directory.path().join("runtime");
    let of_this = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        line.windows(12).any(|part| part == b"bootstrap.py") && mounts.contains(&*place.to_string_lossy())
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(of_this).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_that_cannot_start_says_why() {
    let Some(bench) = support::cell() else { return };
    let mut spec = template_spec(bench.directory.path());
    spec.argv = vec![PYTHON.into(), "-c".into(), "import sys; sys.exit('no such luck')".into()];
    let error = bench.sandbox.template(spec.clone()).await.err().unwrap();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("no such luck"), "{cause}");
    spec.argv = vec!["/does/not/exist".into()];
    assert!(bench.sandbox.template(spec).await.is_err());
}
