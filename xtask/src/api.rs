//! The node's API, signed as any client of AWS signs.

use std::io::{Cursor, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use lambent_policy::sigv4;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::bench::load::signer;
use crate::bench::servers::Key;

/// How long a function may take to become active.
const ACTIVE_WITHIN: Duration = Duration::from_secs(30);
const ROLE: &str = "arn:aws:iam::000000000000:role/xtask";

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
    fn request(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>> {
        let uri = format!("http://{}{path}", self.address);
        let request = Request::builder().method(method).uri(uri);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let (mut head, ()) = request.body(())?.into_parts();
        sigv4::sign(&mut head, &body, signer(&self.key));
        head.uri = path.parse()?;
        Ok(Request::from_parts(head, Full::new(body)))
    }

    /// Sends one request and waits for the whole answer. The connection is kept in `client` for the next one.
    pub async fn send(&self, client: &mut Option<Client>, method: Method, path: &str, body: Bytes) -> Result<Answer> {
        self.send_as(client, method, path, &[], body).await
    }

    /// The same with headers.
    pub async fn send_as(
        &self,
        client: &mut Option<Client>,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer> {
        let mut connection = match client.take() {
            Some(connection) => connection,
            None => Client::connect(self.address).await?,
        };
        let (head, body) = connection.exchange(self.request(&method, path, headers, body)?).await?;
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

    /// The same for those who have no runtime to wait on.
    pub fn command(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        block_on(self.control(method, path, body))
    }

    /// Creates a function of `wanted` (what is not said in it is chosen here) and waits until it is active.
    pub async fn create(&self, wanted: Value) -> Result<()> {
        let mut whole = json!({ "Role": ROLE, "Handler": "app.handler" });
        if let (Value::Object(whole), Value::Object(wanted)) = (&mut whole, wanted) {
            whole.extend(wanted);
        }
        self.control(Method::POST, "/2015-03-31/functions", &whole).await?;
        let name = whole.get("FunctionName").and_then(Value::as_str).unwrap_or_default();
        self.wait_active(name).await
    }

    /// Waits until a function and its last update are ready.
    pub async fn wait_active(&self, name: &str) -> Result<()> {
        let path = format!("/2015-03-31/functions/{name}/configuration");
        let begun = Instant::now();
        loop {
            let found = self.control(Method::GET, &path, &Value::Null).await?;
            let field = |name: &str| found.get(name).and_then(Value::as_str).unwrap_or_default();
            match (field("State"), field("LastUpdateStatus")) {
                ("Active", "Successful") => return Ok(()),
                ("Pending", _) | (_, "InProgress") if begun.elapsed() < ACTIVE_WITHIN => tokio::task::yield_now().await,
                _ => bail!("{name} does not become active: {found}"),
            }
        }
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> Result<String> {
        metrics(self.address)
    }
}

/// Runs what waits for a node, with nothing else on this thread.
pub fn block_on<T>(what: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, what)
}

/// The text of a node's `/metrics`.
pub fn metrics(address: SocketAddr) -> Result<String> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.write_all(format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// All values of a metric together.
pub fn sum(metrics: &str, name: &str) -> f64 {
    let lines = metrics.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// A package of one executable file, as the API takes it.
pub fn zip(name: &str, content: &[u8]) -> Result<String> {
    let mut package = zip::ZipWriter::new(Cursor::new(Vec::new()));
    package.start_file(name, zip::write::SimpleFileOptions::default().unix_permissions(0o755))?;
    package.write_all(content)?;
    Ok(base64::engine::general_purpose::STANDARD.encode(package.finish()?.into_inner()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_values_of_a_metric_count() {
        let text = "# TYPE lambent_containers gauge\nlambent_containers{state=\"idle\"} 2\nlambent_containers{state=\"busy\"} 1\n\
                    lambent_containers_total 7\n";
        assert!((sum(text, "lambent_containers") - 3.0).abs() < f64::EPSILON);
    }
}
