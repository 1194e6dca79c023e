//! A real device in a network namespace of its own, clients inside it, servers outside.
//!
//! Making namespaces needs root; without it these tests say so and pass. As root they never skip.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};

use super::{Config, Handle, Hole, Limits, Resolvers, net, spawn};

/// Long enough that only a hang reaches it.
const HANG: Duration = Duration::from_secs(60);

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace of its own.
#[derive(Clone)]
struct Namespace {
    jobs: mpsc::Sender<Job>,
    thread: i32,
}

impl Namespace {
    /// None, with a line on standard error, for an ordinary user.
    fn new() -> Option<Namespace> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: making a network namespace needs root");
            return None;
        }
        let (jobs, receiver) = mpsc::channel::<Job>();
        let (ready, thread) = mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may make network namespaces");
            ready.send(nix::unistd::gettid().as_raw()).unwrap();
            receiver.into_iter().for_each(|job| job());
        });
        Some(Namespace { jobs, thread: thread.recv().expect("the namespace was made") })
    }

    /// Runs `f` inside; sockets it makes stay there wherever they are used later.
    fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        self.jobs.send(Box::new(move || sender.send(f()).unwrap())).unwrap();
        receiver.recv().expect("the job inside the namespace panicked")
    }

    fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        let stream = self.run(move || TcpStream::connect(address))?;
        stream.set_read_timeout(Some(HANG))?;
        stream.set_write_timeout(Some(HANG))?;
        Ok(stream)
    }

    /// A datagram socket connected to `peer`.
    fn datagrams(&self, peer: SocketAddr) -> UdpSocket {
        let socket = self.run(move || {
            let any: IpAddr = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((any, 0)).unwrap();
            socket.connect(peer).unwrap();
            socket
        });
        socket.set_read_timeout(Some(HANG)).unwrap();
        socket
    }

    fn device(&self) -> OwnedFd {
        self.run(|| net::open().expect("the device can be made and configured"))
    }

    /// The `ip` command, run inside.
    fn ip(&self, arguments: &str) {
        let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        self.run(move || {
            let output = Command::new("ip").args(&arguments).output().expect("iproute2 is installed");
            assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        });
    }
}

/// A cell's network and the service for it.
struct Link {
    cell: Namespace,
    runtime: tokio::runtime::Runtime,
    _handle: Handle,
}

impl Link {
    fn new(config: Config) -> Option<Link> {
        let cell = Namespace::new()?;
        let device = cell.device();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let handle = runtime.block_on(async { spawn(device, Arc::new(config)) }).unwrap();
        Some(Link { cell, runtime, _handle: handle })
    }

    /// With a hole to a server on this host's loopback, and its address inside.
    fn to(server: &TcpListener, limits: Limits) -> Option<(Link, SocketAddr)> {
        let hole = Hole::at_gateway(server.local_addr().unwrap());
        Some((Link::new(Config { holes: vec![hole], limits, ..Config::default() })?, hole.inside))
    }
}

fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// Bytes that show any loss, repetition or exchange.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn each_half_of_a_connection_closes_on_its_own() {
    let server = listen();
    let Some((link, inside)) = Link::to(&server, Limits::default()) else { return };
    let served = thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        let request = read_all(&mut stream);
        stream.write_all(&pattern(1 << 20)).unwrap();
        request
    });
    let mut client = link.cell.connect(inside).unwrap();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(read_all(&mut client) == pattern(1 << 20));
    assert_eq!(served.join().unwrap(), b"question");
}

