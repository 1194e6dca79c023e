//! The task that owns one cell's device: it reads packets, judges new flows, and keeps the bounds.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::policy::{Denied, Verdict};
use super::stack::Shared;
use super::wire::{self, Kind, Pair};
use super::{Config, dns, flow, host, net, udp};

/// Packets read from the device before the stack gets to answer.
const BATCH: usize = 32;
/// Replies of UDP flows waiting for the device.
const REPLIES: usize = 256;
/// How long to sleep where the stack waits for nothing.
const IDLE: Duration = Duration::from_secs(3600);

pub(super) struct Service {
    device: AsyncFd<OwnedFd>,
    config: Arc<Config>,
    shared: Arc<Shared>,
    tcp: HashMap<Pair, Tcp>,
    udp: HashMap<Pair, mpsc::Sender<Vec<u8>>>,
    queries: usize,
    replies: (mpsc::Sender<Vec<u8>>, mpsc::Receiver<Vec<u8>>),
    tasks: JoinSet<Done>,
}

/// Where a TCP flow is: `Connecting` until the destination has answered, then `Open` until both sides are done.
enum Tcp {
    /// The cell's SYN is held; its repetitions are dropped.
    Connecting {
        syn: Vec<u8>,
    },
    Open,
}

/// What a task of the service came to.
enum Done {
    Connected(Pair, Result<TcpStream, Refusal>),
    TcpEnded(Pair),
    UdpEnded(Pair),
    UdpRefused { pair: Pair, packet: Vec<u8>, refusal: Refusal },
    Answered { pair: Pair, answer: Option<Vec<u8>> },
}

