//! Clones: what is made of a snapshot of an initialised Python, in a cell of its own.

use std::path::Path;
use std::sync::Arc;

use lambent_model::InstanceId;
use lambent_sandbox::{
    BlankSpec, Cell, CellSpec, ExitStatus, Mount, Order, Process, Sandbox, Specialisation, Template, TemplateSpec,
};

use crate::support::{self, Bench, finish};
use crate::template::template_spec;

/// Where a snapshot lies in the cell of a clone.
const INSIDE: &str = "/var/snapshot";

/// Around what a function does in its init, and what its clones do: the snapshot goes out as text.
const HEAD: &str = "\
import base64, os, sys
from _lambent import hooks, snapshot
hooks.go_aside()
";
const MIDDLE: &str = "
sys.stdout.flush()
try:
    taken = snapshot.take({0, 1, 2, 62})
except snapshot.Unsafe as reason:
    print('unsafe:', reason, flush=True)
    os._exit(3)
if taken is not None:
    for piece in snapshot.pieces(taken.parts(), 60000):
        print(base64.b64encode(piece).decode(), flush=False)
    sys.stdout.flush()
    os._exit(0)
hooks._wake()
";

struct Function {
    template: Arc<dyn Template>,
    mounts: Vec<Mount>,
    code: tempfile::TempDir,
    spec: CellSpec,
}

impl Function {
    async fn new(sandbox: &Arc<dyn Sandbox>, what: TemplateSpec, spec: CellSpec, init: &str, after: &str) -> Self {
        let code = tempfile::tempdir().unwrap();
        std::fs::create_dir(code.path().join("python")).unwrap();
        let text = format!("{HEAD}{init}{MIDDLE}{after}\nsys.stdout.flush()\nos._exit(0)\n");
        std::fs::write(code.path().join("python/app.py"), text).unwrap();
        support::open_to_all(code.path());
        let mounts = what.mounts.clone();
        Self { template: sandbox.template(what).await.unwrap(), mounts, code, spec }
    }

    async fn of(bench: &Bench, init: &str, after: &str) -> Self {
        let what = template_spec(bench.directory.path());
        Self::new(&bench.sandbox, what, support::spec(), init, after).await
    }

