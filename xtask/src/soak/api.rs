//! The node's API, signed as any client of AWS signs.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::Full;
use lambent_policy::sigv4;
use serde_json::Value;

use crate::bench::load::{Client, signer};
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
