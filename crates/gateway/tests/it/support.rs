//! A gateway on a port of its own, and what stands behind it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::request::Parts as Head;
use jiff::Timestamp;
use lambent_gateway::{Directory, Invoke, Parts, Settings};
use lambent_invoker::executions::Execution;
use lambent_invoker::{Answer, Body, Error, ErrorKind, Invocation, StreamError};
use lambent_model::function::{CodeRef, LogFormat, Logging, Network, Provided, Runtime, TracingMode};
use lambent_model::idempotency::Idempotency;
use lambent_model::{AccountId, Clock, Digest, FunctionArn, FunctionVersion, Qualifier, Region, Version};
use lambent_policy::document::Document;
use lambent_policy::keys::{AccessKey, Keys};
use lambent_policy::sigv4::{self, Signer, Verifier};
use lambent_registry::shape::{AuthType, Cors, InvokeMode, State};
use lambent_registry::{FunctionUrl, Resolved};
use lambent_store::Catalog;
use lambent_store::port::{Change, Document as Stored, Write};
use lambent_store::records::RecordId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

pub const HOST: &str = "abc123.lambda-url.us-east-1.localhost";

/// A catalog that holds what it is given; enough for access keys.
#[derive(Default)]
struct Shelf(Mutex<BTreeMap<String, Bytes>>);

#[async_trait::async_trait]
impl Catalog for Shelf {
    async fn get(&self, _: &str) -> Result<Option<Stored>, lambent_store::Error> {
        Ok(None)
    }
    async fn list(&self, _: &str) -> Result<Vec<Stored>, lambent_store::Error> {
        Ok(Vec::new())
    }
    async fn commit(&self, writes: Vec<Write>) -> Result<u64, lambent_store::Error> {
        self.0.lock().unwrap().extend(writes.into_iter().filter_map(|write| Some((write.key, write.value?))));
        Ok(1)
    }
    async fn watch(&self, _: &str) -> Result<mpsc::UnboundedReceiver<Change>, lambent_store::Error> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let _ = sender.send(Change::Ready);
        Ok(receiver)
    }
}

struct Frozen(Timestamp);

impl Clock for Frozen {
    fn now(&self) -> Timestamp {
        self.0
    }
}

/// One URL and its function.
struct OneUrl {
    url: Arc<FunctionUrl>,
    policy: Option<Arc<Document>>,
    idempotency: Option<Arc<Idempotency>>,
}

impl Directory for OneUrl {
    fn function_url(&self, id: &str) -> Option<Arc<FunctionUrl>> {
        (id == self.url.id).then(|| Arc::clone(&self.url))
    }

    fn resolve(&self, arn: &FunctionArn, _: Option<&Qualifier>) -> Result<Resolved, lambent_registry::Error> {
        Ok(Resolved {
            version: Arc::new(version(arn)),
            additional: None,
            state: State::Active,
            state_reason: None,
            reserved_concurrency: None,
            invoked_arn: arn.to_string(),
            idempotency: self.idempotency.clone(),
            affinity: None,
            policy: self.policy.clone(),
        })
    }
}

fn version(arn: &FunctionArn) -> FunctionVersion {
    FunctionVersion {
        arn: arn.clone(),
        version: Version::Latest,
        generation: uuid::Uuid::nil(),
        runtime: Runtime::Provided(Provided::Al2023),
        handler: None,
        code: CodeRef { digest: Digest::from([0; 32]), zipped_bytes: 0 },
        layers: Vec::new(),
        environment: BTreeMap::new(),
        timeout: Duration::from_secs(3),
        memory_mib: 128,
        ephemeral_mib: 512,
        network: Network::None,
        logging: Logging { group: String::new(), format: LogFormat::Text, application_level: None, system_level: None },
        tracing: TracingMode::PassThrough,
        snap_start: false,
        per_tenant: false,
    }
}

