//! One TCP connection: the stack's end as a stream, and the copying between it and a socket of the node.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::stack::Shared;
use super::wire::Pair;

/// Bytes copied at once.
const CHUNK: usize = 16 * 1024;

/// The end that faces the cell. Dropping it resets the connection unless [`Flow::finish`] was called.
pub(super) struct Flow {
    shared: Arc<Shared>,
    handle: SocketHandle,
    pair: Pair,
    moved: Arc<AtomicU64>,
    is_finished: bool,
}

impl Flow {
    pub fn new(shared: Arc<Shared>, handle: SocketHandle, pair: Pair) -> Flow {
        Flow { shared, handle, pair, moved: Arc::default(), is_finished: false }
    }

    fn note(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
        self.shared.wake.notify_one();
    }
}

/// Copies both ways until both are done, one fails, or nothing moved for `idle`. A failure on one side resets the other.
pub(super) async fn relay(mut flow: Flow, mut outside: TcpStream, idle: Duration) {
    let moved = Arc::clone(&flow.moved);
    let copied = tokio::select! {
        copied = copy_bidirectional_with_sizes(&mut flow, &mut outside, CHUNK, CHUNK) => copied,
        () = silence(&moved, idle) => Err(io::ErrorKind::TimedOut.into()),
    };
    match copied {
        Ok((sent, received)) => {
            metrics::counter!("lambent_egress_bytes_total", "direction" => "out").increment(sent);
            metrics::counter!("lambent_egress_bytes_total", "direction" => "in").increment(received);
            flow.is_finished = true;
        }
        Err(error) => {
            tracing::debug!(destination = %flow.pair.outside, %error, "connection of a cell ended early");
            // Closing now sends a reset, so that the far side cannot take a broken stream for a whole one.
            let _ = outside.set_zero_linger();
        }
    }
}

/// Returns once no byte has moved for `idle`; looked at each `idle`, so it may take up to twice as long.
async fn silence(moved: &AtomicU64, idle: Duration) {
    let mut before = moved.load(Ordering::Relaxed);
    loop {
        let started = Instant::now();
        sleep(idle).await;
        let now = moved.load(Ordering::Relaxed);
        if now == before && started.elapsed() >= idle {
            return;
        }
        before = now;
    }
}

impl AsyncRead for Flow {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut stack = self.shared.lock();
        let socket = stack.socket(self.handle);
        if socket.can_recv() {
            let taken = socket.recv_slice(buffer.initialize_unfilled()).map_err(io::Error::other)?;
            buffer.advance(taken);
            drop(stack);
            self.note(taken);
            return Poll::Ready(Ok(()));
        }
        match socket.state() {
            State::Listen | State::SynReceived | State::Established | State::FinWait1 | State::FinWait2 => {
                socket.register_recv_waker(context.waker());
                Poll::Pending
            }
            // The cell has said that it sends no more.
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait => Poll::Ready(Ok(())),
            State::Closed | State::SynSent => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncWrite for Flow {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut stack = self.shared.lock();
        let socket = stack.socket(self.handle);
        if socket.can_send() {
            let taken = socket.send_slice(bytes).map_err(io::Error::other)?;
            drop(stack);
            self.note(taken);
            return Poll::Ready(Ok(taken));
        }
        match socket.state() {
            State::Listen | State::SynReceived | State::Established | State::CloseWait => {
                socket.register_send_waker(context.waker());
                Poll::Pending
            }
            State::FinWait1 | State::FinWait2 | State::Closing | State::TimeWait | State::LastAck => {
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            }
            State::Closed | State::SynSent => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Closes this direction only; what is buffered is sent first.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.lock().socket(self.handle).close();
        self.shared.wake.notify_one();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        let mut stack = self.shared.lock();
        if !self.is_finished {
            stack.socket(self.handle).abort();
        }
        stack.release(self.handle, self.pair);
        drop(stack);
        self.shared.wake.notify_one();
    }
}
