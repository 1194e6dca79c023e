//! The TCP end that the cell talks to: smoltcp, answering for every address there is.
//!
//! The stack never accepts by itself. The service shows it a SYN either with a socket made for just that one ([`Stack::accept`])
//! or with none ([`Stack::refuse`]), and the stack then answers with SYN-ACK or reset as TCP says. Between two packets no socket
//! listens, so the cell cannot connect to anything the service has not judged.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::wire::{HardwareAddress, IpCidr};
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

use super::net;
use super::wire::Pair;

/// Bytes a flow buffers in each direction.
const BUFFER: usize = 64 * 1024;
/// Packets waiting for the device before nothing more is read from it.
const MAX_OUTGOING: usize = 64;
/// How long a closed connection may take to deliver its last bytes and say goodbye; then it is reset.
const LINGER: Duration = Duration::from_secs(60);
/// Connections saying goodbye at once. One more, and the oldest is forgotten; the cell learns of it by a reset at its next segment.
const MAX_CLOSING: usize = 64;
/// How long the cell's kernel may leave data unacknowledged before the connection counts as dead.
const UNACKNOWLEDGED: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(60);

/// A stack and the signal that it has something to do.
pub(super) struct Shared {
    stack: Mutex<Stack>,
    /// Notified when a flow has read, written or closed.
    pub wake: Notify,
}

impl Shared {
    pub fn new() -> Shared {
        Shared { stack: Mutex::new(Stack::new()), wake: Notify::new() }
    }

    pub fn lock(&self) -> MutexGuard<'_, Stack> {
        // A panic while it was held has ended the task that owned it; what remains only closes.
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Interface, sockets, and the packets on their way in and out.
pub(super) struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    queues: Queues,
    closing: Vec<Closing>,
    epoch: Instant,
}

struct Closing {
    handle: SocketHandle,
    pair: Pair,
    deadline: Instant,
}

impl Stack {
    fn new() -> Stack {
        let mut queues = Queues::default();
        let epoch = Instant::now();
        let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut queues, smoltcp::time::Instant::ZERO);
        interface.set_any_ip(true);
        interface.update_ip_addrs(|addresses| {
            // Two places exist (smoltcp's default), and two addresses are pushed.
            let _ = addresses.push(IpCidr::new(net::GATEWAY_V4.into(), net::PREFIX_V4));
            let _ = addresses.push(IpCidr::new(net::GATEWAY_V6.into(), net::PREFIX_V6));
        });
        Stack { interface, sockets: SocketSet::new(Vec::new()), queues, closing: Vec::new(), epoch }
    }

    /// Hands a packet of an existing connection to the stack.
    pub fn push(&mut self, packet: Vec<u8>) {
        self.queues.incoming.push_back(packet);
    }

    /// Makes a connection from the SYN that asks for it; none where the packet is damaged.
    pub fn accept(&mut self, pair: Pair, syn: Vec<u8>) -> Option<SocketHandle> {
        self.forget(pair);
        let mut socket =
            tcp::Socket::new(tcp::SocketBuffer::new(vec![0; BUFFER]), tcp::SocketBuffer::new(vec![0; BUFFER]));
        socket.set_nagle_enabled(false);
        // The other end is this machine's kernel: waiting to save acknowledgements only adds latency.
        socket.set_ack_delay(None);
        socket.set_timeout(Some(UNACKNOWLEDGED));
        socket.listen(pair.outside).ok()?;
        let handle = self.sockets.add(socket);
        self.process_first(syn);
        if self.socket(handle).state() == tcp::State::Listen {
            self.sockets.remove(handle);
            return None;
        }
        Some(handle)
    }

    /// Answers a packet that nobody will serve: a reset, or ICMP port unreachable.
    pub fn refuse(&mut self, packet: Vec<u8>) {
        self.process_first(packet);
    }

    /// Queues a whole packet for the cell.
    pub fn send(&mut self, packet: Vec<u8>) {
        self.queues.outgoing.push_back(packet);
    }

    pub fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Lets a socket that no flow uses any more finish by itself.
    pub fn release(&mut self, handle: SocketHandle, pair: Pair) {
        if self.closing.len() >= MAX_CLOSING {
            let oldest = self.closing.remove(0);
            self.sockets.remove(oldest.handle);
        }
        self.closing.push(Closing { handle, pair, deadline: Instant::now() + LINGER });
    }

    /// The oldest packet for the cell stays queued until [`Stack::sent`].
    pub fn outgoing(&self) -> Option<&[u8]> {
        self.queues.outgoing.front().map(Vec::as_slice)
    }

    pub fn sent(&mut self) {
        self.queues.outgoing.pop_front();
    }

    pub fn has_room(&self) -> bool {
        self.queues.outgoing.len() < MAX_OUTGOING
    }

    /// Does all there is to do now and says when there will be more without a cause from outside.
    pub fn poll(&mut self) -> Option<Duration> {
        let now = self.now();
        self.interface.poll(now, &mut self.queues, &mut self.sockets);
        let reaped = self.reap();
        let delay = self.interface.poll_delay(now, &self.sockets);
        let delay = delay.map(|delay| Duration::from_micros(delay.total_micros()));
        if reaped { delay } else { Some(delay.map_or(LINGER, |delay| delay.min(LINGER))) }
    }

    /// Shows the stack this packet before any that waits.
    fn process_first(&mut self, packet: Vec<u8>) {
        self.queues.incoming.push_front(packet);
        let now = self.now();
        self.interface.poll_ingress_single(now, &mut self.queues, &mut self.sockets);
    }

    /// The cell may use a port again as soon as its own kernel is done with it; ours must be, too.
    fn forget(&mut self, pair: Pair) {
        let sockets = &mut self.sockets;
        self.closing.retain(|closing| {
            let is_other = closing.pair != pair;
            if !is_other {
                sockets.remove(closing.handle);
            }
            is_other
        });
    }

    /// Removes sockets that have said goodbye. TIME-WAIT is not kept: it guards against packets that wander in a network, and
    /// there is none between this stack and the cell.
    fn reap(&mut self) -> bool {
        let now = Instant::now();
        let sockets = &mut self.sockets;
        self.closing.retain(|closing| {
            let socket = sockets.get_mut::<tcp::Socket>(closing.handle);
            let is_done = match socket.state() {
                // The reset of an aborted socket is sent before it forgets its peer.
                tcp::State::Closed => socket.remote_endpoint().is_none(),
                tcp::State::TimeWait => true,
                _ => false,
            };
            if is_done {
                sockets.remove(closing.handle);
            } else if now >= closing.deadline {
                // The reset goes out with the next poll.
                sockets.get_mut::<tcp::Socket>(closing.handle).abort();
            }
            !is_done
        });
        self.closing.is_empty()
    }

    fn now(&self) -> smoltcp::time::Instant {
        let elapsed = i64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(i64::MAX);
        smoltcp::time::Instant::from_micros(elapsed)
    }
}

