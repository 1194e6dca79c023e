//! What only the isolating back end promises: what code inside can see, reach and use up.

use std::sync::Arc;

use lambent_model::InstanceId;
use lambent_model::function::Network;
use lambent_sandbox::{Cell, ExitStatus, Mount, egress};

use crate::support::{self, Bench, PYTHON, program, run, shell, spec};

/// A test that makes cells, and is skipped loudly where the host cannot.
macro_rules! isolated {
    ($($name:ident: $body:expr;)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            if let Some(bench) = support::cell() { $body(bench).await }
        })*
        /// The same for cells that were blank first.
        mod by_blank {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(bench) = support::cell_by_blank() { $body(bench).await }
            })*
        }
    };
}

isolated! {
    the_user_is_nobody_with_no_privileges: identity;
    only_its_own_processes_are_there: processes;
    host_files_are_absent_and_the_rest_is_read_only: files;
    proc_shows_only_what_is_on_the_list: proc_is_masked;
    scratch_is_private_and_as_large_as_asked_for: scratch;
    fork_bombs_are_bounded: fork_bomb;
    the_network_is_its_own: network;
    cells_cannot_see_each_other: two_cells;
    system_calls_are_filtered: system_calls;
    no_descriptor_but_the_promised_ones_is_open: descriptors;
    memory_excludes_scratch_and_includes_shared_memory: memory_kinds;
    cpu_is_shared_as_asked: cpu_share;
    interpreters_and_tools_run: interpreters;
    async_rust_runs: tokio_program;
    the_way_out_is_the_gateway: way_out;
    hundreds_of_cells_leave_nothing: churn;
}

async fn python(cell: &Arc<dyn Cell>, code: &str) -> String {
    let outcome = run(cell, program(&[PYTHON, "-c", code])).await;
    assert_eq!(outcome.exit, ExitStatus::Code(0), "{outcome:?}");
    outcome.stdout
}

async fn identity(bench: Bench) {
    let cell = bench.sandbox.create(spec()).await.unwrap();
    let id = run(&cell, shell("id; hostname; cat /proc/self/oom_score_adj")).await.stdout;
    let expected = "uid=993(sbx_user1051) gid=990(sbx_user1051)";
    assert!(id.starts_with(expected), "{id}");
    assert!(id.ends_with("\nsandbox\n1000\n"), "{id}");
    let status = run(&cell, shell("cat /proc/self/status")).await.stdout;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1", "2"));
    // One byte: no file, and no crash handler of the host either.
    assert_eq!(
        run(&cell, program(&["/bin/bash", "-c", "ulimit -Hn; grep core /proc/self/limits"]))
            .await
            .stdout
            .split_whitespace()
            .collect::<Vec<_>>()[..7],
        ["1024", "Max", "core", "file", "size", "1", "1"]
    );
    // A set-user-id program of the host gives nothing.
    let su = run(&cell, shell("test -u /usr/bin/su && su -c id </dev/null; id -u")).await.stdout;
    assert_eq!(su, "993\n");
    cell.destroy().await;
}

async fn processes(bench: Bench) {
    let cell = bench.sandbox.create(spec()).await.unwrap();
    let code = "import os; print(sorted(int(p) for p in os.listdir('/proc') if p.isdigit()) == [os.getpid()])\n\
                for p in [1, os.getppid()]:\n for s in [0, 9, 15]:\n  try: os.kill(p, s) if p else None\n  except OSError as e: print(e)";
    assert!(python(&cell, code).await.starts_with("True\n"), "the agent and the host do not show");
    assert_eq!(run(&cell, shell("echo still here")).await.stdout, "still here\n", "pid 1 takes no signals from inside");
    let other = python(&cell, "import os\nfor f in ['mem','maps','environ','fd','cwd','root']:\n try: os.stat('/proc/1/'+f); print(f)\n except OSError: pass").await;
    assert_eq!(other, "", "nothing of the agent is readable");
    cell.destroy().await;
}