    /// A container of it: a fork, in a cell of its own, that was given its order.
    async fn start(&self, sandbox: &Arc<dyn Sandbox>, snapshot: Option<&Path>) -> (Arc<dyn Cell>, Process) {
        let blank = BlankSpec { id: InstanceId::random(), mounts: self.mounts.clone(), memory_mib: 512 };
        let cell = sandbox.blank(blank).await.unwrap();
        let mut process = cell.fork_from(&self.template).await.unwrap();
        let spec = self.spec.clone();
        let mut mounts = spec.mounts;
        mounts.push(Mount { source: self.code.path().into(), target: "/opt".into() });
        mounts.extend(snapshot.map(|path| Mount { source: path.into(), target: INSIDE.into() }));
        let what = Specialisation {
            mounts,
            memory_mib: 256,
            milli_cpus: spec.milli_cpus,
            ephemeral_mib: spec.ephemeral_mib,
            processes: spec.processes,
            network: spec.network,
        };
        cell.specialise(what).await.unwrap();
        let mine = if snapshot.is_some() { "clone" } else { "first" };
        let env = [
            ("_HANDLER", "app.handler"),
            ("LAMBDA_TASK_ROOT", "/var/task"),
            ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1"),
            ("PATH", "/usr/bin:/bin"),
            ("MINE", mine),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let order = Order { env, cwd: "/var/task".into(), snapshot: snapshot.map(|_| INSIDE.into()) };
        cell.order(process.order_pipe.take().unwrap(), order).await.unwrap();
        (cell, process)
    }

    /// Has a snapshot taken; the file.
    async fn snapshot(&self, sandbox: &Arc<dyn Sandbox>) -> Result<tempfile::NamedTempFile, String> {
        let (cell, process) = self.start(sandbox, None).await;
        let outcome = finish(process).await;
        cell.destroy().await;
        if outcome.exit != ExitStatus::Code(0) {
            return Err(format!("{:?} {} {}", outcome.exit, outcome.stdout, outcome.stderr));
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for line in outcome.stdout.lines() {
            std::io::Write::write_all(&mut file, &decode(line)).unwrap();
        }
        support::open_to_all(file.path());
        Ok(file)
    }

    /// What a clone prints.
    async fn clone_of(&self, sandbox: &Arc<dyn Sandbox>, snapshot: &Path) -> String {
        let (cell, process) = self.start(sandbox, Some(snapshot)).await;
        let outcome = finish(process).await;
        cell.destroy().await;
        assert_eq!((outcome.exit, outcome.stderr.as_str()), (ExitStatus::Code(0), ""), "{}", outcome.stdout);
        outcome.stdout
    }
}

fn decode(line: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => u32::from(byte - b'A'),
        b'a'..=b'z' => u32::from(byte - b'a') + 26,
        b'0'..=b'9' => u32::from(byte - b'0') + 52,
        b'+' => 62,
        _ => 63,
    };
    let quads = line.as_bytes().chunks(4).flat_map(|quad| {
        let bits = quad.iter().fold(0, |bits, byte| bits << 6 | if *byte == b'=' { 0 } else { value(*byte) });
        let padding = quad.iter().filter(|byte| **byte == b'=').count();
        bits.to_be_bytes()[1..4 - padding].to_vec()
    });
    quads.collect()
}

/// Runs a probe in a clone, in a cell as specified, and gives the lines it printed.
pub async fn probe(sandbox: &Arc<dyn Sandbox>, directory: &Path, spec: CellSpec, probe: &str) -> Vec<String> {
    let function = Function::new(sandbox, template_spec(directory), spec, "", probe).await;
    let snapshot = function.snapshot(sandbox).await.unwrap();
    let said = function.clone_of(sandbox, snapshot.path()).await;
    said.lines().map(str::to_owned).collect()
}

const INIT: &str = r#"
import random, signal, socket, ssl, tempfile, uuid
state = {"numbers": list(range(50000))}
os.makedirs("/tmp/folder")
open("/tmp/folder/file", "w").write("written by init")
os.symlink("folder/file", "/tmp/link")
reading = open("/tmp/folder/file"); reading.read(8); place = reading.buffer.raw.tell()
listening = socket.create_server(("127.0.0.1", 0))
talking = socket.create_connection(listening.getsockname())
heard = []
signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
random.random(); ssl.RAND_bytes(8)
os.environ["SET_BY_INIT"] = "1"
first_pid = os.getpid()
os.chdir("/tmp/folder")
"#;

const AFTER: &str = r#"
import ctypes, json, threading, subprocess, gc
assert sum(state["numbers"]) == 1249975000
assert open("/tmp/folder/file").read() == "written by init" == open("/tmp/link").read()
assert reading.buffer.raw.tell() == place and reading.read() == "by init"
for end in (talking, listening):
    assert end.fileno() > 2
    try: end.getpeername()
    except OSError: pass
    else: raise AssertionError("the network of another container")
talking.close(); listening.close()
os.kill(os.getpid(), signal.SIGUSR1)
assert heard == [1]
assert os.environ["MINE"] == "clone" and os.environ["SET_BY_INIT"] == "1"
assert os.getcwd() == "/tmp/folder" and os.getpid() != first_pid
thread = threading.Thread(target=lambda: heard.append(threading.get_native_id())); thread.start(); thread.join()
assert len(heard) == 2 and threading.main_thread() is threading.current_thread()
libc = ctypes.CDLL(None)
lock = ctypes.create_string_buffer(64); libc.pthread_mutexattr_settype(lock, 2)
assert subprocess.run(["/bin/echo", "hi"], capture_output=True).stdout == b"hi\n"
assert libc.gettid() == os.getpid()
gc.collect(); keep = [bytearray(1 << 20) for _ in range(40)]; more = [str(n) for n in range(200000)]; del keep, more; gc.collect()
status = dict(line.split(':\t', 1) for line in open('/proc/self/status') if ':\t' in line)
assert not any(int(status['Cap' + s], 16) for s in ('Inh', 'Prm', 'Eff', 'Bnd', 'Amb')), status
assert (status['NoNewPrivs'].strip(), status['Seccomp'].strip()) == ('1', '2'), status
assert os.getresuid() == (993,) * 3 and os.getresgid() == (990,) * 3
assert [p for p in os.listdir('/proc') if p.isdigit()] == [str(os.getpid())]
links = {n: os.readlink('/proc/self/fd/' + n) for n in os.listdir('/proc/self/fd') if os.path.lexists('/proc/self/fd/' + n)}
assert set(links) - {str(reading.fileno())} == {'0', '1', '2', '62'}, links
limits = {line[:26].strip(): line[26:].split()[:2] for line in open('/proc/self/limits')}
assert limits['Max open files'] == ['1024', '1024'], limits
for call in (165, 166, 272, 308, 101): assert libc.syscall(call, 0, 0, 0, 0, 0) == -1, call
# What a clone changes is its own.
state["numbers"].clear(); open("/tmp/folder/file", "w").write("by a clone")
try: open("/var/snapshot", "r+b")
except OSError: pass
else: raise AssertionError("a snapshot that can be written to")
print(json.dumps([random.random(), uuid.uuid4().hex, ssl.RAND_bytes(8).hex(), os.urandom(8).hex(), next(tempfile._get_candidate_names())]))
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clones_go_on_where_the_snapshot_was_taken_and_share_nothing_that_changes() {
    let Some(bench) = support::cell() else { return };
    let function = Function::of(&bench, INIT, AFTER).await;
    let snapshot = function.snapshot(&bench.sandbox).await.unwrap();
    let before = std::fs::read(snapshot.path()).unwrap();
    let mut drawn = Vec::new();
    for _ in 0..3 {
        let said = function.clone_of(&bench.sandbox, snapshot.path()).await;
        drawn.push(serde_json::from_str::<Vec<serde_json::Value>>(&said).unwrap());
    }
    assert!(drawn[0].iter().zip(&drawn[1]).all(|(one, two)| one != two), "{drawn:?}");
    assert!(drawn[1].iter().zip(&drawn[2]).all(|(one, two)| one != two), "{drawn:?}");
    assert!(before == std::fs::read(snapshot.path()).unwrap(), "the snapshot is what it was");
}

/// What cannot be given to another process keeps a function from being cloned, and it says what that is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_cloned_says_why() {
    let Some(bench) = support::cell() else { return };
    let cases = [
        ("import threading, time; threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()", "thread"),
        ("import subprocess; subprocess.Popen(['/bin/sleep', '1000'], stdout=-3, stderr=-3)", "other processes"),
        ("import mmap; shared = mmap.mmap(-1, 4096)", "shares memory"),
        ("ends = os.pipe()", "opened pipe"),
        ("import select; poll = select.epoll()", "opened anon_inode"),
        ("import socket; pair = socket.socketpair()", "local socket"),
        ("import signal; signal.setitimer(signal.ITIMER_REAL, 1000)", "timer"),
    ];
    for (init, reason) in cases {
        let refused = Function::of(&bench, init, "").await.snapshot(&bench.sandbox).await.unwrap_err();
        assert!(refused.contains("unsafe:") && refused.contains(reason), "{init}: {refused}");
    }
}