#[test]
fn the_link_carries_both_versions_of_ip() {
    let tcp = listen();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(HANG)).unwrap();
    let inside = |port| SocketAddr::new(net::GATEWAY_V6.into(), port);
    let outside = [tcp.local_addr().unwrap(), udp.local_addr().unwrap()];
    let holes = outside.map(|outside| Hole { inside: inside(outside.port()), outside }).to_vec();
    let Some(link) = Link::new(Config { holes: holes.clone(), ..Config::default() }) else { return };
    // The kernel takes an address of version 6 into use a moment after it was given.
    let begun = Instant::now();
    let mut client = loop {
        match link.cell.connect(holes[0].inside) {
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable && begun.elapsed() < HANG => thread::yield_now(),
            connected => break connected.unwrap(),
        }
    };
    client.write_all(b"six").unwrap();
    let mut bytes = [0; 3];
    tcp.accept().unwrap().0.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"six");
    let socket = link.cell.datagrams(holes[1].inside);
    socket.send(b"six").unwrap();
    let (length, from) = udp.recv_from(&mut bytes).unwrap();
    udp.send_to(&bytes[..length], from).unwrap();
    assert_eq!(socket.recv(&mut bytes).unwrap(), 3);
    // Denied over IPv6 as well, at once.
    for denied in ["[fe80::1]:80", "[64:ff9b::7f00:1]:80"] {
        assert!(link.cell.connect(denied.parse().unwrap()).is_err(), "{denied}");
    }
}

#[test]
fn the_server_may_close_its_half_first() {
    let server = listen();
    let Some((link, inside)) = Link::to(&server, Limits::default()) else { return };
    let served = thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        stream.write_all(b"greeting").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        read_all(&mut stream)
    });
    let mut client = link.cell.connect(inside).unwrap();
    assert_eq!(read_all(&mut client), b"greeting");
    client.write_all(b"late word").unwrap();
    drop(client);
    assert_eq!(served.join().unwrap(), b"late word");
}

