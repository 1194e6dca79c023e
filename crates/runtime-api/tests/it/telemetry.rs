//! The Telemetry API and the Logs API.

use bytes::Bytes;
use jiff::Timestamp;
use lambent_model::RequestId;
use lambent_model::function::LogFormat;
use lambent_runtime_api::{Init, PlatformEvent, ReportMetrics, RuntimeDoneMetrics, ShutdownReason, Status};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::client::{Client, Reply, Served, serve, serve_with, within};

/// A subscriber's own server.
struct Listener {
    listener: TcpListener,
    port: u16,
}

impl Listener {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, port }
    }

    async fn accept(&self) -> BufReader<TcpStream> {
        BufReader::new(within(self.listener.accept()).await.unwrap().0)
    }
}

/// Reads one request, answers it with a status, gives its first line and its events.
async fn take_batch(stream: &mut BufReader<TcpStream>, status: u16) -> (String, Vec<serde_json::Value>) {
    let (mut first, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        within(stream.read_line(&mut line)).await.unwrap();
        if first.is_empty() {
            first = line.trim().to_owned();
        } else if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        } else if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    within(stream.read_exact(&mut body)).await.unwrap();
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nOK");
    within(stream.write_all(answer.as_bytes())).await.unwrap();
    (first, serde_json::from_slice(&body).unwrap())
}

fn types(batch: &[serde_json::Value]) -> Vec<&str> {
    batch.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

struct Subscriber {
    client: Client,
    id: String,
}

impl Subscriber {
    async fn registered(served: &Served, name: &str) -> Self {
        let mut client = served.client().await;
        let headers = [("Lambda-Extension-Name", name)];
        let reply = client.call("POST", "/2020-01-01/extension/register", &headers, b"{\"events\":[]}").await;
        let id = reply.header("Lambda-Extension-Identifier").unwrap().to_owned();
        Self { client, id }
    }

    async fn put(&mut self, path: &str, body: &serde_json::Value) -> Reply {
        let headers = [("Lambda-Extension-Identifier", &*self.id)];
        self.client.call("PUT", path, &headers, body.to_string().as_bytes()).await
    }

    async fn subscribe(&mut self, body: &serde_json::Value) {
        let reply = self.put("/2022-07-01/telemetry", body).await;
        assert_eq!((reply.status, reply.text()), (200, "\"OK\""));
    }

    /// Ends the init phase: this extension and a runtime ask for their first event.
    async fn settle(&mut self, served: &Served) -> Client {
        let headers = [("Lambda-Extension-Identifier", &*self.id)];
        self.client.send("GET", "/2020-01-01/extension/event/next", &headers, b"").await;
        let mut runtime = served.client().await;
        runtime.ask().await;
        assert_eq!(within(served.api.ready()).await, Init::Ready);
        runtime
    }
}

fn http(port: u16, types: &[&str]) -> serde_json::Value {
    serde_json::json!({
        "schemaVersion": "2022-12-13",
        "types": types,
        "buffering": {"maxItems": 1000, "maxBytes": 262_144, "timeoutMs": 25},
        "destination": {"protocol": "HTTP", "URI": format!("http://sandbox.localdomain:{port}/in?x=1")},
    })
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap()
}

fn start(request_id: RequestId) -> PlatformEvent {
    PlatformEvent::Start { request_id, version: "$LATEST".to_owned(), tracing: None }
}

fn report(request_id: RequestId) -> PlatformEvent {
    let metrics = ReportMetrics {
        duration_ms: 1.5,
        billed_duration_ms: 2,
        memory_size_mb: 128,
        max_memory_used_mb: 40,
        init_duration_ms: None,
        restore_duration_ms: None,
        billed_restore_duration_ms: None,
        waited_duration_ms: None,
    };
    PlatformEvent::Report { request_id, status: Status::Success, error_type: None, metrics, tracing: None }
}

#[tokio::test]
async fn a_subscriber_gets_what_it_asked_for_and_what_came_before() {
    let served = serve_with(LogFormat::Json).await;
    served.api.expect_extensions(Vec::new());
    // Said before anybody listens; an object stays one in a function that logs JSON.
    served.api.function_line(at(1_000), Bytes::from_static(b"{\"level\":\"INFO\"}"));
    served.api.extension_line(at(1_001), Bytes::from_static(b"not asked for"));
    let listener = Listener::new().await;
    let mut subscriber = Subscriber::registered(&served, "watcher").await;
    subscriber.subscribe(&http(listener.port, &["platform", "function"])).await;
    subscriber.settle(&served).await;
    served.api.function_line(at(1_002), Bytes::from_static(b"plain \xff"));
    let request = RequestId::random();
    served.api.platform(at(1_003), &start(request));

    let mut stream = listener.accept().await;
    let mut events = Vec::new();
    while events.len() < 5 {
        let (first, batch) = take_batch(&mut stream, 200).await;
        assert_eq!(first, "POST /in?x=1 HTTP/1.1");
        events.extend(batch);
    }
    assert_eq!(
        types(&events),
        ["function", "platform.telemetrySubscription", "platform.extension", "function", "platform.start"]
    );
    assert_eq!(
        events[0],
        serde_json::json!({"time": "1970-01-01T00:00:01.000Z", "type": "function", "record": {"level": "INFO"}})
    );
    assert_eq!(
        events[1]["record"],
        serde_json::json!({"name": "watcher", "state": "Subscribed", "types": ["platform", "function"]})
    );
    assert_eq!(events[2]["record"], serde_json::json!({"name": "watcher", "state": "Ready", "events": []}));
    assert_eq!(events[3]["record"], "plain \u{fffd}");
    assert_eq!(
        events[4],
        serde_json::json!({
            "time": "1970-01-01T00:00:01.003Z",
            "type": "platform.start",
            "record": {"requestId": request.to_string(), "version": "$LATEST"},
        })
    );
}

#[tokio::test]
async fn a_line_a_record_over_tcp() {
    let served = serve().await;
    served.api.expect_extensions(Vec::new());
    let listener = Listener::new().await;
    let mut subscriber = Subscriber::registered(&served, "watcher").await;
    let body = serde_json::json!({
        "schemaVersion": "2022-07-01",
        "types": ["extension"],
        "buffering": {"timeoutMs": 25},
        "destination": {"protocol": "TCP", "port": listener.port},
    });
    subscriber.subscribe(&body).await;
    served.api.extension_line(at(0), Bytes::from_static(b"one"));
    served.api.extension_line(at(0), Bytes::from_static(b"two"));
    let mut stream = listener.accept().await;
    for expected in ["one", "two"] {
        let mut line = String::new();
        within(stream.read_line(&mut line)).await.unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap()["record"], expected);
    }
}