async fn files(bench: Bench) {
    let code = tempfile::tempdir().unwrap();
    std::fs::write(code.path().join("a"), "a").unwrap();
    support::open_to_all(code.path());
    let mut spec = spec();
    spec.mounts.push(Mount { source: code.path().into(), target: "/var/task".into() });
    spec.mounts.push(Mount { source: code.path().join("a"), target: "/opt/deep/file".into() });
    let cell = bench.sandbox.create(spec).await.unwrap();
    let writes = "import os, errno\n\
        for p in ['/x','/usr/x','/etc/x','/etc/passwd','/var/task/x','/var/task/a','/opt/x','/opt/deep/file','/dev/x','/proc/x','/proc/sys/kernel/hostname','/sys/x','/var/runtime/x','/run/x','/var/tmp/x']:\n\
        \x20try: os.close(os.open(p, os.O_WRONLY|os.O_CREAT)); print('wrote', p)\n\
        \x20except OSError as e: assert e.errno in (errno.EROFS, errno.EACCES, errno.ENOENT, errno.EPERM), (p, e)\n\
        for p in ['/var/task/a', '/usr/bin/env', '/tmp', '/dev/shm']:\n\
        \x20try: os.chmod(p, 0o4777); print('chmod', p)\n\
        \x20except OSError as e: pass";
    assert_eq!(python(&cell, writes).await, "chmod /tmp\nchmod /dev/shm\n");
    let top = python(
        &cell,
        "import os; print(sorted(os.listdir('/'))); print(os.listdir('/sys'), os.listdir('/home'), os.listdir('/run'))",
    )
    .await;
    for host in ["root", "work", "boot", "lost+found"] {
        assert!(!top.contains(&format!("'{host}'")), "{top}");
    }
    assert!(top.ends_with("[] [] []\n"), "{top}");
    let devices = python(&cell, "import os; print(sorted(os.listdir('/dev')))").await;
    let expected = "['fd', 'full', 'null', 'random', 'shm', 'stderr', 'stdin', 'stdout', 'urandom', 'zero']\n";
    assert_eq!(devices, expected);
    let devices =
        run(&cell, shell("echo x > /dev/null && head -c 4 /dev/zero | wc -c && head -c 4 /dev/urandom | wc -c")).await;
    assert_eq!(devices.stdout, "4\n4\n", "{devices:?}");
    assert_eq!(run(&cell, shell("cat /opt/deep/file /etc/shadow")).await.stdout, "a");
    let mounts = run(&cell, shell("cat /proc/self/mounts")).await.stdout;
    for line in mounts.lines() {
        let mut parts = line.split(' ').skip(1);
        let (target, options) = (parts.next().unwrap(), parts.nth(1).unwrap());
        let may_write = ["/tmp", "/dev/shm", "/proc"].contains(&target);
        assert!(may_write || options.starts_with("ro"), "{line}");
        assert!(options.contains("nosuid"), "{line}");
    }
    cell.destroy().await;
}

async fn proc_is_masked(bench: Bench) {
    let mut spec = spec();
    spec.memory_mib = 300;
    let cell = bench.sandbox.create(spec).await.unwrap();
    let empty = "import os\n\
        for n in ['kcore','kmsg','keys','key-users','sysrq-trigger','timer_list','kallsyms','modules','iomem','cmdline','interrupts','bus','irq','fs','acpi','scsi','driver','tty','pressure','config.gz','latency_stats','sched_debug']:\n\
        \x20p='/proc/'+n\n\
        \x20if os.path.isdir(p): assert os.listdir(p) == [], p\n\
        \x20elif os.path.exists(p): assert open(p,'rb').read(10) == b'', p\n\
        print(open('/proc/meminfo').readline().split()[1], len(open('/proc/cpuinfo').read()) > 10, open('/proc/uptime').read() != '')";
    assert_eq!(python(&cell, empty).await, "307200 True True\n");
    cell.destroy().await;
}

async fn scratch(bench: Bench) {
    let mut small = spec();
    small.ephemeral_mib = 8;
    small.memory_mib = 128;
    let cell = bench.sandbox.create(small).await.unwrap();
    let fill = "import os\nf=open('/tmp/fill','wb',0); n=0\ntry:\n while True: n+=f.write(b'x'*65536)\nexcept OSError as e: print(e.strerror, n>>20)";
    assert_eq!(python(&cell, fill).await, "No space left on device 8\n");
    let inodes = "import os\nos.remove('/tmp/fill')\ntry:\n for n in range(10**7): open(f'/tmp/{n}','w').close()\nexcept OSError as e: print(e.strerror, n < 3000)";
    assert_eq!(python(&cell, inodes).await, "No space left on device True\n");
    assert_eq!(run(&cell, shell("rm -rf /tmp/* && echo > /tmp/again && echo ok")).await.stdout, "ok\n");
    assert!(!std::path::Path::new("/tmp/again").exists());
    cell.destroy().await;
}