/// Why a flow does not come about.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the policy denies it: {}", .0.label())]
    Denied(Denied),
    #[error("this host's addresses cannot be read")]
    Unknown(#[source] io::Error),
    #[error("the cell has too many flows")]
    TooMany,
    #[error("the destination cannot be reached")]
    Unreachable(#[source] io::Error),
}

impl Service {
    pub fn new(device: OwnedFd, config: Arc<Config>) -> io::Result<Service> {
        let flags = nix::fcntl::fcntl(&device, nix::fcntl::FcntlArg::F_GETFL)?;
        let flags = nix::fcntl::OFlag::from_bits_retain(flags) | nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&device, nix::fcntl::FcntlArg::F_SETFL(flags))?;
        // SAFETY: the descriptor is owned by what is registered, so it stays open, and the same file, for as long.
        let device = unsafe { AsyncFd::register(device) }?;
        Ok(Service {
            device,
            config,
            shared: Arc::new(Shared::new()),
            tcp: HashMap::new(),
            udp: HashMap::new(),
            queries: 0,
            replies: mpsc::channel(REPLIES),
            tasks: JoinSet::new(),
        })
    }

    /// Runs until the device is gone.
    pub async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut buffer = vec![0; usize::from(net::MTU)];
        loop {
            let delay = self.shared.lock().poll().unwrap_or(IDLE);
            let (has_room, has_outgoing) = match self.flush() {
                Ok(state) => state,
                Err(error) => return tracing::debug!(%error, "the device of a cell is gone"),
            };
            let turn = tokio::select! {
                // A device that takes no packets is not asked for more.
                turn = self.device.readable(), if has_room => turn.map(|mut ready| { ready.retain_ready(); Turn::Read }),
                turn = self.device.writable(), if has_outgoing => turn.map(|mut ready| { ready.retain_ready(); Turn::Again }),
                Some(packet) = self.replies.1.recv(), if has_room => Ok(Turn::Reply(packet)),
                Some(done) = self.tasks.join_next() => Ok(done.map_or(Turn::Again, Turn::Done)),
                () = shared.wake.notified() => Ok(Turn::Again),
                () = sleep(delay) => Ok(Turn::Again),
            };
            let read = match turn {
                Ok(Turn::Read) => self.read(&mut buffer),
                Ok(Turn::Reply(packet)) => {
                    self.shared.lock().send(packet);
                    Ok(())
                }
                Ok(Turn::Done(done)) => {
                    self.done(done);
                    Ok(())
                }
                Ok(Turn::Again) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = read {
                return tracing::debug!(%error, "the device of a cell is gone");
            }
        }
    }

    /// Writes what is queued for the cell; says whether more may be queued and whether some still is.
    fn flush(&mut self) -> io::Result<(bool, bool)> {
        let mut stack = self.shared.lock();
        while let Some(packet) = stack.outgoing() {
            let written =
                self.device.try_io(tokio::io::Interest::WRITABLE, |device| Ok(nix::unistd::write(device, packet)?));
            match written {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The kernel has no memory for this packet, or does not like it: lost, as packets may be.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM | libc::EINVAL)) => {}
                Err(error) => return Err(error),
                Ok(_) => {}
            }
            stack.sent();
        }
        Ok((stack.has_room(), stack.outgoing().is_some()))
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..BATCH {
            let read =
                self.device.try_io(tokio::io::Interest::READABLE, |device| Ok(nix::unistd::read(device, buffer)?));
            match read {
                Ok(length) => self.packet(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn packet(&mut self, packet: &[u8]) {
        match wire::classify(packet) {
            None => metrics::counter!("lambent_egress_dropped_packets_total").increment(1),
            Some(Kind::Segment) => self.shared.lock().push(packet.to_vec()),
            Some(Kind::Syn(pair)) => self.syn(pair, packet),
            Some(Kind::Datagram(pair, payload)) if is_dns(pair) => self.query(pair, payload),
            Some(Kind::Datagram(pair, payload)) => self.datagram(pair, packet, payload),
        }
    }

    fn syn(&mut self, pair: Pair, packet: &[u8]) {
        let flows = self.tcp.len();
        match self.tcp.entry(pair) {
            Entry::Occupied(flow) => {
                if let Tcp::Open = flow.get() {
                    // Our SYN-ACK was lost, or the cell has lost its mind; the stack knows what to say.
                    self.shared.lock().push(packet.to_vec());
                }
            }
            Entry::Vacant(_) if flows >= self.config.limits.tcp_flows => {
                self.refuse("tcp", pair, packet.to_vec(), &Refusal::TooMany);
            }
            Entry::Vacant(place) => {
                place.insert(Tcp::Connecting { syn: packet.to_vec() });
                let config = Arc::clone(&self.config);
                self.tasks.spawn(async move { Done::Connected(pair, connect(pair, &config).await) });
            }
        }
    }

    fn query(&mut self, pair: Pair, payload: &[u8]) {
        if self.queries >= self.config.limits.dns_queries {
            metrics::counter!("lambent_egress_dropped_packets_total").increment(1);
            return;
        }
        self.queries += 1;
        let (query, config) = (payload.to_vec(), Arc::clone(&self.config));
        self.tasks.spawn(async move {
            let resolvers = host::resolvers(&config.resolvers);
            Done::Answered { pair, answer: dns::ask(&query, &resolvers, config.limits.dns_timeout).await }
        });
    }

    fn datagram(&mut self, pair: Pair, packet: &[u8], payload: &[u8]) {
        if let Some(flow) = self.udp.get(&pair) {
            // Full or just ended: lost, as datagrams may be.
            let _ = flow.try_send(payload.to_vec());
            return;
        }
        if self.udp.len() >= self.config.limits.udp_flows {
            return self.refuse("udp", pair, packet.to_vec(), &Refusal::TooMany);
        }
        let (sender, receiver) = mpsc::channel(udp::WAITING);
        // The channel is empty and its receiver alive.
        let _ = sender.try_send(payload.to_vec());
        self.udp.insert(pair, sender);
        let (config, packet, replies) = (Arc::clone(&self.config), packet.to_vec(), self.replies.0.clone());
        self.tasks.spawn(async move {
            let socket = match permitted(pair, &config) {
                Ok(destination) => udp::connect(destination).await.map_err(Refusal::Unreachable),
                Err(refusal) => Err(refusal),
            };
            match socket {
                Ok(socket) => {
                    flow_started("udp");
                    udp::relay(pair, socket, receiver, replies, config.limits.udp_idle).await;
                    Done::UdpEnded(pair)
                }
                Err(refusal) => Done::UdpRefused { pair, packet, refusal },
            }
        });
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Connected(pair, outcome) => self.connected(pair, outcome),
            Done::TcpEnded(pair) => {
                self.tcp.remove(&pair);
            }
            Done::UdpEnded(pair) => {
                self.udp.remove(&pair);
            }
            Done::UdpRefused { pair, packet, refusal } => {
                self.udp.remove(&pair);
                self.refuse("udp", pair, packet, &refusal);
            }
            Done::Answered { pair, answer } => {
                self.queries = self.queries.saturating_sub(1);
                if let Some(packet) = answer.and_then(|answer| wire::reply(pair, &answer)) {
                    self.shared.lock().send(packet);
                }
            }
        }
    }

    fn connected(&mut self, pair: Pair, outcome: Result<TcpStream, Refusal>) {
        let Some(Tcp::Connecting { syn }) = self.tcp.remove(&pair) else { return };
        let stream = match outcome {
            Ok(stream) => stream,
            Err(refusal) => return self.refuse("tcp", pair, syn, &refusal),
        };
        let Some(handle) = self.shared.lock().accept(pair, syn) else { return };
        flow_started("tcp");
        self.tcp.insert(pair, Tcp::Open);
        let flow = flow::Flow::new(Arc::clone(&self.shared), handle, pair);
        let idle = self.config.limits.tcp_idle;
        self.tasks.spawn(async move {
            flow::relay(flow, stream, idle).await;
            Done::TcpEnded(pair)
        });
    }

    fn refuse(&mut self, protocol: &'static str, pair: Pair, packet: Vec<u8>, refusal: &Refusal) {
        let reason = match refusal {
            Refusal::Denied(denied) => denied.label(),
            Refusal::Unknown(_) => "unknown",
            Refusal::TooMany => "too-many",
            Refusal::Unreachable(_) => "unreachable",
        };
        metrics::counter!("lambent_egress_denied_total", "protocol" => protocol, "reason" => reason).increment(1);
        tracing::debug!(protocol, destination = %pair.outside, reason, "flow of a cell refused");
        self.shared.lock().refuse(packet);
    }
}

/// What woke the service.
enum Turn {
    Read,
    Reply(Vec<u8>),
    Done(Done),
    Again,
}

fn is_dns(pair: Pair) -> bool {
    let gateway = [IpAddr::V4(net::GATEWAY_V4), IpAddr::V6(net::GATEWAY_V6)];
    pair.outside.port() == dns::PORT && gateway.contains(&pair.outside.ip())
}

/// Where a flow may go, or why not. What cannot be judged is denied.
fn permitted(pair: Pair, config: &Config) -> Result<std::net::SocketAddr, Refusal> {
    match host::decide(pair.outside, config).map_err(Refusal::Unknown)? {
        Verdict::Connect(destination) => Ok(destination),
        Verdict::Deny(denied) => Err(Refusal::Denied(denied)),
    }
}

async fn connect(pair: Pair, config: &Config) -> Result<TcpStream, Refusal> {
    let stream = if is_dns(pair) {
        dns::connect(&host::resolvers(&config.resolvers), config.limits.dns_timeout).await
    } else {
        let destination = permitted(pair, config)?;
        match timeout(config.limits.connect_timeout, TcpStream::connect(destination)).await {
            Ok(connected) => connected,
            Err(_) => Err(ErrorKind::TimedOut.into()),
        }
    };
    let stream = stream.map_err(Refusal::Unreachable)?;
    // Segments come as the function cut them; holding them back again would only delay.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

fn flow_started(protocol: &'static str) {
    metrics::counter!("lambent_egress_flows_total", "protocol" => protocol).increment(1);
}