#[tokio::test]
async fn a_shutdown_hands_out_what_is_queued() {
    let served = serve().await;
    served.api.expect_extensions(Vec::new());
    let listener = Listener::new().await;
    let mut subscriber = Subscriber::registered(&served, "watcher").await;
    let mut body = http(listener.port, &["function"]);
    body["buffering"]["timeoutMs"] = 30_000.into();
    subscriber.subscribe(&body).await;
    subscriber.settle(&served).await;
    served.api.function_line(at(0), Bytes::from_static(b"last words"));
    let deadline = Timestamp::now() + jiff::SignedDuration::from_mins(1);
    let shutdown = served.api.shutdown(ShutdownReason::Spindown, deadline);
    let reading = async {
        let mut stream = listener.accept().await;
        take_batch(&mut stream, 200).await.1
    };
    let ((), batch) = within(async { tokio::join!(shutdown, reading) }).await;
    assert_eq!(batch[0]["record"], "last words");
}

#[tokio::test]
async fn a_batch_that_is_refused_comes_again() {
    let served = serve().await;
    served.api.expect_extensions(Vec::new());
    let listener = Listener::new().await;
    let mut subscriber = Subscriber::registered(&served, "watcher").await;
    subscriber.subscribe(&http(listener.port, &["function"])).await;
    served.api.function_line(at(0), Bytes::from_static(b"again"));
    let mut stream = listener.accept().await;
    let (_, first) = take_batch(&mut stream, 500).await;
    let mut stream = listener.accept().await;
    let (_, second) = take_batch(&mut stream, 200).await;
    assert_eq!(first, second);
}