async fn fork_bomb(bench: Bench) {
    let mut spec = spec();
    spec.processes = 20;
    let cell = bench.sandbox.create(spec).await.unwrap();
    let bomb = "import os, time\nn=0\ntry:\n while True:\n  if os.fork()==0: time.sleep(1000)\n  n+=1\nexcept OSError as e: print(e.strerror, n, flush=True); time.sleep(1000)";
    let process = cell.spawn(program(&[PYTHON, "-c", bomb])).await.unwrap();
    let pid = process.pid;
    let stdout = support::first_line(process.stdout).await;
    assert_eq!(stdout, "Resource temporarily unavailable 19");
    assert_eq!(cell.usage().await.unwrap().processes, 20);
    cell.signal(pid, 9).await.unwrap();
    support::until_async("the bomb's children are gone", || async { cell.usage().await.unwrap().processes == 0 }).await;
    assert_eq!(run(&cell, shell("echo calm")).await.stdout, "calm\n");
    cell.destroy().await;
}

async fn network(bench: Bench) {
    let host = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = host.local_addr().unwrap().port();
    let cell = bench.sandbox.create(spec()).await.unwrap();
    let code = format!(
        "import socket, errno\n\
         print(sorted(n for _, n in socket.if_nameindex()))\n\
         for a in [('127.0.0.1', {port}), ('169.254.169.254', 80), ('1.1.1.1', 53)]:\n\
         \x20try: socket.create_connection(a, 2); print('connected', a)\n\
         \x20except OSError as e: assert e.errno in (errno.ECONNREFUSED, errno.ENETUNREACH), e\n\
         for f, t, p in [(17, 3, 0), (2, 3, 1), (16, 3, 12), (38, 5, 0), (40, 1, 0), (10, 3, 58)]:\n\
         \x20try: socket.socket(f, t, p); print('made', f, t, p)\n\
         \x20except OSError as e: pass"
    );
    assert_eq!(python(&cell, &code).await, "['lo']\n");
    // The other way: the Runtime API's socket is not among the host's.
    let listener = cell.take_runtime_api().unwrap();
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(fd_path(&listener)).unwrap()).to_string();
    let sockets = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    assert!(!sockets.split_whitespace().any(|field| field == inode));
    let socket = "import socket; s=socket.create_connection(('127.0.0.1',9001)); print('in')";
    assert_eq!(python(&cell, socket).await, "in\n");
    cell.destroy().await;
}

