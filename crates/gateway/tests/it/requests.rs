use std::time::Duration;

use lambent_invoker::executions::Ask;
use lambent_invoker::{Error, Mode, ThrottleReason};
use lambent_model::idempotency::Mode as IdempotencyMode;
use lambent_model::limits;
use lambent_registry::shape::{Cors, InvokeMode};
use serde_json::json;

use crate::support::{Act, Gateway, PUBLIC, Setup};

const HELLO: Act = Act::Return(r#"{"statusCode":201,"headers":{"X-A":"b"},"cookies":["c=1","d=2"],"body":"hello"}"#);

#[tokio::test]
async fn an_open_url_is_called_by_host_name_and_by_path() {
    let gateway = Gateway::start(Setup::open(HELLO)).await;
    for (line, host) in
        [("GET /", "Host: abc123.lambda-url.us-east-1.localhost:9401"), ("GET /_url/abc123/", "Host: 127.0.0.1:9401")]
    {
        let reply = gateway.send(line, &[host], "").await;
        assert_eq!((reply.status, reply.body.as_str()), (201, "hello"));
        assert_eq!(reply.header("x-a"), "b");
        assert_eq!(reply.header("content-type"), "application/json");
        assert_eq!(reply.headers["set-cookie"], ["c=1", "d=2"]);
        assert_eq!(reply.header("x-amzn-requestid").len(), 36);
    }
    assert_eq!(gateway.calls(), 2);
}

#[tokio::test]
async fn the_event_tells_of_the_request() {
    let gateway = Gateway::start(Setup::open(Act::Echo)).await;
    let headers = ["Content-Type: text/plain", "X-Forwarded-Host: evil", "X-Amzn-Trace-Id: Root=1-2-3"];
    let reply = gateway.send("POST /_url/abc123/a%2Fb?x=1&x=2", &headers, "ping").await;
    assert_eq!(reply.status, 200);
    let event = gateway.event();
    assert_eq!(reply.body, event.to_string());
    assert_eq!(event["rawPath"], "/a%2Fb");
    assert_eq!(event["queryStringParameters"], json!({ "x": "1,2" }));
    assert_eq!(event["body"], "ping");
    assert_eq!(event["headers"]["x-amzn-trace-id"], "Root=1-2-3");
    let context = &event["requestContext"];
    assert_eq!(context["domainName"], "abc123.lambda-url.us-east-1.localhost");
    assert_eq!(context["http"]["sourceIp"], "127.0.0.1");
    assert_eq!(context["requestId"], reply.header("x-amzn-requestid"));
    assert_eq!(context["time"], "02/Jan/2026:03:04:05 +0000");
    let seen = gateway.function.seen.lock().unwrap();
    assert_eq!(seen[0].trace.as_deref(), Some("Root=1-2-3"));
    assert!(matches!(seen[0].mode, Mode::Buffered { .. }));
}

#[tokio::test]
async fn nobody_learns_whether_an_unknown_url_ever_was() {
    let gateway = Gateway::start(Setup::open(HELLO)).await;
    for (line, host) in [
        ("GET /", "Host: localhost"),
        ("GET /", "Host: zzz.lambda-url.us-east-1.localhost"),
        ("GET /_url/zzz/", "Host: x"),
        ("GET /", "Host: 127.0.0.1"),
    ] {
        let reply = gateway.send(line, &[host, "X-Forwarded-Host: abc123.lambda-url.us-east-1.localhost"], "").await;
        assert_eq!((reply.status, reply.body.as_str()), (403, r#"{"Message":null}"#));
        assert_eq!(reply.header("x-amzn-errortype"), "AccessDeniedException");
    }
    assert_eq!(gateway.calls(), 0);
}

#[tokio::test]
async fn an_open_url_needs_both_statements() {
    let only_url = PUBLIC.split("},\n").next().unwrap().to_owned() + "}";
    let denied = format!(
        r#"{PUBLIC}, {{"Effect": "Deny", "Principal": "*", "Action": "lambda:InvokeFunction", "Resource": "*"}}"#
    );
    let for_iam = PUBLIC.replace("\"NONE\"", "\"AWS_IAM\"");
    for statements in [String::new(), only_url, denied, for_iam] {
        let gateway = Gateway::start(Setup { statements: statements.clone(), ..Setup::open(HELLO) }).await;
        let reply = gateway.send("GET /", &[], "").await;
        assert_eq!((reply.status, reply.body.as_str()), (403, r#"{"Message":"Forbidden"}"#), "{statements}");
        assert_eq!(reply.header("x-amzn-errortype"), "AccessDeniedException");
        assert_eq!(gateway.calls(), 0);
    }
}

#[tokio::test]
async fn a_signed_url_takes_only_signed_requests() {
    let gateway = Gateway::start(Setup::signed(HELLO)).await;
    let unsigned = gateway.send("GET /", &[], "").await;
    assert_eq!((unsigned.status, unsigned.body.as_str()), (403, r#"{"Message":"Forbidden"}"#));

    let mut forged = (*gateway.owner).clone();
    forged.secret = "x".repeat(40);
    let reply = gateway.send_signed("GET /", "", &forged).await;
    assert_eq!((reply.status, reply.header("x-amzn-errortype")), (403, "InvalidSignatureException"));
    assert!(
        reply.body.starts_with(r#"{"message":"The request signature we calculated does not match"#),
        "{}",
        reply.body
    );
    assert_eq!(gateway.calls(), 0);

    let reply = gateway.send_signed("POST /p?q=1", "{}", &gateway.owner).await;
    assert_eq!(reply.status, 201);
    let event = gateway.event();
    let iam = &event["requestContext"]["authorizer"]["iam"];
    assert_eq!(iam["accessKey"], gateway.owner.id);
    assert_eq!(iam["userArn"], "arn:aws:iam::000000000000:root");
    assert!(event["headers"].get("authorization").is_none());
}

#[tokio::test]
async fn another_account_needs_the_owners_permission() {
    let allow = |action: &str| {
        format!(
            r#"{{"Effect": "Allow", "Principal": {{"AWS": "111122223333"}}, "Action": "{action}", "Resource": "*"}}"#
        )
    };
    let (url, invoke) = (allow("lambda:InvokeFunctionUrl"), allow("lambda:InvokeFunction"));
    for (statements, status) in [(String::new(), 403), (url.clone(), 403), (format!("{url},{invoke}"), 201)] {
        let gateway = Gateway::start(Setup { statements, ..Setup::signed(HELLO) }).await;
        assert_eq!(gateway.send_signed("GET /", "", &gateway.stranger).await.status, status);
    }
    let deny =
        r#"{"Effect": "Deny", "Principal": "*", "Action": "lambda:InvokeFunctionUrl", "Resource": "*"}"#.to_owned();
    let gateway = Gateway::start(Setup { statements: deny, ..Setup::signed(HELLO) }).await;
    assert_eq!(gateway.send_signed("GET /", "", &gateway.owner).await.status, 403);
}

#[tokio::test]
async fn failures_are_told_without_their_cause() {
    for act in [Act::Fail, Act::Return("no json"), Act::Return(r#"{"statusCode":"?"}"#)] {
        let gateway = Gateway::start(Setup::open(act)).await;
        let reply = gateway.send("GET /", &[], "").await;
        assert_eq!((reply.status, reply.body.as_str()), (502, "Internal Server Error"));
        assert_eq!(reply.header("content-type"), "application/json");
    }
    let throttled: fn() -> Error = || Error::Throttled { reason: ThrottleReason::ConcurrentInvocationLimitExceeded };
    let gateway = Gateway::start(Setup::open(Act::Refuse(throttled))).await;
    let reply = gateway.send("GET /", &[], "").await;
    assert_eq!((reply.status, reply.header("x-amzn-errortype")), (429, "TooManyRequestsException"));
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let gateway = Gateway::start(Setup::open(HELLO)).await;
    let reply =
        gateway.send("POST /", &["Content-Type: text/plain"], &"x".repeat(limits::SYNC_REQUEST_BYTES + 1)).await;
    assert_eq!((reply.status, reply.header("x-amzn-errortype")), (413, "RequestEntityTooLargeException"));
    assert_eq!(gateway.calls(), 0);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let setup = Setup { body_timeout: Duration::from_millis(20), ..Setup::open(HELLO) };
    let gateway = Gateway::start(setup).await;
    let answer = gateway.raw(b"POST /_url/abc123/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhalf").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn a_preflight_is_answered_without_the_function() {
    let cors = Cors {
        allow_origins: Some(vec!["https://a.example".to_owned()]),
        allow_methods: Some(vec!["POST".to_owned()]),
        ..Cors::default()
    };
    // Also where calls must be signed: a preflight never is.
    let gateway = Gateway::start(Setup { cors: Some(cors), ..Setup::signed(HELLO) }).await;
    let preflight = ["Origin: https://a.example", "Access-Control-Request-Method: POST"];
    let reply = gateway.send("OPTIONS /", &preflight, "").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    assert_eq!(reply.header("access-control-allow-origin"), "https://a.example");
    assert_eq!(reply.header("access-control-allow-methods"), "POST");
    // A refusal carries the headers, too: the page may read why.
    let reply = gateway.send("GET /", &["Origin: https://a.example"], "").await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (403, "https://a.example"));
    assert_eq!(gateway.calls(), 0);
    // Without a configuration the function decides.
    let gateway = Gateway::start(Setup::open(HELLO)).await;
    assert_eq!(gateway.send("OPTIONS /", &preflight, "").await.status, 201);
}

#[tokio::test]
async fn an_answer_says_how_it_came_about() {
    let gateway = Gateway::start(Setup::open(Act::Reuse(
        r#"{"statusCode":200,"headers":{"X-Lambent-Execution":"ran"},"body":""}"#,
    )))
    .await;
    assert_eq!(gateway.send("GET /", &[], "").await.headers["x-lambent-execution"], ["reused; record=7; age=5"]);
    let gateway = Gateway::start(Setup::open(HELLO)).await;
    assert!(!gateway.send("GET /", &[], "").await.headers.contains_key("x-lambent-execution"));
    assert_eq!(gateway.function.seen.lock().unwrap()[0].idempotency, None);
}

#[tokio::test]
async fn a_request_says_what_makes_it_the_same_if_its_caller_may() {
    let key = Ask { key: Some("a".to_owned()), ..Ask::default() };
    let (with_key, with_mode) = ("X-Lambent-Idempotency-Key: a", "X-Lambent-Idempotency: off");
    let seen = |gateway: &Gateway| {
        let seen = gateway.function.seen.lock().unwrap();
        let ask = seen.last().unwrap().idempotency.clone();
        ask.map(|ask| Ask { input: None, ..ask })
    };
    let gateway = Gateway::start(Setup::signed(HELLO)).await;
    assert_eq!(gateway.send_signed_with("GET /", &[with_key], "", &gateway.owner).await.status, 201);
    assert_eq!(seen(&gateway), Some(key.clone()));
    assert_eq!(gateway.send_signed_with("GET /", &[with_mode], "", &gateway.owner).await.status, 201);
    assert_eq!(seen(&gateway), Some(Ask { mode: Some(IdempotencyMode::Off), ..Ask::default() }));
    let refused = gateway.send_signed_with("GET /", &["X-Lambent-Idempotency: maybe"], "", &gateway.owner).await;
    assert_eq!((refused.status, refused.header("x-amzn-errortype")), (400, "InvalidParameterValueException"));
    assert!(refused.body.contains(r#""Type":"User""#) && refused.body.contains("maybe"), "{}", refused.body);

    let asks_for_keys = Setup { idempotency: Some(r#"{"mode": "key"}"#), ..Setup::open(HELLO) };
    let gateway = Gateway::start(asks_for_keys).await;
    assert_eq!(gateway.send("GET /", &[with_key], "").await.status, 201);
    assert_eq!(seen(&gateway), Some(key));
    let refused = gateway.send("GET /", &[with_mode], "").await;
    assert_eq!((refused.status, refused.header("x-amzn-errortype")), (403, "AccessDeniedException"));
    assert!(refused.body.contains("(configured: key)"), "{}", refused.body);
    let gateway = Gateway::start(Setup::open(HELLO)).await;
    assert_eq!(gateway.send("GET /", &[with_key], "").await.status, 403);
    assert_eq!(gateway.calls(), 0);
}

#[tokio::test]
async fn what_differs_each_time_is_no_input() {
    let setup = || Setup { idempotency: Some(r#"{"mode": "dependencies"}"#), ..Setup::signed(HELLO) };
    let gateway = Gateway::start(setup()).await;
    let traced = |trace| format!("X-Amzn-Trace-Id: Root=1-0-{trace}");
    gateway
        .send_signed_with("POST /a?b=1", &[&traced(1), "X-Lambent-Idempotency: dependencies"], "{}", &gateway.owner)
        .await;
    gateway.send_signed_with("POST /a?b=1", &[&traced(2)], "{}", &gateway.owner).await;
    for (line, header, body) in [
        ("PUT /a?b=1", "A: b", "{}"),
        ("POST /c?b=1", "A: b", "{}"),
        ("POST /a?b=2", "A: b", "{}"),
        ("POST /a?b=1", "A: b", "{}"),
        ("POST /a?b=1", "A: c", "{}"),
        ("POST /a?b=1", "A: b", "[]"),
    ] {
        gateway.send_signed_with(line, &[header], body, &gateway.owner).await;
    }
    let seen = gateway.function.seen.lock().unwrap();
    let mut inputs: Vec<_> = seen.iter().map(|call| call.idempotency.clone().unwrap().input.unwrap()).collect();
    assert_ne!(seen[0].payload, seen[1].payload);
    assert_eq!(inputs[0], inputs[1]);
    inputs.sort();
    inputs.dedup();
    assert_eq!(inputs.len(), 7, "all others differ");
}

fn streaming(content_type: &'static str, pieces: Vec<Result<&'static [u8], ()>>) -> Setup {
    Setup { invoke_mode: InvokeMode::ResponseStream, ..Setup::open(Act::Stream(content_type, pieces)) }
}

const PRELUDE: &str = "application/vnd.awslambda.http-integration-response";

#[tokio::test]
async fn a_stream_is_passed_on_piece_by_piece() {
    let pieces: Vec<Result<&[u8], ()>> =
        vec![Ok(b"{\"statusCode\":207,\"headers\":{\"x-s\":\"t\"}}\0\0\0\0"), Ok(b"\0\0\0\0one"), Ok(b"two")];
    let gateway = Gateway::start(streaming(PRELUDE, pieces)).await;
    let reply = gateway.send("GET /", &[], "").await;
    assert_eq!((reply.status, reply.header("x-s"), reply.is_chunked()), (207, "t", true));
    assert_eq!(reply.body, "3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n");
    assert!(matches!(gateway.function.seen.lock().unwrap()[0].mode, Mode::Streaming { .. }));

    let gateway = Gateway::start(streaming("text/event-stream", vec![Ok(b"data: 1\n\n")])).await;
    let reply = gateway.send("GET /", &[], "").await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "text/event-stream"));
}

#[tokio::test]
async fn a_stream_that_breaks_does_not_end_like_a_whole_one() {
    let gateway = Gateway::start(streaming("text/plain", vec![Ok(b"half"), Err(())])).await;
    let answer = gateway.raw(b"GET /_url/abc123/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
    let gateway = Gateway::start(streaming(PRELUDE, vec![Err(())])).await;
    assert_eq!(gateway.send("GET /", &[], "").await.status, 502);
}
