//! A cell's way out: user-space TCP/IP between the device inside a cell and ordinary sockets of the node.
//!
//! ```text
//!  cell                          │ node
//!  process ─ kernel ─ lambent0 ──┼─► Service ─► policy ─► socket of the node ─► network
//!                     (TUN)      │   (smoltcp)    └─► reset / ICMP unreachable
//! ```
//!
//! Nothing on the host is set up for it: no route, no address translation, no firewall rule; so it works for an ordinary user as
//! well, and what a cell may reach is decided in one function, [`policy::judge`], before any packet leaves.
//!
//! - **TCP.** A first segment (SYN) is held while the node connects to the real destination, so the function sees what the
//!   destination did: accepted, or refused at once. From there two streams are copied into each other; each side's window follows
//!   the other's reader, each half closes on its own, and a reset crosses to the other side.
//! - **UDP.** A pair of addresses is a flow with a connected socket of its own, so only that peer can answer.
//! - **DNS.** The gateway answers port 53 over UDP and TCP by asking the resolvers that the host's `/etc/resolv.conf` names, also
//!   where these are stubs on the host's loopback.
//! - **Holes.** An operator can name a port of the gateway that leads to one address outside the policy: this is how functions
//!   reach the service behind `AWS_ENDPOINT_URL` when that runs on the host's loopback ([`Hole::at_gateway`]). Only configuration
//!   makes holes; the code in a cell cannot.
//! - Everything else (ICMP, other protocols, fragments, packets from addresses that are not the cell's) is dropped.
//!
//! # Bounds, and what happens at each
//!
//! | bound | at it |
//! | --- | --- |
//! | [`Limits::tcp_flows`] | a further connection is reset |
//! | [`Limits::udp_flows`] | a datagram of a further flow is answered with ICMP port unreachable |
//! | [`Limits::dns_queries`] under way | a further query is dropped; resolvers ask again |
//! | [`Limits::connect_timeout`] | the connection is reset |
//! | [`Limits::tcp_idle`], [`Limits::udp_idle`] without a byte either way | the flow is reset, forgotten |
//! | 64 closed connections that still deliver their last bytes, 60 s each | the oldest is reset |
//! | 64 KiB buffered a direction of a TCP flow | the sender's window closes |
//! | 64 datagrams waiting in a UDP flow, 256 replies waiting for the device | dropped; the sender waits |
//!
//! So the memory a cell can make the node use is about 160 KiB a TCP flow. A refused flow is counted
//! (`lambent_egress_denied_total`) and logged at debug level.
//!
//! The device keeps its network namespace alive: end the [`Handle`] before waiting for the namespace to go.

mod dns;
mod flow;
mod host;
pub mod net;
pub mod policy;
mod service;
mod stack;
mod udp;
mod wire;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

pub use policy::{Denied, Private, Verdict};

/// Whether the node may connect somewhere for somebody else: the policy of cells without holes, applied to this host as it is now.
pub fn reach(destination: SocketAddr) -> std::io::Result<Verdict> {
    host::decide(destination, &Config::default())
}

/// One address and port inside that leads to one outside, whatever the policy says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// Where the function connects to.
    pub inside: SocketAddr,
    /// Where the node then connects to.
    pub outside: SocketAddr,
}

impl Hole {
    /// A hole at the gateway's address with the same port as outside: `127.0.0.1:4566` is reached as `192.0.0.1:4566`. Port 53 is taken.
    pub fn at_gateway(outside: SocketAddr) -> Hole {
        Hole { inside: SocketAddr::new(IpAddr::V4(net::GATEWAY_V4), outside.port()), outside }
    }
}

/// Who answers the cell's DNS queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolvers {
    /// Those named in this file, read again for each query so that a change of network is followed.
    File(PathBuf),
    /// These.
    Fixed(Vec<SocketAddr>),
}

/// Bounds of one cell. The module's documentation says what happens at each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// TCP connections at once, those still connecting included. Lambda's own limit is 1,024 descriptors an environment.
    pub tcp_flows: usize,
    /// Pairs of UDP addresses at once.
    pub udp_flows: usize,
    /// DNS queries under way at once.
    pub dns_queries: usize,
    /// How long a destination may take to accept.
    pub connect_timeout: Duration,
    /// How long a TCP connection may be silent; what AWS's own address translation allows.
    pub tcp_idle: Duration,
    /// How long a UDP flow may be silent.
    pub udp_idle: Duration,
    /// How long one resolver may take before the next is asked.
    pub dns_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            tcp_flows: 512,
            udp_flows: 256,
            dns_queries: 64,
            connect_timeout: Duration::from_secs(60),
            tcp_idle: Duration::from_secs(350),
            udp_idle: Duration::from_secs(60),
            dns_timeout: Duration::from_secs(2),
        }
    }
}

/// How cells may reach the world. One is shared by all cells of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Ways around the policy.
    pub holes: Vec<Hole>,
    /// Whether private networks are reachable.
    pub private: Private,
    /// Who answers DNS.
    pub resolvers: Resolvers,
    /// Bounds of each cell.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            holes: Vec::new(),
            private: Private::default(),
            resolvers: Resolvers::File(PathBuf::from("/etc/resolv.conf")),
            limits: Limits::default(),
        }
    }
}

/// Serves one cell's device until dropped or shut down; every flow of the cell ends with it.
#[derive(Debug)]
pub struct Handle {
    task: JoinHandle<()>,
}

impl Handle {
    /// Ends the service and waits until the device and every socket are closed.
    pub async fn shutdown(mut self) {
        self.task.abort();
        // The only outcomes are "ended" and "cancelled"; a panic was reported by the hook already.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves the device that [`net::open`] made inside a cell. Call it within a tokio runtime; sockets are made in the network
/// namespace of that runtime's threads.
///
/// A fault in the service ends this cell's network, nothing else.
pub fn spawn(tun: OwnedFd, config: Arc<Config>) -> io::Result<Handle> {
    let service = service::Service::new(tun, config)?;
    Ok(Handle { task: tokio::spawn(service.run()) })
}
