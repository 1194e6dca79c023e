//! Connections. What strangers can do before they are known is bounded here: the time and the size of a request's head.

use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::ServiceExt;

/// A head that takes longer is a slow-loris; the same clock runs between two requests of a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes of a head: AWS's signed headers and a presigned query fit many times over.
const MOST_HEAD_BYTES: usize = 64 * 1024;
/// Most headers of a request: as many as hyper has room for on its stack; more would cost every request two allocations.
const MOST_HEADERS: usize = 100;
/// Wait after the kernel refused a connection for want of file descriptors, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` on `listener` until `shutdown` completes, then lets running requests end for at most `grace`.
/// Slow or oversized request heads are refused; use it for every port that strangers reach. Handlers find the other end's address as
/// `ConnectInfo<SocketAddr>` among a request's extensions.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()> + Send, grace: Duration) {
    let graceful = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MOST_HEAD_BYTES)
        .max_headers(MOST_HEADERS)
        .half_close(false)
        .pipeline_flush(true);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are small and wanted at once.
        let _ = socket.set_nodelay(true);
        // Function URLs tell the function who calls.
        let service = router.clone().map_request(move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            request
        });
        let connection = http.serve_connection(TokioIo::new(socket), TowerToHyperService::new(service));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke off");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!(grace_secs = grace.as_secs(), "requests were still running when the grace period ended");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::Notify;

    use super::*;

    /// What the server answers to `request`, until it closes the connection.
    async fn answer(router: Router, request: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let server = tokio::spawn(serve(listener, router, async move { stopped.notified().await }, HEAD_TIMEOUT));
        let mut socket = TcpStream::connect(address).await.unwrap();
        // The server may refuse before it has read all.
        let _ = socket.write_all(request).await;
        let mut text = Vec::new();
        let _ = socket.read_to_end(&mut text).await;
        stop.notify_one();
        server.await.unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    fn router() -> Router {
        Router::new().route("/", get(|| async { "here" }))
    }

    #[tokio::test]
    async fn requests_are_answered_and_the_server_ends_when_told() {
        let text = answer(router(), b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("here"), "{text}");
    }

    #[tokio::test]
    async fn oversized_heads_are_refused() {
        let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(2 * MOST_HEAD_BYTES));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(2 * MOST_HEADERS));
        for request in [long, many] {
            let text = answer(router(), request.as_bytes()).await;
            assert!(text.is_empty() || text.starts_with("HTTP/1.1 431 "), "{text}");
        }
    }

    #[tokio::test]
    async fn handlers_learn_who_calls() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router =
            Router::new().fallback(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() });
        let server = tokio::spawn(serve(listener, router, std::future::pending(), Duration::ZERO));
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with(&client.local_addr().unwrap().to_string()), "{answer}");
        server.abort();
    }
}