#[tokio::test]
async fn what_a_slow_subscriber_misses_is_counted() {
    let served = serve().await;
    served.api.expect_extensions(Vec::new());
    let listener = Listener::new().await;
    let mut subscriber = Subscriber::registered(&served, "watcher").await;
    subscriber.subscribe(&http(listener.port, &["function"])).await;
    subscriber.settle(&served).await;
    // Far more than the queue holds, while nobody reads.
    const LINES: usize = 400;
    let line = Bytes::from(vec![b'x'; 10_000]);
    for _ in 0..LINES {
        served.api.function_line(at(0), line.clone());
    }
    let mut stream = listener.accept().await;
    let (mut kept, mut dropped) = (0, 0);
    let mut said = 0;
    while kept + dropped < LINES as u64 {
        for event in take_batch(&mut stream, 200).await.1 {
            match event["type"].as_str() {
                Some("function") => kept += 1,
                Some("platform.logsDropped") => {
                    dropped += event["record"]["droppedRecords"].as_u64().unwrap();
                    assert!(event["record"]["droppedBytes"].as_u64().unwrap() > 10_000);
                    said += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        if said == 0 && kept > 0 {
            // The count comes with the next batch, which needs an event to come at all.
            served.api.function_line(at(0), Bytes::from_static(b"on"));
            kept -= 1;
        }
    }
    assert!(kept >= 20 && dropped > 300, "{kept} kept, {dropped} dropped");
}

#[tokio::test]
async fn subscriptions_have_rules() {
    let served = serve().await;
    served.api.expect_extensions(Vec::new());
    let mut subscriber = Subscriber::registered(&served, "watcher").await;
    let mut other = Subscriber::registered(&served, "other").await;
    let mut bad = http(9, &["platform"]);
    bad["destination"]["URI"] = "http://example.com:80/".into();
    let reply = subscriber.put("/2022-07-01/telemetry", &bad).await;
    assert_eq!((reply.status, reply.json()["errorType"].as_str()), (400, Some("ValidationError")));

    subscriber.subscribe(&http(9, &["platform"])).await;
    subscriber.subscribe(&http(9, &["platform"])).await;
    let logs = serde_json::json!({
        "schemaVersion": "2021-03-18",
        "types": ["platform"],
        "destination": {"protocol": "HTTP", "URI": "http://sandbox:9"},
    });
    assert_eq!(subscriber.put("/2020-08-15/logs", &logs).await.status, 400);

    let headers = [("Lambda-Extension-Identifier", &*other.id)];
    other.client.send("GET", "/2020-01-01/extension/event/next", &headers, b"").await;
    let runtime = subscriber.settle(&served).await;
    let mut late = Subscriber { client: served.client().await, id: subscriber.id.clone() };
    for (path, error_type) in
        [("/2022-07-01/telemetry", "Telemetry.SubscriptionClosed"), ("/2020-08-15/logs", "Logs.SubscriptionClosed")]
    {
        let body = if path.ends_with("logs") { logs.clone() } else { http(9, &["platform"]) };
        let reply = late.put(path, &body).await;
        assert_eq!((reply.status, reply.json()["errorType"].as_str()), (403, Some(error_type)));
    }
    drop(runtime);
}

#[tokio::test]
async fn the_logs_api_has_its_own_shapes() {
    let served = serve().await;
    served.api.expect_extensions(Vec::new());
    let listener = Listener::new().await;
    let mut subscriber = Subscriber::registered(&served, "watcher").await;
    let body = serde_json::json!({
        "schemaVersion": "2021-03-18",
        "types": ["platform"],
        "buffering": {"timeoutMs": 25},
        "destination": {"protocol": "HTTP", "URI": format!("http://sandbox:{}", listener.port), "method": "PUT"},
    });
    let reply = subscriber.put("/2020-08-15/logs", &body).await;
    assert_eq!((reply.status, reply.text()), (200, "\"OK\""));
    subscriber.settle(&served).await;
    let request_id = RequestId::random();
    let metrics = Some(RuntimeDoneMetrics { duration_ms: 1.0, produced_bytes: Some(2) });
    served.api.platform(at(0), &start(request_id));
    let status = Status::Success;
    let (spans, tracing, error_type) = (Vec::new(), None, None);
    served.api.platform(at(0), &PlatformEvent::RuntimeDone { request_id, status, error_type, metrics, spans, tracing });
    served.api.platform(at(0), &report(request_id));
    let mut stream = listener.accept().await;
    let mut events = Vec::new();
    while events.len() < 6 {
        let (first, batch) = take_batch(&mut stream, 200).await;
        assert_eq!(first, "PUT / HTTP/1.1");
        events.extend(batch);
    }
    assert_eq!(
        types(&events),
        [
            "platform.logsSubscription",
            "platform.extension",
            "platform.start",
            "platform.runtimeDone",
            "platform.end",
            "platform.report"
        ]
    );
    assert_eq!(events[3]["record"], serde_json::json!({"requestId": request_id.to_string(), "status": "success"}));
    assert_eq!(
        events[5]["record"],
        serde_json::json!({
            "requestId": request_id.to_string(),
            "metrics": {"durationMs": 1.5, "billedDurationMs": 2, "memorySizeMB": 128, "maxMemoryUsedMB": 40},
        })
    );
}
