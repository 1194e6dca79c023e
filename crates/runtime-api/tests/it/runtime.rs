//! The Runtime API.

use lambent_runtime_api::{Body, Init, InitError, Invoke, Response, ResponseMode, StreamError};

use crate::client::{Client, Served, invocation, serve, within};

fn error(error_type: &str, message: &str) -> serde_json::Value {
    serde_json::json!({"errorMessage": message, "errorType": error_type})
}

fn transition(from: &str, to: &str) -> serde_json::Value {
    let message =
        format!("State transition from {from} to {to} failed for runtime. Error: State transition is not allowed");
    error("InvalidStateTransition", &message)
}

async fn invoked(served: &Served, runtime: &mut Client, invoke: Invoke) -> (lambent_runtime_api::InFlight, String) {
    let flight = served.api.invoke(invoke);
    let event = runtime.receive().await;
    (flight, event.header("Lambda-Runtime-Aws-Request-Id").unwrap().to_owned())
}

#[tokio::test]
async fn an_event_goes_in_and_its_result_comes_out() {
    let served = serve().await;
    let mut runtime = served.ready().await;
    for round in 0..3 {
        let flight = served.api.invoke(Invoke {
            client_context: Some("{\"custom\":\n\"grün\"}".to_owned()),
            cognito_identity: Some("{\"cognitoIdentityId\":\"a\"}".to_owned()),
            trace: Some("Root=1-5-a;Parent=b;Sampled=1".to_owned()),
            tenant: Some("blue".to_owned()),
            ..invocation(format!("{{\"round\":{round}}}"))
        });
        let event = runtime.receive().await;
        assert_eq!(event.status, 200);
        assert_eq!(event.text(), format!("{{\"round\":{round}}}"));
        for (name, value) in [
            ("Content-Type", "application/json"),
            ("Lambda-Runtime-Deadline-Ms", "1800000000123"),
            ("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:thumb"),
            ("Lambda-Runtime-Trace-Id", "Root=1-5-a;Parent=b;Sampled=1"),
            ("Lambda-Runtime-Client-Context", "{\"custom\": \"grün\"}"),
            ("Lambda-Runtime-Cognito-Identity", "{\"cognitoIdentityId\":\"a\"}"),
            ("Lambda-Runtime-Aws-Tenant-Id", "blue"),
        ] {
            assert_eq!(event.header(name), Some(value), "{name}");
        }
        let id = event.header("Lambda-Runtime-Aws-Request-Id").unwrap();
        let reply = runtime.respond(id, b"\"done\"").await;
        assert_eq!((reply.status, reply.text()), (202, r#"{"status":"OK"}"#));
        let Response::Success { content_type, body: Body::Buffered(body), mode } =
            within(flight.response).await.unwrap()
        else {
            panic!("no success")
        };
        assert_eq!((&*content_type, &*body, mode), ("application/json", &b"\"done\""[..], ResponseMode::Buffered));
        runtime.ask().await;
        assert_eq!(within(flight.done).await.unwrap().produced_bytes, 6);
        within(flight.idle).await.unwrap();
    }
}

#[tokio::test]
async fn an_error_comes_out_as_the_runtime_wrote_it() {
    let served = serve().await;
    let mut runtime = served.ready().await;
    let (flight, id) = invoked(&served, &mut runtime, invocation("1")).await;
    let document = br#"{"errorType":"ValueError","errorMessage":"no"}"#;
    let path = format!("/2018-06-01/runtime/invocation/{id}/error");
    // The official Python client sends its whole stack in a header.
    let cause = format!(r#"{{"working_directory":"/var/task","paths":["{}"]}}"#, "x".repeat(900_000));
    let headers = [
        ("Lambda-Runtime-Function-Error-Type", "Function.ValueError"),
        ("Lambda-Runtime-Function-XRay-Error-Cause", &*cause),
    ];
    assert_eq!(runtime.call("POST", &path, &headers, document).await.status, 202);
    let Response::Error { error_type, body, xray_cause } = within(flight.response).await.unwrap() else {
        panic!("no error")
    };
    assert_eq!(error_type.as_deref(), Some("Function.ValueError"));
    assert_eq!(&*body, document);
    assert_eq!(xray_cause.unwrap(), cause);
}

#[tokio::test]
async fn a_cause_inside_the_error_document_is_taken_out_of_it() {
    let served = serve().await;
    let mut runtime = served.ready().await;
    let (flight, id) = invoked(&served, &mut runtime, invocation("1")).await;
    let path = format!("/2018-06-01/runtime/invocation/{id}/error");
    let headers = [("Content-Type", "application/vnd.aws.lambda.error.cause+json")];
    let document = br#"{"errorType":"E","errorMessage":"m","stackTrace":["a"],"errorCause":{"paths":["p"]}}"#;
    runtime.call("POST", &path, &headers, document).await;
    let Response::Error { body, xray_cause, .. } = within(flight.response).await.unwrap() else { panic!("no error") };
    assert_eq!(&*body, br#"{"errorMessage":"m","errorType":"E","stackTrace":["a"]}"#);
    assert_eq!(xray_cause.as_deref(), Some(r#"{"paths":["p"]}"#));
}

#[tokio::test]
async fn requests_out_of_turn_are_refused_as_aws_refuses_them() {
    let served = serve().await;
    served.api.expect_extensions(Vec::new());
    let mut runtime = served.client().await;
    let invalid_id = error("InvalidRequestID", "Invalid request ID");
    // Before anything was asked for.
    let early = runtime.respond(&uuid::Uuid::new_v4().to_string(), b"1").await;
    assert_eq!((early.status, early.json()), (400, invalid_id.clone()));

    runtime.ask().await;
    within(served.api.ready()).await;
    let (flight, id) = invoked(&served, &mut runtime, invocation("1")).await;
    for wrong in [&*uuid::Uuid::new_v4().to_string(), "nonsense", "%00"] {
        let reply = runtime.respond(wrong, b"1").await;
        assert_eq!((reply.status, reply.json()), (400, invalid_id.clone()), "{wrong}");
    }
    // Asked again before it answered, it gets the same event again.
    assert_eq!(runtime.next().await.header("Lambda-Runtime-Aws-Request-Id"), Some(&*id));
    let reply = runtime.call("POST", "/2018-06-01/runtime/init/error", &[], b"{}").await;
    assert_eq!((reply.status, reply.json()), (403, transition("Running", "InitError")));

    assert_eq!(runtime.respond(&id, b"first").await.status, 202);
    let second = runtime.respond(&id, b"second").await;
    assert_eq!((second.status, second.json()), (403, transition("RuntimeResponseSentState", "InvocationResponse")));
    let third = runtime.fail(&id, "Function.X", b"{}").await;
    assert_eq!((third.status, third.json()), (403, transition("RuntimeResponseSentState", "InvocationErrorResponse")));
    let Response::Success { body: Body::Buffered(body), .. } = within(flight.response).await.unwrap() else {
        panic!("no success")
    };
    assert_eq!(&*body, b"first");

    runtime.ask().await;
    within(flight.idle).await.unwrap();
    let mut other = served.client().await;
    assert_eq!(other.respond(&id, b"late").await.json(), invalid_id);
}

#[tokio::test]
async fn an_init_error_ends_the_init_phase() {
    let served = serve().await;
    served.api.expect_extensions(Vec::new());
    let mut runtime = served.client().await;
    let headers = [("Lambda-Runtime-Function-Error-Type", "Runtime.ImportModuleError")];
    let document = br#"{"errorType":"Runtime.ImportModuleError"}"#;
    let reply = runtime.call("POST", "/2018-06-01/runtime/init/error", &headers, document).await;
    assert_eq!((reply.status, reply.text()), (202, r#"{"status":"OK"}"#));
    let expected = InitError {
        error_type: Some("Runtime.ImportModuleError".to_owned()),
        body: document.as_slice().into(),
        extension: None,
    };
    assert_eq!(within(served.api.ready()).await, Init::Error(expected));
    let next = runtime.next().await;
    assert_eq!((next.status, next.json()), (403, transition("InitError", "Ready")));
}

#[tokio::test]
async fn the_limit_of_a_buffered_response_is_exact() {
    const LIMIT: usize = lambent_model::limits::SYNC_RESPONSE_BYTES;
    let served = serve().await;
    let mut runtime = served.ready().await;

    let (flight, id) = invoked(&served, &mut runtime, invocation("1")).await;
    assert_eq!(runtime.respond(&id, &vec![b'x'; LIMIT]).await.status, 202);
    let Response::Success { body: Body::Buffered(body), .. } = within(flight.response).await.unwrap() else {
        panic!("no success")
    };
    assert_eq!(body.len(), LIMIT);
    runtime.ask().await;
    within(flight.idle).await.unwrap();

    let (flight, id) = invoked(&served, &mut runtime, invocation("1")).await;
    let reply = runtime.respond(&id, &vec![b'x'; LIMIT + 1]).await;
    let message = format!("Exceeded maximum allowed payload size ({LIMIT} bytes).");
    assert_eq!((reply.status, reply.json()), (413, error("RequestEntityTooLarge", &message)));
    let response = within(flight.response).await.unwrap();
    assert!(matches!(response, Response::TooLarge { bytes } if bytes == LIMIT as u64 + 1), "{response:?}");

    // The container can be used again, over the same connection.
    runtime.ask().await;
    within(flight.idle).await.unwrap();
    let (flight, id) = invoked(&served, &mut runtime, invocation("2")).await;
    runtime.respond(&id, b"2").await;
    assert!(matches!(within(flight.response).await.unwrap(), Response::Success { .. }));
}

#[tokio::test]
async fn a_late_answer_to_an_earlier_attempt_is_not_taken_for_this_one() {
    let served = serve().await;
    let mut runtime = served.ready().await;
    let invoke = invocation("1");
    let mut invocations = Vec::new();
    for _ in 0..2 {
        // The second is a retry: the same request id.
        let flight = served.api.invoke(invoke.clone());
        let event = runtime.receive().await;
        let id = event.header("Lambda-Runtime-Aws-Request-Id").unwrap();
        invocations.push(event.header("Lambda-Runtime-Invocation-Id").unwrap().to_owned());
        let path = format!("/2018-06-01/runtime/invocation/{id}/response");
        if let [first, _] = &*invocations {
            for stale in [first, "nonsense"] {
                let reply = runtime.call("POST", &path, &[("Lambda-Runtime-Invocation-Id", stale)], b"late").await;
                assert_eq!((reply.status, reply.json()), (410, error("InvokeTimeout", "Invoke timeout")), "{stale}");
            }
        }
        let own = invocations.last().unwrap();
        let reply = runtime.call("POST", &path, &[("Lambda-Runtime-Invocation-Id", own)], b"right").await;
        assert_eq!(reply.status, 202);
        let Response::Success { body: Body::Buffered(body), .. } = within(flight.response).await.unwrap() else {
            panic!("no success")
        };
        assert_eq!(&*body, b"right");
        runtime.ask().await;
        within(flight.idle).await.unwrap();
    }
    assert_ne!(invocations[0], invocations[1]);
}

fn stream_head(id: &str) -> String {
    format!(
        "POST /2018-06-01/runtime/invocation/{id}/response HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\
         Content-Type: text/plain\r\nLambda-Runtime-Function-Response-Mode: streaming\r\n\
         Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n\r\n"
    )
}

fn streaming() -> Invoke {
    Invoke { mode: ResponseMode::Streaming, ..invocation("1") }
}

#[tokio::test]
async fn a_stream_comes_out_piece_by_piece() {
    let served = serve().await;
    let mut runtime = served.ready().await;
    let (flight, id) = invoked(&served, &mut runtime, streaming()).await;
    runtime.raw(stream_head(&id).as_bytes()).await;
    let Response::Success { content_type, body: Body::Stream(mut stream), .. } = within(flight.response).await.unwrap()
    else {
        panic!("no stream")
    };
    assert_eq!(content_type, "text/plain");
    for piece in ["one", "two"] {
        runtime.raw(format!("3\r\n{piece}\r\n").as_bytes()).await;
        assert_eq!(within(stream.recv()).await.unwrap().unwrap(), piece);
    }
    runtime.raw(b"0\r\n\r\n").await;
    assert!(within(stream.recv()).await.is_none());
    assert_eq!(runtime.receive().await.status, 202);
    runtime.ask().await;
    assert_eq!(within(flight.done).await.unwrap().produced_bytes, 6);
}

#[tokio::test]
async fn a_stream_that_fails_half_way_says_so() {
    let served = serve().await;
    let mut runtime = served.ready().await;
    let (flight, id) = invoked(&served, &mut runtime, streaming()).await;
    // base64 of {"errorMessage":"no"}
    let trailers = "Lambda-Runtime-Function-Error-Type: Function.E\r\n\
                    Lambda-Runtime-Function-Error-Body: eyJlcnJvck1lc3NhZ2UiOiJubyJ9\r\n";
    runtime.raw(format!("{}3\r\none\r\n0\r\n{trailers}\r\n", stream_head(&id)).as_bytes()).await;
    let Response::Success { body: Body::Stream(mut stream), .. } = within(flight.response).await.unwrap() else {
        panic!("no stream")
    };
    assert_eq!(within(stream.recv()).await.unwrap().unwrap(), "one");
    let expected = StreamError { error_type: "Function.E".to_owned(), body: r#"{"errorMessage":"no"}"#.into() };
    assert_eq!(within(stream.recv()).await, Some(Err(expected)));
    assert!(within(stream.recv()).await.is_none());
    assert_eq!(runtime.receive().await.status, 202);
}

#[tokio::test]
async fn a_stream_whose_runtime_dies_is_truncated() {
    let served = serve().await;
    let mut runtime = served.ready().await;
    let (flight, id) = invoked(&served, &mut runtime, streaming()).await;
    runtime.raw(format!("{}3\r\none\r\n", stream_head(&id)).as_bytes()).await;
    let Response::Success { body: Body::Stream(mut stream), .. } = within(flight.response).await.unwrap() else {
        panic!("no stream")
    };
    assert_eq!(within(stream.recv()).await.unwrap().unwrap(), "one");
    drop(runtime);
    let last = within(stream.recv()).await.unwrap().unwrap_err();
    assert_eq!(last.error_type, "Runtime.TruncatedResponse");
    assert!(within(stream.recv()).await.is_none());
}

#[tokio::test]
async fn a_stream_that_nobody_reads_any_more_runs_to_its_end() {
    let served = serve().await;
    let mut runtime = served.ready().await;
    let (flight, id) = invoked(&served, &mut runtime, streaming()).await;
    runtime.raw(stream_head(&id).as_bytes()).await;
    drop(within(flight.response).await.unwrap());
    for _ in 0..100 {
        runtime.raw(format!("1000\r\n{}\r\n", "x".repeat(0x1000)).as_bytes()).await;
    }
    runtime.raw(b"0\r\n\r\n").await;
    assert_eq!(runtime.receive().await.status, 202);
    runtime.ask().await;
    assert_eq!(within(flight.done).await.unwrap().produced_bytes, 100 * 0x1000);
    within(flight.idle).await.unwrap();
}

#[tokio::test]
async fn a_runtime_that_streams_to_a_buffered_caller_is_read_whole() {
    let served = serve().await;
    let mut runtime = served.ready().await;
    let (flight, id) = invoked(&served, &mut runtime, invocation("1")).await;
    runtime.raw(format!("{}3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n", stream_head(&id)).as_bytes()).await;
    let Response::Success { body: Body::Buffered(body), mode, .. } = within(flight.response).await.unwrap() else {
        panic!("no success")
    };
    assert_eq!((&*body, mode), (&b"onetwo"[..], ResponseMode::Streaming));
}

#[tokio::test]
async fn a_response_mode_that_does_not_exist_is_refused() {
    let served = serve().await;
    let mut runtime = served.ready().await;
    let (flight, id) = invoked(&served, &mut runtime, invocation("1")).await;
    let path = format!("/2018-06-01/runtime/invocation/{id}/response");
    let reply = runtime.call("POST", &path, &[("Lambda-Runtime-Function-Response-Mode", "fast")], b"1").await;
    assert_eq!(
        (reply.status, reply.json()),
        (400, error("InvalidFunctionResponseMode", "Invalid function response mode"))
    );
    let Response::Error { error_type, .. } = within(flight.response).await.unwrap() else { panic!("no error") };
    assert_eq!(error_type.as_deref(), Some("Runtime.InvalidResponseModeHeader"));
}

#[tokio::test]
async fn paths_that_do_not_exist() {
    let served = serve().await;
    let mut client = served.client().await;
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/2018-06-01", 404),
        ("GET", "/2018-06-01/runtime/restore/next", 404),
        ("GET", "/2019-01-01/runtime/invocation/next", 404),
        ("POST", "/2018-06-01/runtime/invocation/x/other", 404),
        ("POST", "/2018-06-01/runtime/invocation/next", 405),
        ("GET", "/2020-01-01/extension/register", 405),
        ("GET", "/2018-06-01/ping", 200),
    ] {
        assert_eq!(client.call(method, path, &[], b"").await.status, status, "{method} {path}");
    }
}

#[tokio::test]
async fn only_one_invocation_at_a_time() {
    let served = serve().await;
    served.api.expect_extensions(Vec::new());
    assert!(within(served.api.invoke(invocation("early")).response).await.is_err());
    let mut runtime = served.client().await;
    runtime.ask().await;
    within(served.api.ready()).await;
    let (flight, id) = invoked(&served, &mut runtime, invocation("first")).await;
    let second = served.api.invoke(invocation("second"));
    assert!(within(second.response).await.is_err());
    assert!(within(second.idle).await.is_err());
    runtime.respond(&id, b"1").await;
    assert!(within(flight.response).await.is_ok());
}

#[tokio::test]
async fn an_event_whose_poll_went_away_is_given_to_the_next_poll() {
    let served = serve().await;
    let runtime = served.ready().await;
    drop(runtime);
    // Whether or not the server has noticed by now, the event must reach the next one that asks.
    let flight = served.api.invoke(invocation("1"));
    let mut runtime = served.client().await;
    let event = runtime.next().await;
    assert_eq!(event.text(), "1");
    runtime.respond(event.header("Lambda-Runtime-Aws-Request-Id").unwrap(), b"1").await;
    assert!(within(flight.response).await.is_ok());
}

#[tokio::test]
async fn dropping_the_handle_ends_every_connection() {
    let served = serve().await;
    let mut runtime = served.ready().await;
    let flight = served.api.invoke(invocation("1"));
    runtime.receive().await;
    runtime.ask().await;
    runtime.receive().await;
    drop(served);
    assert!(within(runtime.try_receive()).await.is_none());
    assert!(within(flight.response).await.is_err());
}
