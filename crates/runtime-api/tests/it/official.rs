//! AWS's own Rust client, unmodified, as the runtime: `tests/functions/rust`, built by `cargo xtask functions`.

use std::path::PathBuf;
use std::process::Stdio;

use lambent_runtime_api::{Body, InFlight, Init, Invoke, Response, ResponseMode};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::client::{Served, invocation, serve, within};

/// The function's process, and the API it asks. Dropping it ends both.
struct Running {
    served: Served,
    child: Child,
}

fn bootstrap() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")), PathBuf::from);
    let path = target.join("functions/rust/bootstrap");
    if !path.is_file() {
        eprintln!("SKIPPED: {} is not there; `cargo xtask functions` builds it", path.display());
        return None;
    }
    Some(path)
}

async fn start() -> Option<Running> {
    let bootstrap = bootstrap()?;
    let served = serve().await;
    served.api.expect_extensions(Vec::new());
    let child = Command::new(bootstrap)
        .env_clear()
        .env("AWS_LAMBDA_RUNTIME_API", format!("127.0.0.1:{}", served.port))
        .env("AWS_LAMBDA_FUNCTION_NAME", "thumb")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/thumb")
        .env("AWS_LAMBDA_LOG_STREAM_NAME", "stream")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    assert_eq!(within(served.api.ready()).await, Init::Ready);
    Some(Running { served, child })
}

impl Running {
    /// Invokes, and waits until the container could be used again.
    async fn call(&self, event: Value) -> Response {
        let InFlight { response, idle, .. } = self.served.api.invoke(invocation(event.to_string()));
        let response = within(response).await.unwrap();
        within(idle).await.unwrap();
        response
    }
}

fn success(response: Response) -> Value {
    match response {
        Response::Success { body: Body::Buffered(body), .. } => serde_json::from_slice(&body).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn failure(response: Response) -> Value {
    match response {
        Response::Error { body, .. } => serde_json::from_slice(&body).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn results_and_errors_of_every_kind() {
    let Some(running) = start().await else { return };
    for event in [json!({"key": "grün"}), json!([1, 2.5, null]), json!("text")] {
        assert_eq!(success(running.call(event.clone()).await), event);
    }
    let context = success(running.call(json!({"do": "context"})).await);
    assert_eq!(context["deadline"], 1_800_000_000_123_u64);
    assert_eq!(context["invoked_function_arn"], "arn:aws:lambda:us-east-1:123456789012:function:thumb");

    let error = failure(running.call(json!({"do": "error", "message": "no luck"})).await);
    assert_eq!(error["errorMessage"], "no luck");
    let error = failure(running.call(json!({"do": "panic", "message": "at the disco"})).await);
    assert!(error["errorMessage"].as_str().unwrap().contains("at the disco"), "{error}");
    // It goes on after a panic.
    assert_eq!(success(running.call(json!(1)).await), 1);
}

#[tokio::test]
async fn large_events_and_large_answers() {
    const FIVE_MB: usize = 5_000_000;
    let Some(running) = start().await else { return };
    let event = Value::String("e".repeat(FIVE_MB));
    assert_eq!(success(running.call(event.clone()).await), event);
    let answer = success(running.call(json!({"do": "large", "bytes": FIVE_MB})).await);
    assert_eq!(answer.as_str().unwrap().len(), FIVE_MB);
    let response = running.call(json!({"do": "large", "bytes": 7_000_000})).await;
    assert!(matches!(response, Response::TooLarge { bytes: 7_000_002 }), "{response:?}");
    assert_eq!(success(running.call(json!(1)).await), 1);
}

#[tokio::test]
async fn streams_to_streaming_and_to_buffered_callers() {
    let Some(running) = start().await else { return };
    let event = json!({"do": "stream", "pieces": 300, "bytes": 100_000});
    let invoke = Invoke { mode: ResponseMode::Streaming, ..invocation(event.to_string()) };
    let InFlight { response, idle, .. } = running.served.api.invoke(invoke);
    let Response::Success { content_type, body: Body::Stream(mut stream), mode } = within(response).await.unwrap()
    else {
        panic!("no stream")
    };
    assert_eq!(content_type, "application/vnd.awslambda.http-integration-response");
    assert_eq!(mode, ResponseMode::Streaming);
    let mut size = 0;
    let mut prelude = Vec::new();
    while let Some(piece) = within(stream.recv()).await {
        let piece = piece.unwrap();
        size += piece.len();
        prelude.extend_from_slice(&piece[..piece.len().min(200usize.saturating_sub(prelude.len()))]);
    }
    let end = prelude.windows(8).position(|window| window == [0; 8]).unwrap();
    assert_eq!(size, end + 8 + 300 * 100_000);
    within(idle).await.unwrap();

    let Response::Success { body: Body::Buffered(body), mode, .. } =
        running.call(json!({"do": "stream", "pieces": 3, "bytes": 10})).await
    else {
        panic!("no success")
    };
    assert!(body.ends_with(&[b'x'; 30]));
    assert_eq!(mode, ResponseMode::Streaming);
}

/// The crate announces trailers and then writes them as one more piece of the stream, which AWS passes on like any other.
#[tokio::test]
async fn a_stream_that_fails_ends_with_what_the_crate_says_of_it() {
    let Some(running) = start().await else { return };
    let event = json!({"do": "stream-error", "bytes": 10});
    let invoke = Invoke { mode: ResponseMode::Streaming, ..invocation(event.to_string()) };
    let InFlight { response, idle, .. } = running.served.api.invoke(invoke);
    let Response::Success { body: Body::Stream(mut stream), .. } = within(response).await.unwrap() else {
        panic!("no stream")
    };
    let mut all = Vec::new();
    while let Some(piece) = within(stream.recv()).await {
        all.extend_from_slice(&piece.unwrap());
    }
    let text = String::from_utf8(all).unwrap();
    let (_, said) = text.split_once("\0\0\0\0\0\0\0\0xxxxxxxxxx").unwrap();
    assert!(said.starts_with("Lambda-Runtime-Function-Error-Type: Runtime.StreamError\r\n"), "{said}");
    assert!(said.contains("Lambda-Runtime-Function-Error-Body: ") && said.ends_with("\r\n"), "{said}");
    within(idle).await.unwrap();
    assert_eq!(success(running.call(json!(1)).await), 1);
}

#[tokio::test]
async fn a_process_that_ends_leaves_the_answer_to_its_owner() {
    let Some(mut running) = start().await else { return };
    let flight = running.served.api.invoke(invocation(json!({"do": "exit", "code": 3}).to_string()));
    let status = within(running.child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(3));
    // The API does not know of processes: its owner does, and gives it up.
    drop(running.served);
    assert!(within(flight.response).await.is_err());
}
