//! One UDP flow: a connected socket of the node for one pair of addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::net;
use super::wire::{self, Pair};

/// Datagrams of the cell waiting to be sent on.
pub(super) const WAITING: usize = 64;

/// A socket that hears only `peer`.
pub(super) async fn connect(peer: SocketAddr) -> io::Result<UdpSocket> {
    let any = match peer {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(peer).await?;
    Ok(socket)
}

/// Carries datagrams both ways until none came for `idle` or the peer's host refuses them.
pub(super) async fn relay(
    pair: Pair,
    socket: UdpSocket,
    mut datagrams: mpsc::Receiver<Vec<u8>>,
    replies: mpsc::Sender<Vec<u8>>,
    idle: Duration,
) {
    let mut buffer = vec![0; usize::from(net::MTU)];
    let step = async {
        loop {
            let moved = timeout(idle, async {
                tokio::select! {
                    datagram = datagrams.recv() => {
                        let datagram = datagram.ok_or(io::ErrorKind::BrokenPipe)?;
                        socket.send(&datagram).await?;
                    }
                    received = socket.recv(&mut buffer) => {
                        let payload = buffer.get(..received?).unwrap_or_default();
                        if let Some(packet) = wire::reply(pair, payload) {
                            // The service is gone once nobody takes replies.
                            replies.send(packet).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
                        }
                    }
                }
                io::Result::Ok(())
            });
            moved.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        }
    };
    let ended: io::Result<()> = step.await;
    if let Err(error) = ended {
        tracing::debug!(destination = %pair.outside, %error, "datagram flow of a cell ended");
    }
}
