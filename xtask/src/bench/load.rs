//! The load: clients that each keep one connection and send the next call when the last one is answered.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use lambent_policy::sigv4::{self, Signer};
use tokio::net::TcpStream;

use super::servers::Key;

/// What every call sends.
const EVENT: &[u8] = br#"{"key1":"value1","key2":"value2"}"#;

/// A part of it that comes back whoever serialises it.
const ECHOED: &[u8] = br#""value2""#;

/// Where to call, and as whom.
#[derive(Clone)]
pub struct Target {
    /// The server.
    pub address: SocketAddr,
    /// The path of the invocation.
    pub path: String,
    /// The key to sign with; the emulator asks for none.
    pub key: Option<Key>,
}

impl Target {
    /// A request, signed now.
    fn request(&self) -> Result<Request<Full<Bytes>>> {
        let body = Bytes::from_static(EVENT);
        let uri = format!("http://{}{}", self.address, self.path);
        let (mut head, ()) = Request::builder().method(Method::POST).uri(uri).body(())?.into_parts();
        match &self.key {
            Some(key) => sigv4::sign(&mut head, &body, signer(key)),
            None => _ = head.headers.insert(http::header::HOST, HeaderValue::from_str(&self.address.to_string())?),
        }
        head.uri = self.path.parse()?;
        Ok(Request::from_parts(head, Full::new(body)))
    }
}

/// What signs with this key, now.
pub fn signer(key: &Key) -> Signer<'_> {
    let (access_key_id, secret, region) = (key.id.as_str(), key.secret.as_str(), key.region.as_str());
    Signer { access_key_id, secret, session_token: None, region, service: "lambda", at: jiff::Timestamp::now() }
}

/// One client's connection.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    /// Connects; inside a `LocalSet`, on which the connection lives.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(address).await.context("cannot connect")?;
        socket.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        tokio::task::spawn_local(async move { drop(connection.await) });
        Ok(Self { sender })
    }

    /// Sends a request and waits for the whole answer.
    pub async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<(http::response::Parts, Bytes)> {
        self.sender.ready().await?;
        let (head, body) = self.sender.send_request(request).await?.into_parts();
        Ok((head, body.collect().await?.to_bytes()))
    }

    /// Sends one call; the time from its first byte to the last of the answer.
    async fn call(&mut self, request: Request<Full<Bytes>>) -> Result<Duration> {
        let begun = Instant::now();
        let (head, body) = self.exchange(request).await?;
        let took = begun.elapsed();
        check(head.status, &head.headers, &body)?;
        Ok(took)
    }
}

fn check(status: http::StatusCode, headers: &HeaderMap, body: &[u8]) -> Result<()> {
    // Both functions answer with the event; the emulator reports errors with status 200.
    let echoed = body.windows(ECHOED.len()).any(|window| window == ECHOED);
    if !status.is_success() || headers.contains_key("x-amz-function-error") || !echoed {
        bail!("a call failed: {status} {}", String::from_utf8_lossy(body));
    }
    Ok(())
}

fn on_one_thread<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// One client, `warm_up` calls that do not count and `calls` that do; the latter's latencies, sorted.
pub fn latencies(target: &Target, warm_up: usize, calls: usize) -> Result<Vec<Duration>> {
    on_one_thread(async {
        let mut client = Client::connect(target.address).await?;
        for _ in 0..warm_up {
            client.call(target.request()?).await?;
        }
        let mut measured = Vec::with_capacity(calls);
        for _ in 0..calls {
            measured.push(client.call(target.request()?).await?);
        }
        measured.sort();
        Ok(measured)
    })
}

/// So many clients at once: calls per second over `counted`, after `warm_up`. Any failed call fails the bench.
pub fn throughput(target: &Target, clients: usize, warm_up: Duration, counted: Duration) -> Result<f64> {
    on_one_thread(async {
        let target = Rc::new(target.clone());
        let (from, to) = (Instant::now() + warm_up, Instant::now() + warm_up + counted);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..clients {
            let target = target.clone();
            tasks.spawn_local(async move {
                let mut client = Client::connect(target.address).await?;
                let mut calls = 0_u32;
                while Instant::now() < to {
                    client.call(target.request()?).await?;
                    calls += u32::from((from..to).contains(&Instant::now()));
                }
                anyhow::Ok(calls)
            });
        }
        let mut calls = 0;
        while let Some(done) = tasks.join_next().await {
            calls += done??;
        }
        Ok(f64::from(calls) / counted.as_secs_f64())
    })
}