fn fd_path(fd: &impl std::os::fd::AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

async fn two_cells(bench: Bench) {
    let one = bench.sandbox.create(spec()).await.unwrap();
    let two = bench.sandbox.create(spec()).await.unwrap();
    let name = InstanceId::random().to_string();
    let server = format!(
        "import socket, time, os\ns=socket.socket(socket.AF_UNIX); s.bind(chr(0)+'{name}'); s.listen()\n\
         t=socket.create_server(('127.0.0.1', 7777)); open('/tmp/{name}','w').close(); open('/dev/shm/{name}','w').close()\n\
         print('up', flush=True); time.sleep(1000)"
    );
    let process = one.spawn(program(&[PYTHON, "-c", &server])).await.unwrap();
    let (said, complaint) = (support::first_line(process.stdout).await, process.stderr);
    if said != "up" {
        panic!("{said:?} {}", String::from_utf8_lossy(&support::read_all(complaint).await));
    }
    let seen = format!(
        "import socket, os, glob\n\
         for f, a in [(socket.AF_UNIX, chr(0)+'{name}'), (socket.AF_INET, ('127.0.0.1', 7777))]:\n\
         \x20try: socket.socket(f).connect(a); print('reached', a)\n\
         \x20except ConnectionRefusedError: pass\n\
         print(glob.glob('/*/*{name}*'), len([p for p in os.listdir('/proc') if p.isdigit()]))"
    );
    assert_eq!(python(&two, &seen).await, "[] 1\n");
    if nix::unistd::geteuid().is_root() {
        let mut users: Vec<u32> = support::agents_of_this_process().into_iter().map(|agent| agent.uid).collect();
        let all = users.len();
        users.sort_unstable();
        users.dedup();
        assert!(users.len() == all && !users.contains(&0), "each cell is a user of its own");
    }
    one.destroy().await;
    two.destroy().await;
}

async fn system_calls(bench: Bench) {
    let cell = bench.sandbox.create(spec()).await.unwrap();
    // Number, first arguments, expected error.
    let probe = "import ctypes, os, errno\nlibc=ctypes.CDLL(None, use_errno=True)\n\
        def call(name, want, nr, *a):\n\
        \x20ctypes.set_errno(0); r=libc.syscall(ctypes.c_long(nr), *[ctypes.c_long(x) for x in a])\n\
        \x20e=ctypes.get_errno()\n\
        \x20if r != -1 or errno.errorcode.get(e) != want: print(name, r, errno.errorcode.get(e))\n";
    let calls: &[(&str, &str, i64, &str)] = &[
        ("ptrace", "EPERM", libc::SYS_ptrace, "0,0,0,0"),
        ("mount", "EPERM", libc::SYS_mount, "0,0,0,0,0"),
        ("unshare user", "EPERM", libc::SYS_unshare, "0x10000000"),
        ("setns", "EPERM", libc::SYS_setns, "0,0"),
        ("clone user namespace", "EPERM", libc::SYS_clone, "0x10000011,0,0,0,0"),
        ("clone network namespace", "EPERM", libc::SYS_clone, "0x40000011,0,0,0,0"),
        ("clone3", "ENOSYS", libc::SYS_clone3, "0,0"),
        ("bpf", "EPERM", libc::SYS_bpf, "0,0,0"),
        ("keyctl", "EPERM", libc::SYS_keyctl, "0,0,0,0,0"),
        ("add_key", "EPERM", libc::SYS_add_key, "0,0,0,0,0"),
        ("userfaultfd", "EPERM", libc::SYS_userfaultfd, "1"),
        ("perf_event_open", "EPERM", libc::SYS_perf_event_open, "0,0,0,0,0"),
        ("io_uring_setup", "ENOSYS", libc::SYS_io_uring_setup, "1,0"),
        ("process_vm_readv", "EPERM", libc::SYS_process_vm_readv, "1,0,0,0,0,0"),
        ("pidfd_getfd", "EPERM", libc::SYS_pidfd_getfd, "0,0,0"),
        ("open_by_handle_at", "EPERM", libc::SYS_open_by_handle_at, "0,0,0"),
        ("seccomp", "EPERM", libc::SYS_seccomp, "1,0,0"),
        ("chroot", "EPERM", libc::SYS_chroot, "0"),
        ("pivot_root", "EPERM", libc::SYS_pivot_root, "0,0"),
        ("open_tree", "EPERM", libc::SYS_open_tree, "0,0,0"),
        ("init_module", "EPERM", libc::SYS_init_module, "0,0,0"),
        ("kexec_load", "EPERM", libc::SYS_kexec_load, "0,0,0,0"),
        ("reboot", "EPERM", libc::SYS_reboot, "0,0,0,0"),
        ("syslog", "EPERM", libc::SYS_syslog, "3,0,0"),
        ("sethostname", "EPERM", libc::SYS_sethostname, "0,0"),
        ("clock_settime", "EPERM", libc::SYS_clock_settime, "0,0"),
        ("sync", "EPERM", libc::SYS_sync, ""),
        ("personality", "EPERM", libc::SYS_personality, "0x0040000"),
        ("prlimit of pid 1", "EPERM", libc::SYS_prlimit64, "1,7,0,0"),
        ("prctl seccomp", "EPERM", libc::SYS_prctl, "22,2,0,0,0"),
        ("prctl ptracer", "EPERM", libc::SYS_prctl, "0x59616d61,-1,0,0,0"),
        ("ioctl push input", "EPERM", libc::SYS_ioctl, "0,0x5412,0"),
        ("packet socket", "EPERM", libc::SYS_socket, "17,3,0"),
        ("kernel crypto socket", "EPERM", libc::SYS_socket, "38,5,0"),
        ("audit netlink", "EPERM", libc::SYS_socket, "16,3,9"),
        ("a call of the future", "ENOSYS", 5000, ""),
    ];
    let lines: String = calls
        .iter()
        .map(|(name, want, number, arguments)| format!("call('{name}','{want}',{number},{arguments})\n"))
        .collect();
    assert_eq!(
        python(&cell, &format!("{probe}{lines}")).await,
        "",
        "each line is a call that was not answered as it must be"
    );
    cell.destroy().await;
}

async fn descriptors(bench: Bench) {
    let cell = bench.sandbox.create(spec()).await.unwrap();
    let list = "import os; d=os.open('/proc/self/fd', os.O_RDONLY); print(sorted(int(n) for n in os.listdir(d) if int(n) != d and os.path.exists(f'/proc/self/fd/{n}')))";
    assert_eq!(python(&cell, list).await, "[0, 1, 2]\n");
    let mut with_log = program(&[PYTHON, "-c", list]);
    with_log.log_pipe = true;
    assert_eq!(run(&cell, with_log).await.stdout, "[0, 1, 2, 62]\n");
    cell.destroy().await;
}

async fn memory_kinds(bench: Bench) {
    let mut spec = spec();
    (spec.memory_mib, spec.ephemeral_mib) = (64, 256);
    let cell = bench.sandbox.create(spec).await.unwrap();
    let fill = "f=open('/tmp/big','wb')\nfor _ in range(200): f.write(b'x'*(1<<20))\nf.close(); print('kept')";
    assert_eq!(python(&cell, fill).await, "kept\n", "/tmp is not memory");
    let usage = cell.usage().await.unwrap();
    assert!(usage.memory_bytes < 64 << 20 && usage.oom_kills == 0, "{usage:?}");
    let anonymous = "import mmap, time\nm=mmap.mmap(-1, 200<<20)\nfor i in range(200):\n m[i<<20:(i+1)<<20]=b'x'*(1<<20); time.sleep(0.005)\ntime.sleep(1000)";
    assert_eq!(run(&cell, program(&[PYTHON, "-c", anonymous])).await.exit, ExitStatus::OutOfMemory, "shared memory is");
    cell.destroy().await;
}

async fn cpu_share(bench: Bench) {
    let mut spec = spec();
    spec.milli_cpus = 100;
    let cell = bench.sandbox.create(spec).await.unwrap();
    let throttled =
        bench.sandbox.barriers().iter().all(|barrier| barrier.name != "cpu share" || barrier.missing.is_none());
    let burn = "import time\nwhile time.process_time() < 0.2: pass\nprint(time.monotonic_ns() > 0)";
    let (before, begin) = (cell.usage().await.unwrap().cpu, std::time::Instant::now());
    python(&cell, burn).await;
    let (used, took) = (cell.usage().await.unwrap().cpu.saturating_sub(before), begin.elapsed());
    if throttled {
        // A lower bound on time holds however slow the machine is: a tenth of a CPU, give or take a period at both ends.
        assert!(took >= used.saturating_mul(8), "{used:?} of CPU in {took:?}");
    }
    cell.set_milli_cpus(2000).await.unwrap();
    python(&cell, burn).await;
    cell.destroy().await;
}

async fn interpreters(bench: Bench) {
    let programs = "import threading, subprocess, multiprocessing, ssl, sqlite3, asyncio, json, tempfile, os, socket\n\
        t=threading.Thread(target=lambda: None); t.start(); t.join()\n\
        assert subprocess.run(['/bin/echo','x'],capture_output=True).stdout==b'x\\n'\n\
        q=multiprocessing.get_context('fork').SimpleQueue(); p=multiprocessing.get_context('fork').Process(target=q.put,args=(1,)); p.start(); p.join(); assert q.get()==1\n\
        sqlite3.connect('/tmp/db').execute('create table t(x)'); asyncio.run(asyncio.sleep(0.001)); ssl.create_default_context(); tempfile.NamedTemporaryFile().close()\n\
        assert os.getlogin is not None and os.path.expanduser('~') == '/home/sbx_user1051'; socket.getaddrinfo('localhost', 80); os.urandom(8); print('ok')";
    let script = "const {Worker,isMainThread}=require('worker_threads'),cp=require('child_process'),fs=require('fs'),os=require('os');\
        let f=(n)=>{let s=0;for(let i=0;i<n;i++)s+=i%7;return s};for(let i=0;i<200;i++)f(20000);\
        fs.writeFileSync('/tmp/x','y');fs.watch('/tmp').close();os.cpus();os.totalmem();cp.execSync('true');\
        const w=new Worker('require(\"worker_threads\").parentPort.postMessage(1)',{eval:true});\
        w.on('message',()=>require('dns').lookup('localhost',()=>require('zlib').gzip('x',()=>console.log('ok'))));";
    for interpreter in support::interpreters() {
        let mut spec = spec();
        spec.memory_mib = 512;
        spec.mounts.extend(interpreter.mount.clone().map(|path| Mount { source: path.clone(), target: path }));
        let cell = bench.sandbox.create(spec).await.unwrap();
        let argv = match interpreter.kind {
            "node" => [interpreter.program.as_str(), "-e", script],
            _ => [interpreter.program.as_str(), "-c", programs],
        };
        let mut process = program(&argv);
        process.env.push(("PYTHONDONTWRITEBYTECODE".into(), "1".into()));
        let outcome = run(&cell, process).await;
        assert_eq!(outcome.stdout, "ok\n", "{}: {outcome:?}", interpreter.program);
        cell.destroy().await;
    }
    let cell = bench.sandbox.create(spec()).await.unwrap();
    let tools = "set -e; for i in 1 2 3; do echo $i; done | sort -r | awk '{s+=$1} END {print s}'; date >/dev/null; ls -l / >/dev/null; \
                 cp -a /etc/passwd /tmp/p; tar cf /tmp/t.tar -C /tmp p; find /tmp >/dev/null; mkfifo /tmp/f; \
                 trap 'echo caught' TERM; kill -TERM $$; if [ -x /usr/bin/curl ]; then curl -sS file:///etc/hostname; else echo sandbox; fi";
    assert_eq!(run(&cell, program(&["/bin/bash", "-c", tools])).await.stdout, "6\ncaught\nsandbox\n");
    cell.destroy().await;
}

async fn tokio_program(bench: Bench) {
    // This very binary: a multi-threaded runtime with timers, child processes, pipes and sockets.
    let code = tempfile::tempdir().unwrap();
    std::fs::copy(std::env::current_exe().unwrap(), code.path().join("bootstrap")).unwrap();
    support::open_to_all(code.path());
    let mut spec = spec();
    spec.mounts.push(Mount { source: code.path().into(), target: "/var/task".into() });
    let cell = bench.sandbox.create(spec).await.unwrap();
    let outcome = run(
        &cell,
        program(&[
            "/var/task/bootstrap",
            "on_sim::",
            "--skip",
            "template::",
            "--skip",
            "memory",
            "--skip",
            "half_made",
        ]),
    )
    .await;
    assert_eq!(outcome.exit, ExitStatus::Code(0), "{}{}", outcome.stdout, outcome.stderr);
    cell.destroy().await;
}

async fn way_out(bench: Bench) {
    let lacking = bench.sandbox.barriers().into_iter().find(|barrier| barrier.name == "network device");
    if let Some(reason) = lacking.and_then(|barrier| barrier.missing) {
        // Without the device, functions that want a network are refused. Many a host keeps it from ordinary users.
        if nix::unistd::geteuid().is_root() {
            support::skip(&reason);
        }
        return;
    }
    let service = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = service.local_addr().unwrap();
    let hole = egress::Hole::at_gateway(address);
    let sandbox =
        support::cells_with(bench.directory.path(), egress::Config { holes: vec![hole], ..egress::Config::default() });
    let mut spec = spec();
    spec.network = Network::Internet;
    let cell = sandbox.create(spec).await.unwrap();
    let code = format!(
        "import socket\nprint(sorted(n for _, n in socket.if_nameindex()))\n\
         s=socket.create_connection(('{}', {}), 5); s.sendall(b'hi'); s.shutdown(1); s.recv(1)\n\
         for a in [('127.0.0.1', {}), ('169.254.169.254', 80)]:\n\
         \x20try: socket.create_connection(a, 5); print('reached', a)\n\
         \x20except OSError: pass",
        hole.inside.ip(),
        hole.inside.port(),
        address.port()
    );
    let served = std::thread::spawn(move || {
        let mut said = String::new();
        std::io::Read::read_to_string(&mut service.accept().unwrap().0, &mut said).unwrap();
        said
    });
    assert_eq!(python(&cell, &code).await, "['lambent0', 'lo']\n");
    assert_eq!(served.join().unwrap(), "hi");
    cell.destroy().await;
}

async fn churn(bench: Bench) {
    let one = |network| {
        let mut spec = spec();
        spec.network = network;
        spec
    };
    // The first makes the nursery and what else stays.
    bench.sandbox.create(one(Network::None)).await.unwrap().destroy().await;
    let before = support::open_here(bench.directory.path());
    for round in 0..60 {
        let cell = bench.sandbox.create(one(Network::None)).await.unwrap();
        if round % 3 == 0 {
            run(&cell, shell("exit 3")).await;
        }
        let id = cell.id();
        if round % 2 == 0 {
            cell.destroy().await;
            assert!(support::traces(&bench, id).is_empty());
        }
    }
    support::until("descriptors are back to what they were", || support::open_here(bench.directory.path()) <= before)
        .await;
}