#[test]
fn large_transfers_arrive_whole_in_both_directions_at_once() {
    const SIZE: usize = 32 << 20;
    let server = listen();
    let Some((link, inside)) = Link::to(&server, Limits::default()) else { return };
    let exchange = |stream: TcpStream| {
        let mut writer = stream.try_clone().unwrap();
        let sender = thread::spawn(move || {
            writer.write_all(&pattern(SIZE)).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut stream = stream;
        let is_whole = read_all(&mut stream) == pattern(SIZE);
        sender.join().unwrap();
        is_whole
    };
    let served = thread::spawn(move || exchange(server.accept().unwrap().0));
    assert!(exchange(link.cell.connect(inside).unwrap()));
    assert!(served.join().unwrap());
}

#[test]
fn a_slow_reader_stops_the_writer_instead_of_filling_memory() {
    const FAR_TOO_MUCH: usize = 64 << 20;
    let server = listen();
    let Some((link, inside)) = Link::to(&server, Limits::default()) else { return };
    let mut client = link.cell.connect(inside).unwrap();
    let (mut accepted, _) = server.accept().unwrap();
    client.set_nonblocking(true).unwrap();
    let block = pattern(1 << 16);
    let mut written = 0;
    loop {
        match client.write(&block[written % block.len()..]) {
            Ok(bytes) => written += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut ready = [PollFd::new(client.as_fd(), PollFlags::POLLOUT)];
                // Room appears while buffers on the way fill; none for this long means they have.
                if poll(&mut ready, PollTimeout::from(1000_u16)).unwrap() == 0 {
                    break;
                }
            }
            Err(error) => panic!("{error}"),
        }
        assert!(written < FAR_TOO_MUCH, "nothing holds the writer back");
    }
    drop(client);
    assert_eq!(read_all(&mut accepted).len(), written);
}

#[test]
fn many_connections_at_once_and_no_more_than_the_limit() {
    const FLOWS: usize = 100;
    let server = listen();
    let limits = Limits { tcp_flows: FLOWS, ..Limits::default() };
    let Some((link, inside)) = Link::to(&server, limits) else { return };
    thread::spawn(move || {
        for stream in server.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut byte = [0];
                while stream.read(&mut byte).is_ok_and(|read| read == 1) {
                    stream.write_all(&byte).unwrap();
                }
            });
        }
    });
    let mut clients: Vec<TcpStream> = (0..FLOWS).map(|_| link.cell.connect(inside).unwrap()).collect();
    assert_eq!(link.cell.connect(inside).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    for (i, client) in clients.iter_mut().enumerate() {
        client.write_all(&[i as u8]).unwrap();
    }
    for (i, client) in clients.iter_mut().enumerate() {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [i as u8]);
    }
    // A connection that ends gives its place back, ports used again included.
    drop(clients);
    for _ in 0..3 * FLOWS {
        let mut client = loop {
            match link.cell.connect(inside) {
                Ok(client) => break client,
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
            }
        };
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn a_refusal_and_a_reset_reach_the_function_as_such() {
    let server = listen();
    let closed = listen();
    let holes = [&server, &closed].map(|listener| Hole::at_gateway(listener.local_addr().unwrap()));
    drop(closed);
    let Some(link) = Link::new(Config { holes: holes.to_vec(), ..Config::default() }) else { return };
    assert_eq!(link.cell.connect(holes[1].inside).unwrap_err().kind(), ErrorKind::ConnectionRefused);

    let mut client = link.cell.connect(holes[0].inside).unwrap();
    let (accepted, _) = server.accept().unwrap();
    client.write_all(b"never read").unwrap();
    // Closing with unread bytes resets.
    accepted.set_read_timeout(Some(HANG)).unwrap();
    accepted.peek(&mut [0]).unwrap();
    drop(accepted);
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);

    let client = link.cell.connect(holes[0].inside).unwrap();
    let (mut accepted, _) = server.accept().unwrap();
    accepted.write_all(b"never read").unwrap();
    accepted.set_read_timeout(Some(HANG)).unwrap();
    client.peek(&mut [0]).unwrap();
    drop(client);
    assert_eq!(accepted.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn silence_ends_a_connection() {
    let server = listen();
    let limits = Limits { tcp_idle: Duration::from_millis(50), ..Limits::default() };
    let Some((link, inside)) = Link::to(&server, limits) else { return };
    let mut client = link.cell.connect(inside).unwrap();
    let (mut accepted, _) = server.accept().unwrap();
    accepted.set_read_timeout(Some(HANG)).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(accepted.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// An address of this host other than loopback, as other machines would use it.
fn own_address() -> Option<IpAddr> {
    let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
    probe.connect("192.0.2.255:9").or_else(|_| probe.connect("198.51.100.1:9")).ok()?;
    Some(probe.local_addr().unwrap().ip())
}

#[test]
fn services_of_the_host_are_refused_at_once() {
    let Some(link) = Link::new(Config::default()) else { return };
    let tcp = TcpListener::bind("0.0.0.0:0").unwrap();
    let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    tcp.set_nonblocking(true).unwrap();
    udp.set_nonblocking(true).unwrap();
    let mut addresses: Vec<IpAddr> = vec![Ipv4Addr::new(169, 254, 169, 254).into(), net::GATEWAY_V4.into()];
    addresses.extend(own_address());
    for address in addresses {
        let refused = link.cell.connect(SocketAddr::new(address, tcp.local_addr().unwrap().port()));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused, "{address}");
        let socket = link.cell.datagrams(SocketAddr::new(address, udp.local_addr().unwrap().port()));
        socket.send(b"anyone?").unwrap();
        assert_eq!(socket.recv(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{address}");
    }
    assert_eq!(tcp.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(udp.recv(&mut [0; 16]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// A resolver that answers each query with itself, reversed behind its id, over UDP and TCP.
fn resolver() -> SocketAddr {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            let mut answer = buffer[..length].to_vec();
            answer[2..].reverse();
            // An answer to another question comes first and must not be believed.
            udp.send_to(&[!answer[0], answer[1], 0], from).unwrap();
            udp.send_to(&answer, from).unwrap();
        }
    });
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let mut answer = read_all(&mut stream);
            answer.reverse();
            stream.write_all(&answer).unwrap();
        }
    });
    address
}

#[test]
fn names_are_resolved_by_the_hosts_resolvers() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let gone = {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap()
    };
    let resolvers = Resolvers::Fixed(vec![gone, silent.local_addr().unwrap(), resolver()]);
    let limits = Limits { dns_timeout: Duration::from_millis(200), ..Limits::default() };
    let Some(link) = Link::new(Config { resolvers, limits, ..Config::default() }) else { return };
    let gateway = SocketAddr::new(net::GATEWAY_V4.into(), 53);
    let socket = link.cell.datagrams(gateway);
    for id in [1, 2] {
        socket.send(&[0, id, b'a', b'b', b'c']).unwrap();
        let mut answer = [0; 16];
        let length = socket.recv(&mut answer).unwrap();
        assert_eq!(answer[..length], [0, id, b'c', b'b', b'a']);
    }
    let mut stream = link.cell.connect(gateway).unwrap();
    stream.write_all(b"tcp").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut stream), b"pct");
}

