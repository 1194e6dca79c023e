//! Ways out of a cell that must be closed, and the barrier that closes each.
//!
//! Every probe is a small program run by the interpreter inside. It prints what it got hold of, each on a line; in an ordinary cell
//! that must be nothing. Then it runs in a cell that lacks one barrier ([`Lowered`]) and must get hold of everything it tries: so a
//! probe that could never succeed, or a barrier that nothing depends on, fails the test.

use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lambent_model::InstanceId;
use lambent_model::function::Network;
use lambent_sandbox::egress::{self, Hole, Resolvers};
use lambent_sandbox::{Cell, CellSpec, Error, ExitStatus, Lowered, Mount, Sandbox, cell};

use crate::support::{self, ByBlank, PYTHON, program, run, shell, spec};
use crate::{clone, template};

/// What each probe begins with.
const PRELUDE: &str = "\
import ctypes, errno, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if result == -1:
        raise OSError(ctypes.get_errno(), 'system call')
    return result
def attempt(name, f):
    try:
        if f() is not False: print(name)
    except OSError:
        pass
";

/// Things of the host that a function must not get hold of.
struct Host {
    directory: tempfile::TempDir,
    loopback: TcpListener,
    abstract_name: String,
    _abstract: UnixListener,
    victim: std::process::Child,
    segment: Segment,
}

