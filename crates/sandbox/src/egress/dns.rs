//! The gateway's name service: queries are passed on unread, answers passed back.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::udp;

/// The port it answers at.
pub(super) const PORT: u16 = 53;
/// The largest answer taken over UDP; resolvers send less than this by far.
const MAX_ANSWER: usize = 16 * 1024;

/// Asks one resolver after the other; none if nobody answered. The function's own resolver asks again.
pub(super) async fn ask(query: &[u8], resolvers: &[SocketAddr], patience: Duration) -> Option<Vec<u8>> {
    let id = query.get(..2)?;
    for resolver in resolvers {
        match timeout(patience, ask_one(query, id, *resolver)).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => tracing::debug!(%resolver, %error, "resolver failed"),
            Err(_) => tracing::debug!(%resolver, "resolver did not answer in time"),
        }
    }
    None
}

async fn ask_one(query: &[u8], id: &[u8], resolver: SocketAddr) -> io::Result<Vec<u8>> {
    let socket = udp::connect(resolver).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; MAX_ANSWER];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = buffer.get(..length).unwrap_or_default();
        // A forged answer would have to guess the socket's port and this.
        if answer.get(..2) == Some(id) {
            return Ok(answer.to_vec());
        }
    }
}

/// A connection to the first resolver that accepts one.
pub(super) async fn connect(resolvers: &[SocketAddr], patience: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for resolver in resolvers {
        match timeout(patience, TcpStream::connect(resolver)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}