/// Packets between the device and the stack.
#[derive(Default)]
struct Queues {
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

impl Device for Queues {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    /// Each packet taken in yields at most one out, so what goes past [`MAX_OUTGOING`] here is bounded by what was read at once.
    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.incoming.pop_front()?;
        Some((Incoming(packet), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Outgoing<'_>> {
        (self.outgoing.len() < MAX_OUTGOING).then_some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = usize::from(net::MTU);
        // The cell's kernel checks ours; its own were made on this machine a moment ago.
        let mut checksum = ChecksumCapabilities::default();
        checksum.ipv4 = Checksum::Tx;
        checksum.tcp = Checksum::Tx;
        checksum.udp = Checksum::Tx;
        capabilities.checksum = checksum;
        capabilities
    }
}

struct Incoming(Vec<u8>);

impl smoltcp::phy::RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Outgoing<'a>(&'a mut VecDeque<Vec<u8>>);

impl smoltcp::phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut packet = vec![0; length];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pair(port: u16) -> Pair {
        let inside = (net::CELL_V4, port).into();
        Pair { inside, outside: (net::GATEWAY_V4, 80).into() }
    }

    /// A socket that will not end by itself.
    fn stuck(stack: &mut Stack) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 1]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.listen((net::GATEWAY_V4, 80)).unwrap();
        stack.sockets.add(socket)
    }

    #[test]
    fn goodbyes_are_bounded() {
        let mut stack = Stack::new();
        for port in 1..=u16::try_from(2 * MAX_CLOSING).unwrap() {
            let handle = stuck(&mut stack);
            stack.release(handle, pair(port));
        }
        assert_eq!((stack.closing.len(), stack.sockets.iter().count()), (MAX_CLOSING, MAX_CLOSING));
        assert_eq!(stack.closing.first().unwrap().pair, pair(u16::try_from(MAX_CLOSING).unwrap() + 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_goodbye_that_takes_too_long_is_a_reset() {
        let mut stack = Stack::new();
        let handle = stuck(&mut stack);
        stack.release(handle, pair(1));
        assert_eq!(stack.poll(), Some(LINGER));
        tokio::time::advance(LINGER).await;
        stack.poll();
        stack.poll();
        assert_eq!((stack.closing.len(), stack.sockets.iter().count()), (0, 0));
    }

    #[test]
    fn a_port_used_again_is_a_new_connection() {
        let mut stack = Stack::new();
        for port in [1, 2] {
            let handle = stuck(&mut stack);
            stack.release(handle, pair(port));
        }
        stack.forget(pair(1));
        assert_eq!(stack.closing.iter().map(|closing| closing.pair).collect::<Vec<_>>(), [pair(2)]);
        assert_eq!(stack.sockets.iter().count(), 1);
    }
}
