//! A raw HTTP client and a served Runtime API to point it at.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lambent_model::function::{CodeRef, LogFormat, Logging, Network, Provided, Runtime, TracingMode};
use lambent_model::{
    AccountId, ContainerId, Digest, FunctionArn, FunctionVersion, Region, RequestId, SystemClock, Version,
};
use lambent_runtime_api::{Connect, Identity, Invoke, ResponseMode, RuntimeApi};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// No test waits longer for anything; what comes sooner is not waited for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Connects to ports of this machine, as the `sim` back end does.
struct Local;

#[async_trait]
impl Connect for Local {
    async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        TcpStream::connect(("127.0.0.1", port)).await
    }
}

/// A served Runtime API.
pub struct Served {
    pub api: RuntimeApi,
    pub port: u16,
}

pub async fn serve() -> Served {
    serve_with(LogFormat::Text).await
}

pub async fn serve_with(format: LogFormat) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let arn = FunctionArn { region: Region::default(), account: AccountId::default(), name: "thumb".parse().unwrap() };
    let function = FunctionVersion {
        arn,
        version: Version::Latest,
        generation: uuid::Uuid::new_v4(),
        runtime: Runtime::Provided(Provided::Al2023),
        handler: Some("index.handler".to_owned()),
        code: CodeRef { digest: Digest::from([0; 32]), zipped_bytes: 0 },
        layers: Vec::new(),
        environment: Default::default(),
        timeout: Duration::from_secs(3),
        memory_mib: 128,
        ephemeral_mib: 512,
        network: Network::None,
        logging: Logging { group: "/aws/lambda/thumb".to_owned(), format, application_level: None, system_level: None },
        tracing: TracingMode::PassThrough,
        snap_start: false,
        per_tenant: false,
    };
    let identity = Identity {
        function: Arc::new(function),
        container: ContainerId::random(),
        handler: "index.handler".to_owned(),
        account: "123456789012".parse().unwrap(),
    };
    let api = RuntimeApi::serve(listener, identity, Arc::new(Local), Arc::new(SystemClock), None);
    Served { api, port }
}

impl Served {
    pub async fn client(&self) -> Client {
        Client { stream: TcpStream::connect(("127.0.0.1", self.port)).await.unwrap(), read: Vec::new() }
    }

    /// A runtime that has asked for its first event, in a container without extensions.
    pub async fn ready(&self) -> Client {
        self.api.expect_extensions(Vec::new());
        let mut client = self.client().await;
        client.send("GET", "/2018-06-01/runtime/invocation/next", &[], b"").await;
        assert_eq!(within(self.api.ready()).await, lambent_runtime_api::Init::Ready);
        client
    }
}

/// Fails the test rather than hang.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing came")
}

pub fn invocation(payload: impl Into<Bytes>) -> Invoke {
    Invoke {
        request_id: RequestId::random(),
        deadline: jiff::Timestamp::from_millisecond(1_800_000_000_123).unwrap(),
        invoked_arn: "arn:aws:lambda:us-east-1:123456789012:function:thumb".to_owned(),
        payload: payload.into(),
        client_context: None,
        cognito_identity: None,
        trace: None,
        tenant: None,
        mode: ResponseMode::Buffered,
        seat: None,
    }
}

/// One connection.
pub struct Client {
    pub stream: TcpStream,
    read: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Bytes,
}

impl Reply {
    /// A header's value, looked for in the spelling of AWS's documentation.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Client {
    pub async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        self.raw(&[head.as_bytes(), body].concat()).await;
    }

    pub async fn raw(&mut self, bytes: &[u8]) {
        within(self.stream.write_all(bytes)).await.unwrap();
    }

    pub async fn receive(&mut self) -> Reply {
        within(self.try_receive()).await.expect("connection closed")
    }

    /// The next answer, or none where the connection ends.
    pub async fn try_receive(&mut self) -> Option<Reply> {
        loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8(self.read[..end].to_vec()).unwrap();
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                if status == 100 {
                    self.read.drain(..end + 4);
                    continue;
                }
                let length: usize = head
                    .lines()
                    .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok())
                    .unwrap_or(0);
                if self.read.len() >= end + 4 + length {
                    let rest = self.read.split_off(end + 4 + length);
                    let body = Bytes::from(std::mem::replace(&mut self.read, rest)).slice(end + 4..);
                    return Some(Reply { status, head, body });
                }
            }
            let mut chunk = vec![0; 64 * 1024];
            match self.stream.read(&mut chunk).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.read.extend_from_slice(&chunk[..count]),
            }
        }
    }

    pub async fn call(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.send(method, path, headers, body).await;
        self.receive().await
    }

    pub async fn next(&mut self) -> Reply {
        self.call("GET", "/2018-06-01/runtime/invocation/next", &[], b"").await
    }

    /// Asks for the next event without waiting for it.
    pub async fn ask(&mut self) {
        self.send("GET", "/2018-06-01/runtime/invocation/next", &[], b"").await;
    }

    pub async fn respond(&mut self, id: &str, body: &[u8]) -> Reply {
        let path = format!("/2018-06-01/runtime/invocation/{id}/response");
        self.call("POST", &path, &[("Content-Type", "application/json")], body).await
    }

    pub async fn fail(&mut self, id: &str, error_type: &str, body: &[u8]) -> Reply {
        let path = format!("/2018-06-01/runtime/invocation/{id}/error");
        self.call("POST", &path, &[("Lambda-Runtime-Function-Error-Type", error_type)], body).await
    }
}