/// A snapshot of another template's fork, or none at all, is refused before anything is changed by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_snapshot_for_it_ends_a_fork() {
    let Some(bench) = support::cell() else { return };
    let (one, other) = (Function::of(&bench, "", "print('no')").await, Function::of(&bench, "", "print('no')").await);
    let (snapshot, text) = (one.snapshot(&bench.sandbox).await.unwrap(), tempfile::NamedTempFile::new().unwrap());
    std::fs::write(text.path(), "x".repeat(4096)).unwrap();
    support::open_to_all(text.path());
    for path in [snapshot.path(), text.path()] {
        let (cell, process) = other.start(&bench.sandbox, Some(path)).await;
        let outcome = finish(process).await;
        assert!(outcome.exit != ExitStatus::Code(0) && outcome.stdout.is_empty(), "{outcome:?}");
        cell.destroy().await;
    }
}

/// Each version has its own memory and its own locks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_python_can_be_cloned() {
    let Some(bench) = support::cell() else { return };
    for python in support::interpreters().into_iter().filter(|interpreter| interpreter.kind == "python") {
        let mut what = template_spec(bench.directory.path());
        what.argv[0].clone_from(&python.program);
        what.mounts.extend(python.mount.map(|path| Mount { source: path.clone(), target: path }));
        let function = Function::new(&bench.sandbox, what, support::spec(), INIT, AFTER).await;
        let snapshot =
            function.snapshot(&bench.sandbox).await.unwrap_or_else(|why| panic!("{}: {why}", python.program));
        let said = function.clone_of(&bench.sandbox, snapshot.path()).await;
        assert!(said.starts_with('['), "{}: {said}", python.program);
    }
}
