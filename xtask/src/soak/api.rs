//! The node's API, signed as any client of AWS signs.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use lambent_policy::sigv4;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::bench::load::signer;
use crate::bench::servers::Key;

/// Where to call, and as whom.
#[derive(Clone)]
pub struct Api {
    /// The node.
    pub address: SocketAddr,
    /// Who may call it.
    pub key: Key,
}

/// An answer, whole.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// A header's text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A connection that is kept between requests.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    /// Connects; inside a `LocalSet`, on which the connection lives.
    async fn connect(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(address).await.context("cannot connect")?;
        socket.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        tokio::task::spawn_local(async move { drop(connection.await) });
        Ok(Self { sender })
    }

    /// Sends a request and waits for the whole answer.
    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<(http::response::Parts, Bytes)> {
        self.sender.ready().await?;
        let (head, body) = self.sender.send_request(request).await?.into_parts();
        Ok((head, body.collect().await?.to_bytes()))
    }
}

impl Api {
    fn request(&self, method: &Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>> {
        let uri = format!("http://{}{path}", self.address);
        let (mut head, ()) = Request::builder().method(method).uri(uri).body(())?.into_parts();
        sigv4::sign(&mut head, &body, signer(&self.key));
        head.uri = path.parse()?;
        Ok(Request::from_parts(head, Full::new(body)))
    }

    /// Sends one request and waits for the whole answer. The connection is kept in `client` for the next one.
    pub async fn send(&self, client: &mut Option<Client>, method: Method, path: &str, body: Bytes) -> Result<Answer> {
        let mut connection = match client.take() {
            Some(connection) => connection,
            None => Client::connect(self.address).await?,
        };
        let (head, body) = connection.exchange(self.request(&method, path, body)?).await?;
        *client = Some(connection);
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    /// A request of the control plane that must succeed.
    pub async fn control(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let answer = self.send(&mut None, method, path, body.to_string().into()).await?;
        if !answer.status.is_success() {
            bail!("{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        serde_json::from_slice(&answer.body).context("no JSON")
    }
}