#[test]
fn datagrams_pass_both_ways_through_a_flow_that_expires() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(HANG)).unwrap();
    let hole = Hole::at_gateway(server.local_addr().unwrap());
    let limits = Limits { udp_flows: 1, udp_idle: Duration::from_millis(100), ..Limits::default() };
    let Some(link) = Link::new(Config { holes: vec![hole], limits, ..Config::default() }) else { return };
    let first = link.cell.datagrams(hole.inside);
    let large = pattern(60_000);
    let mut buffer = vec![0; 65_536];
    for payload in [&b"a"[..], b"", &large] {
        first.send(payload).unwrap();
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        assert!(buffer[..length] == *payload);
        server.send_to(payload, from).unwrap();
        assert_eq!(first.recv(&mut buffer).unwrap(), payload.len());
    }
    // The only place is taken until silence frees it.
    let second = link.cell.datagrams(hole.inside);
    second.send(b"too many").unwrap();
    assert_eq!(second.recv(&mut buffer).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    server.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    while server.recv(&mut buffer).is_err() {
        let _ = second.send(b"again");
    }
}

#[test]
fn a_real_network_is_reached_but_not_the_host_itself() {
    let (Some(host), Some(world), Some(cell)) = (Namespace::new(), Namespace::new(), Namespace::new()) else { return };
    host.ip("link set lo up");
    host.ip(&format!("link add ve0 type veth peer name ve1 netns {}", world.thread));
    host.ip("addr add 203.0.113.1/24 dev ve0");
    host.ip("link set ve0 up");
    host.ip("route add local 198.51.100.0/24 dev lo");
    world.ip("addr add 203.0.113.2/24 dev ve1");
    world.ip("link set ve1 up");
    let device = cell.device();
    let (started, starting) = mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = {
        let host = host.clone();
        thread::spawn(move || {
            host.run(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let handle = spawn(device, Arc::new(Config::default())).unwrap();
                    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
                    started.send(listener.local_addr().unwrap().port()).unwrap();
                    stopped.await.unwrap();
                    handle.shutdown().await;
                    listener.set_nonblocking(true).unwrap();
                    listener.accept().map(|_| ()).unwrap_err().kind()
                })
            })
        })
    };
    let port_of_host = starting.recv().unwrap();
    let server = world.run(|| TcpListener::bind("203.0.113.2:0").unwrap());
    let address = server.local_addr().unwrap();
    let echoed = thread::spawn(move || {
        let (mut stream, from) = server.accept().unwrap();
        let bytes = read_all(&mut stream);
        stream.write_all(&bytes).unwrap();
        from
    });
    let mut client = cell.connect(address).unwrap();
    client.write_all(b"hello").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client), b"hello");
    assert_eq!(echoed.join().unwrap().ip(), "203.0.113.1".parse::<IpAddr>().unwrap());
    for own in ["203.0.113.1", "203.0.113.255", "198.51.100.9"] {
        let refused = cell.connect(SocketAddr::new(own.parse().unwrap(), port_of_host));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused, "{own}");
    }
    stop.send(()).unwrap();
    assert_eq!(served.join().unwrap(), ErrorKind::WouldBlock, "something reached the host");
}

#[test]
fn shutting_down_ends_every_connection() {
    let server = listen();
    let Some((link, inside)) = Link::to(&server, Limits::default()) else { return };
    let _client = link.cell.connect(inside).unwrap();
    let (mut accepted, _) = server.accept().unwrap();
    accepted.set_read_timeout(Some(HANG)).unwrap();
    let Link { runtime, _handle: handle, .. } = link;
    runtime.block_on(handle.shutdown());
    assert!(matches!(accepted.read(&mut [0]), Ok(0) | Err(_)));
}