/// What the function does with its event.
pub enum Act {
    Return(&'static str),
    Echo,
    Fail,
    Refuse(fn() -> Error),
    Reuse(&'static str),
    Stream(&'static str, Vec<Result<&'static [u8], ()>>),
}

/// A function that remembers what it was asked.
pub struct Function {
    act: Act,
    pub seen: Mutex<Vec<Invocation>>,
}

#[async_trait::async_trait]
impl Invoke for Function {
    async fn invoke(&self, invocation: Invocation) -> Result<Answer, Error> {
        let mut answer = Answer {
            executed_version: Version::Latest,
            request_id: invocation.request_id,
            error: None,
            content_type: "application/json".to_owned(),
            body: Body::Buffered(Bytes::new()),
            stages: lambent_invoker::Stages::since(std::time::Instant::now()),
            log_tail: None,
            finished: None,
            execution: None,
            affinity: None,
        };
        match &self.act {
            Act::Return(text) => answer.body = Body::Buffered(Bytes::from_static(text.as_bytes())),
            Act::Echo => answer.body = Body::Buffered(invocation.payload.clone()),
            Act::Fail => {
                answer.error = Some(ErrorKind::Unhandled);
                answer.body = Body::Buffered(Bytes::from_static(br#"{"errorMessage":"secret"}"#));
            }
            Act::Refuse(error) => return Err(error()),
            Act::Reuse(text) => {
                answer.body = Body::Buffered(Bytes::from_static(text.as_bytes()));
                answer.execution = Some(Execution::Reused { record: Some(RecordId(7)), age: Duration::from_secs(5) });
            }
            Act::Stream(content_type, pieces) => {
                answer.content_type = (*content_type).to_owned();
                let (sender, receiver) = mpsc::channel(pieces.len().max(1));
                for piece in pieces {
                    let error = || StreamError { error_type: "Function.Broke".to_owned(), body: Bytes::new() };
                    sender.try_send(piece.map(Bytes::from_static).map_err(|()| error())).unwrap();
                }
                answer.body = Body::Stream(receiver);
            }
        }
        self.seen.lock().unwrap().push(invocation);
        Ok(answer)
    }
}

/// How the URL is configured.
pub struct Setup {
    pub auth_type: AuthType,
    pub invoke_mode: InvokeMode,
    pub cors: Option<Cors>,
    /// Statements of the resource policy, JSON.
    pub statements: String,
    pub act: Act,
    pub body_timeout: Duration,
    /// How the function's requests are told apart, JSON.
    pub idempotency: Option<&'static str>,
}

impl Setup {
    /// An open URL.
    pub fn open(act: Act) -> Setup {
        Setup {
            auth_type: AuthType::None,
            invoke_mode: InvokeMode::Buffered,
            cors: None,
            statements: PUBLIC.to_owned(),
            act,
            body_timeout: Duration::from_secs(60),
            idempotency: None,
        }
    }

    pub fn signed(act: Act) -> Setup {
        Setup { auth_type: AuthType::AwsIam, statements: String::new(), ..Setup::open(act) }
    }
}

/// The two statements that AWS's console adds for an open URL.
pub const PUBLIC: &str = r#"
    {"Sid": "url", "Effect": "Allow", "Principal": "*", "Action": "lambda:InvokeFunctionUrl", "Resource": "*",
     "Condition": {"StringEquals": {"lambda:FunctionUrlAuthType": "NONE"}}},
    {"Sid": "invoke", "Effect": "Allow", "Principal": "*", "Action": "lambda:InvokeFunction", "Resource": "*",
     "Condition": {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}}"#;

pub struct Gateway {
    pub address: SocketAddr,
    pub function: Arc<Function>,
    pub owner: Arc<AccessKey>,
    pub stranger: Arc<AccessKey>,
    now: Timestamp,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Gateway {
    pub async fn start(setup: Setup) -> Gateway {
        let url = Arc::new(FunctionUrl {
            id: "abc123".to_owned(),
            function: FunctionArn {
                region: Region::default(),
                account: AccountId::default(),
                name: "hello".parse().unwrap(),
            },
            qualifier: None,
            auth_type: setup.auth_type,
            cors: setup.cors,
            invoke_mode: setup.invoke_mode,
        });
        let policy = format!(r#"{{"Version": "2012-10-17", "Statement": [{}]}}"#, setup.statements);
        let policy = Some(Arc::new(serde_json::from_str(&policy).unwrap()));
        let idempotency = setup.idempotency.map(|text| Arc::new(serde_json::from_str(text).unwrap()));
        Self::over(Arc::new(OneUrl { url, policy, idempotency }), setup.act, setup.body_timeout).await
    }

    /// In front of any control plane.
    pub async fn over(directory: Arc<dyn Directory>, act: Act, body_timeout: Duration) -> Gateway {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(Frozen(now));
        let keys = Keys::open(Arc::new(Shelf::default())).await.unwrap();
        let owner = keys.root(&AccountId::default(), now).await.unwrap();
        let stranger = keys.root(&"111122223333".parse().unwrap(), now).await.unwrap();
        let function = Arc::new(Function { act, seen: Mutex::default() });
        let router = lambent_gateway::router(Parts {
            settings: Settings { body_timeout, ..Settings::default() },
            directory,
            invoker: Arc::clone(&function) as Arc<dyn Invoke>,
            verifier: Arc::new(Verifier::new(keys, Region::default(), Arc::clone(&clock))),
            clock,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let server = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        Gateway { address, function, owner, stranger, now, server }
    }

    /// Sends bytes as they are and reads until the server closes.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // A connection that is reset gives what came before.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Sends `METHOD TARGET` with these headers (`Name: value`) and this body.
    pub async fn send(&self, line: &str, headers: &[&str], body: &str) -> Reply {
        let mut request = format!("{line} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        if !headers.iter().any(|header| header.starts_with("Host:")) {
            request.push_str(&format!("Host: {HOST}\r\n"));
        }
        headers.iter().for_each(|header| request.push_str(&format!("{header}\r\n")));
        request.push_str(&format!("\r\n{body}"));
        Reply::read(&self.raw(request.as_bytes()).await)
    }

    /// The same, signed with `key`.
    pub async fn send_signed(&self, line: &str, body: &str, key: &AccessKey) -> Reply {
        self.send_signed_with(line, &[], body, key).await
    }

    /// The same, with headers that are not signed.
    pub async fn send_signed_with(&self, line: &str, more: &[&str], body: &str, key: &AccessKey) -> Reply {
        let (method, target) = line.split_once(' ').unwrap();
        let mut head = head(method, &format!("http://{HOST}{target}"));
        let signer = Signer {
            access_key_id: &key.id,
            secret: &key.secret,
            session_token: None,
            region: "us-east-1",
            service: "lambda",
            at: self.now,
        };
        sigv4::sign(&mut head, body.as_bytes(), signer);
        let headers: Vec<String> = head
            .headers
            .iter()
            .filter(|(name, _)| *name != http::header::HOST)
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        let headers: Vec<&str> = headers.iter().map(String::as_str).chain(more.iter().copied()).collect();
        self.send(line, &headers, body).await
    }

    /// The event of the only call so far.
    pub fn event(&self) -> serde_json::Value {
        let seen = self.function.seen.lock().unwrap();
        assert_eq!(seen.len(), 1);
        serde_json::from_slice(&seen[0].payload).unwrap()
    }

    pub fn calls(&self) -> usize {
        self.function.seen.lock().unwrap().len()
    }
}

fn head(method: &str, uri: &str) -> Head {
    Request::builder().method(method).uri(uri).body(()).unwrap().into_parts().0
}

/// A response, read apart.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: BTreeMap<String, Vec<String>>,
    pub body: String,
}

impl Reply {
    fn read(text: &str) -> Reply {
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            headers.entry(name.to_ascii_lowercase()).or_default().push(value.to_owned());
        }
        Reply { status, headers, body: body.to_owned() }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |values| &values[0])
    }

    pub fn is_chunked(&self) -> bool {
        self.header("transfer-encoding") == "chunked"
    }
}