impl Host {
    fn new() -> Host {
        let directory = tempfile::tempdir().unwrap();
        support::open_to_all(directory.path());
        let write = |name: &str, mode: u32| {
            let path = directory.path().join(name);
            std::fs::write(&path, name).unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        write("marker", 0o644);
        let code = directory.path().join("code");
        std::fs::create_dir_all(code.join("open")).unwrap();
        support::open_to_all(&code);
        std::fs::set_permissions(code.join("open"), std::fs::Permissions::from_mode(0o777)).unwrap();
        write("code/secret", 0o600);
        // What an unpacked package could hold, were it not refused.
        std::os::unix::fs::symlink(directory.path().join("marker"), code.join("link")).unwrap();
        let abstract_name = InstanceId::random().to_string();
        let address = UnixAddress::from_abstract_name(&abstract_name).unwrap();
        Host {
            loopback: TcpListener::bind("127.0.0.1:0").unwrap(),
            _abstract: UnixListener::bind_addr(&address).unwrap(),
            abstract_name,
            victim: std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap(),
            segment: Segment::new(),
            directory,
        }
    }

    fn marker(&self) -> PathBuf {
        self.directory.path().join("marker")
    }

    /// A cell's specification with the directory `code` as its code.
    fn spec(&self) -> CellSpec {
        let mut spec = spec();
        spec.mounts.push(Mount { source: self.directory.path().join("code"), target: "/var/task".into() });
        spec
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.victim.kill();
        let _ = self.victim.wait();
    }
}

/// A System V segment that everybody may use.
struct Segment {
    key: i32,
    id: i32,
}

impl Segment {
    fn new() -> Segment {
        loop {
            let key =
                i32::from_ne_bytes(InstanceId::random().to_string().as_bytes()[..4].try_into().unwrap()) & 0x7fff_ffff;
            // SAFETY: takes integers only.
            let id = unsafe { libc::shmget(key, 4096, libc::IPC_CREAT | libc::IPC_EXCL | 0o666) };
            if id >= 0 {
                return Segment { key, id };
            }
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: removing takes no buffer.
        unsafe { libc::shmctl(self.id, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

/// An isolating back end that lacks a barrier.
fn cells_without(directory: &Path, barrier: Lowered) -> Arc<dyn Sandbox> {
    let mut config = cell::Config::new(directory);
    config.agent = support::agent_program();
    Arc::new(cell::Cells::without(config, barrier).unwrap())
}

/// Runs a probe and gives the lines it printed.
async fn got(cell: &Arc<dyn Cell>, probe: &str) -> Vec<String> {
    let outcome = run(cell, program(&[PYTHON, "-c", &format!("{PRELUDE}{probe}")])).await;
    assert_eq!((outcome.exit, outcome.stderr.as_str()), (ExitStatus::Code(0), ""), "{outcome:?}");
    outcome.stdout.lines().map(str::to_owned).collect()
}

/// The probe gets hold of nothing in an ordinary cell, and of everything in `expected` where the barrier is lowered.
async fn stopped_by(barrier: Lowered, expected: &[&str], probe: impl FnOnce(&Host) -> String) {
    let Some(bench) = support::cell() else { return };
    let host = Host::new();
    let probe = probe(&host);
    let by_blank: Arc<dyn Sandbox> = Arc::new(ByBlank(bench.sandbox.clone()));
    for sandbox in [&bench.sandbox, &by_blank] {
        let cell = sandbox.create(host.spec()).await.unwrap();
        assert_eq!(got(&cell, &probe).await, Vec::<String>::new(), "a function got hold of something");
        cell.destroy().await;
    }
    let lowered = cells_without(bench.directory.path(), barrier);
    let by_blank: Arc<dyn Sandbox> = Arc::new(ByBlank(lowered.clone()));
    for sandbox in [&lowered, &by_blank] {
        let cell = sandbox.create(host.spec()).await.unwrap();
        assert_eq!(got(&cell, &probe).await, expected, "the probe proves nothing about this barrier");
        cell.destroy().await;
    }
    let directory = bench.directory.path();
    let forked = template::probe(&bench.sandbox, directory, host.spec(), &format!("{PRELUDE}{probe}")).await;
    assert_eq!(forked, Vec::<String>::new(), "a fork got hold of something");
    let cloned = clone::probe(&bench.sandbox, directory, host.spec(), &format!("{PRELUDE}{probe}")).await;
    assert_eq!(cloned, Vec::<String>::new(), "a clone got hold of something");
    // Those that a fork raises for itself; the others are its cell's, or there is no way into a cell without them.
    if matches!(barrier, Lowered::Capabilities | Lowered::Filter | Lowered::ReadOnly | Lowered::Proc | Lowered::Agent) {
        let forked = template::probe(&lowered, directory, host.spec(), &format!("{PRELUDE}{probe}")).await;
        // It may get hold of more than a program, whose capabilities go when it is started.
        assert!(
            expected.iter().all(|name| forked.contains(&(*name).to_owned())),
            "{forked:?}: the probe proves nothing here"
        );
    }
}

/// Whether this test's barrier is one that only root can raise.
fn needs_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("SKIPPED: an ordinary user has no other user and no cgroup to give to a cell");
    }
    is_root
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_the_nodes_user() {
    if needs_root() {
        let probe = "attempt('read', lambda: open('/var/task/secret').read())";
        stopped_by(Lowered::User, &["read"], |_| probe.to_owned()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_of_the_host() {
    stopped_by(Lowered::Processes, &["exists", "listed"], |host| {
        // To be refused is to have found it.
        format!(
            "def exists(pid):\n try: os.kill(pid, 0)\n except PermissionError: pass\n\
             attempt('exists', lambda: exists({victim}))\n\
             attempt('listed', lambda: os.stat('/proc/{victim}'))",
            victim = host.victim.id()
        )
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_itself() {
    let Some(bench) = support::cell() else { return };
    let kill =
        "for pid in {1, os.getppid() or 1}:\n for signal in (15, 11, 9): attempt('', lambda: os.kill(pid, signal))";
    let cell = bench.sandbox.create(spec()).await.unwrap();
    got(&cell, kill).await;
    assert_eq!(run(&cell, shell("echo alive")).await.stdout, "alive\n");
    cell.destroy().await;
    // Where it is not the first process of its own namespace, the same kills it.
    let cell = cells_without(bench.directory.path(), Lowered::Processes).create(spec()).await.unwrap();
    let killer = cell.spawn(program(&[PYTHON, "-c", &format!("{PRELUDE}{kill}")])).await.unwrap();
    let _ = killer.exit.await;
    support::until_async("the agent is dead", || async {
        matches!(cell.spawn(shell("true")).await, Err(Error::Ended))
    })
    .await;
    cell.destroy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_and_environment_of_the_agent() {
    stopped_by(Lowered::Agent, &["maps", "mem", "environ", "fd", "root"], |_| {
        "agent = f'/proc/{os.getppid() or 1}/'\n\
         first = lambda: int(open(agent + 'maps').readline().split('-')[0], 16)\n\
         attempt('maps', lambda: open(agent + 'maps').read() != '')\n\
         attempt('mem', lambda: os.pread(os.open(agent + 'mem', os.O_RDONLY), 4, first()))\n\
         attempt('environ', lambda: open(agent + 'environ').read())\n\
         attempt('fd', lambda: os.listdir(agent + 'fd'))\n\
         attempt('root', lambda: os.listdir(agent + 'root/'))"
            .to_owned()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_on_the_hosts_loopback_and_abstract_sockets() {
    stopped_by(Lowered::Network, &["tcp", "abstract"], |host| {
        format!(
            "attempt('tcp', lambda: socket.create_connection(('127.0.0.1', {}), 5))\n\
             attempt('abstract', lambda: socket.socket(socket.AF_UNIX).connect('\\x00{}'))",
            host.loopback.local_addr().unwrap().port(),
            host.abstract_name,
        )
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_memory_of_the_host() {
    stopped_by(Lowered::Ipc, &["segment"], |host| {
        format!("attempt('segment', lambda: call({}, {}, 0, 0))", libc::SYS_shmget, host.segment.key)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hosts_name() {
    let name = nix::unistd::gethostname().unwrap().into_string().unwrap();
    stopped_by(Lowered::Hostname, &["name"], |_| format!("attempt('name', lambda: os.uname().nodename == {name:?})"))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_among_the_hosts_cgroups_it_is() {
    if needs_root() {
        stopped_by(Lowered::Cgroup, &["path"], |_| {
            "paths = {line.rstrip('\\n').split(':', 2)[2] for line in open('/proc/self/cgroup')}\n\
             attempt('path', lambda: paths - {'/'} != set())"
                .to_owned()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_the_host() {
    let tricks = ["plain", "own root", "link", "climb", "hard link", "descriptor", "cgroups", "devices"];
    stopped_by(Lowered::Root, &tricks, |host| {
        format!(
            "marker = {marker:?}\n\
             mine = '/tmp/{name}'\n\
             def by_link(): os.symlink(marker, mine); return by(mine)\n\
             def by(path):\n\
             \x20try: return open(path).read() == 'marker'\n\
             \x20finally: os.path.islink(mine) and os.unlink(mine)\n\
             # Linking a file of another user is refused by name only after it was found.\n\
             def hard():\n\
             \x20try: os.link(marker, mine); os.unlink(mine)\n\
             \x20except PermissionError: return True\n\
             attempt('plain', lambda: by(marker))\n\
             attempt('own root', lambda: by('/proc/self/root' + marker))\n\
             attempt('link', by_link)\n\
             attempt('climb', lambda: by('/proc/self/cwd' + '/..' * 30 + marker))\n\
             attempt('hard link', hard)\n\
             attempt('descriptor', lambda: os.stat(marker, dir_fd=os.open('/', os.O_RDONLY)))\n\
             attempt('cgroups', lambda: os.listdir('/sys/fs/cgroup') != [])\n\
             attempt('devices', lambda: os.stat('/dev/ptmx'))",
            marker = host.marker().to_str().unwrap(),
            name = InstanceId::random(),
        )
    })
    .await;
}

/// The package's own links lead nowhere: they are followed inside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_in_the_code_do_not_lead_out() {
    let Some(bench) = support::cell() else { return };
    let host = Host::new();
    let cell = bench.sandbox.create(host.spec()).await.unwrap();
    let probe = "attempt('target', lambda: open('/var/task/link').read())\n\
                 attempt('parent', lambda: os.stat('/var/task/../marker'))\n\
                 attempt('itself', lambda: os.readlink('/var/task/link'))";
    assert_eq!(got(&cell, probe).await, ["itself"]);
    cell.destroy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_code_that_other_cells_run() {
    stopped_by(Lowered::ReadOnly, &["make", "change"], |_| {
        "attempt('make', lambda: open('/var/task/open/new', 'w').close())\n\
         attempt('change', lambda: os.truncate('/var/task/open/new', 100))"
            .to_owned()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kernels_state_in_proc() {
    stopped_by(Lowered::Proc, &["symbols", "interrupts", "settings", "memory of the host"], |_| {
        "attempt('symbols', lambda: open('/proc/kallsyms').read(1) != '')\n\
         attempt('interrupts', lambda: open('/proc/interrupts').read(1) != '')\n\
         attempt('settings', lambda: os.statvfs('/proc/sys/kernel/core_pattern').f_flag & os.ST_RDONLY == 0)\n\
         attempt('memory of the host', lambda: int(open('/proc/meminfo').readline().split()[1]) != 256 << 10)\n\
         for name in ('kernel/core_pattern', 'kernel/modprobe', 'vm/overcommit_memory', 'net/ipv4/ip_forward'):\n\
         \x20attempt(name, lambda: open('/proc/sys/' + name, 'r+').close())\n\
         trigger = '/proc/sysrq-trigger'\n\
         # What covers it takes anything, as /dev/null does.\n\
         real = lambda: os.stat(trigger).st_dev == os.stat('/proc/self').st_dev\n\
         attempt('trigger', lambda: real() and open(trigger, 'w').write('h'))"
            .to_owned()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn privileges() {
    stopped_by(Lowered::Capabilities, &["capabilities"], |_| {
        "status = dict(line.split(':\\t', 1) for line in open('/proc/self/status') if ':\\t' in line)\n\
         attempt('capabilities', lambda: any(int(status['Cap' + s], 16) for s in ('Inh', 'Prm', 'Eff', 'Bnd', 'Amb')))\n\
         # Installing the filter sees to this as well.\n\
         attempt('new privileges', lambda: status['NoNewPrivs'].strip() == '0')\n\
         attempt('raw socket', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))\n\
         attempt('device', lambda: os.mknod('/tmp/memory', 0o20666, os.makedev(1, 1)))\n\
         attempt('another user', lambda: os.setuid(0))"
            .to_owned()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_of_the_kernel_that_functions_have_no_use_for() {
    let open = ["key", "keyring", "trace", "read memory", "device events", "namespaces", "personality"];
    stopped_by(Lowered::Filter, &open, |_| {
        format!(
            "attempt('key', lambda: call({add_key}, b'user', b'lambent', b'x', 1, -2))\n\
             attempt('keyring', lambda: call({keyctl}, 0, -3, 0))\n\
             attempt('trace', lambda: call({ptrace}, 0, 0, 0, 0))\n\
             own = (ctypes.c_ulong * 2)(ctypes.addressof(ctypes.create_string_buffer(8)), 8)\n\
             attempt('read memory', lambda: call({readv}, os.getpid(), own, 1, own, 1, 0))\n\
             attempt('device events', lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15))\n\
             attempt('namespaces', lambda: call({unshare}, 0x10000000))\n\
             attempt('personality', lambda: call({personality}, 0x0040000))",
            add_key = libc::SYS_add_key,
            keyctl = libc::SYS_keyctl,
            ptrace = libc::SYS_ptrace,
            readv = libc::SYS_process_vm_readv,
            unshare = libc::SYS_unshare,
            personality = libc::SYS_personality,
        )
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptors_of_the_agent() {
    stopped_by(Lowered::Descriptors, &["inherited"], |_| {
        "list = os.open('/proc/self/fd', os.O_RDONLY)\n\
         numbers = {int(name) for name in os.listdir(list)} - {0, 1, 2, 62, list}\n\
         attempt('inherited', lambda: any(os.path.lexists(f'/proc/self/fd/{n}') for n in numbers))"
            .to_owned()
    })
    .await;
}

/// A back end whose cells reach the world as `egress` says.
fn cells_with(directory: &Path, egress: egress::Config) -> Arc<dyn Sandbox> {
    let mut config = cell::Config::new(directory);
    config.agent = support::agent_program();
    config.egress = Arc::new(egress);
    Arc::new(cell::Cells::new(config).unwrap())
}

/// Whether cells can have a network here.
fn has_device(bench: &support::Bench) -> bool {
    let missing = bench.sandbox.barriers().into_iter().find_map(|barrier| match barrier.name {
        "network device" => barrier.missing,
        _ => None,
    });
    if let Some(reason) = &missing {
        support::skip(reason);
    }
    missing.is_none()
}

/// Addresses of this host other than loopback and link-local ones, which cells cannot even try.
fn own_addresses() -> Vec<String> {
    let interfaces = nix::ifaddrs::getifaddrs().unwrap();
    let addresses = interfaces.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()));
    addresses
        .filter(|address| !address.is_loopback() && !address.is_link_local())
        .map(|address| address.to_string())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_of_the_host_through_the_way_out() {
    let Some(bench) = support::cell() else { return };
    if !has_device(&bench) {
        return;
    }
    let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = everywhere.local_addr().unwrap().port();
    let mut spec = spec();
    spec.network = Network::Internet;
    let mut targets = own_addresses();
    targets.extend(["127.0.0.1", "192.0.0.1", "169.254.169.254", "0.0.0.0"].map(str::to_owned));
    let probe: String = targets
        .iter()
        .map(|target| format!("attempt('{target}', lambda: socket.create_connection(('{target}', {port}), 20))\n"))
        .collect();
    let cell = bench.sandbox.create(spec.clone()).await.unwrap();
    assert_eq!(got(&cell, &probe).await, Vec::<String>::new());
    cell.destroy().await;
    everywhere.set_nonblocking(true).unwrap();
    assert_eq!(everywhere.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "nothing arrived");
    // The policy is what stops it: with a hole for each, all that leave the cell arrive.
    let leaving: Vec<_> =
        targets.iter().filter(|target| !["127.0.0.1", "0.0.0.0"].contains(&target.as_str())).collect();
    let outside = format!("127.0.0.1:{port}").parse().unwrap();
    let hole = |target: &&String| Hole { inside: format!("{target}:{port}").parse().unwrap(), outside };
    let open = egress::Config { holes: leaving.iter().map(hole).collect(), ..egress::Config::default() };
    let cell = cells_with(bench.directory.path(), open).create(spec).await.unwrap();
    assert_eq!(got(&cell, &probe).await, leaving.into_iter().cloned().collect::<Vec<_>>());
    cell.destroy().await;
}

/// Answers every question for an IPv4 address with 203.0.113.9, and every other with nothing.
fn name_server() -> std::net::SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let question_end = 12 + buffer[12..length].iter().position(|&byte| byte == 0).unwrap() + 5;
            let is_v4 = buffer[question_end - 4..question_end - 2] == [0, 1];
            let mut answer = buffer[..2].to_vec();
            answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_v4), 0, 0, 0, 0]);
            answer.extend(&buffer[12..question_end]);
            if is_v4 {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 9]);
            }
            socket.send_to(&answer, from).unwrap();
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_resolved_inside_a_cell() {
    let Some(bench) = support::cell() else { return };
    if !has_device(&bench) {
        return;
    }
    let config = egress::Config { resolvers: Resolvers::Fixed(vec![name_server()]), ..egress::Config::default() };
    let sandbox = cells_with(bench.directory.path(), config);
    let mut spec = spec();
    spec.network = Network::Internet;
    let cell = sandbox.create(spec).await.unwrap();
    let resolved = got(&cell, "print(socket.gethostbyname('service.example'))").await;
    assert_eq!(resolved, ["203.0.113.9"]);
    cell.destroy().await;
}
