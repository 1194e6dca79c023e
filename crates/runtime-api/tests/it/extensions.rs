//! The Extensions API.

use jiff::Timestamp;
use lambent_runtime_api::{ExtensionInfo, ExtensionKind, Init, Invoke, Lifecycle, MAX_EXTENSIONS, ShutdownReason};

use crate::client::{Client, Reply, Served, invocation, serve, within};

async fn register(client: &mut Client, name: &str, events: &str) -> Reply {
    let body = format!("{{\"events\":{events}}}");
    let headers = [("Lambda-Extension-Name", name), ("Lambda-Extension-Accept-Feature", "other, accountId")];
    client.call("POST", "/2020-01-01/extension/register", &headers, body.as_bytes()).await
}

/// An extension and the connection it talks over.
struct Extension {
    client: Client,
    id: String,
}

impl Extension {
    async fn registered(served: &Served, name: &str, events: &str) -> Self {
        let mut client = served.client().await;
        let reply = register(&mut client, name, events).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let id = reply.header("Lambda-Extension-Identifier").unwrap().to_owned();
        Self { client, id }
    }

    async fn ask(&mut self) {
        let headers = [("Lambda-Extension-Identifier", &*self.id)];
        self.client.send("GET", "/2020-01-01/extension/event/next", &headers, b"").await;
    }

    async fn error(&mut self, when: &str, error_type: &str) -> Reply {
        let headers =
            [("Lambda-Extension-Identifier", &*self.id), ("Lambda-Extension-Function-Error-Type", error_type)];
        self.client.call("POST", &format!("/2020-01-01/extension/{when}/error"), &headers, b"{\"a\":1}").await
    }
}

fn error_type(reply: &Reply) -> String {
    reply.json()["errorType"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_external_extension_lives_through_an_invocation() {
    let served = serve().await;
    served.api.expect_extensions(vec!["watcher".to_owned()]);
    let mut client = served.client().await;
    let reply = register(&mut client, "watcher", r#"["INVOKE","SHUTDOWN"]"#).await;
    assert_eq!(
        reply.json(),
        serde_json::json!({
            "accountId": "123456789012",
            "functionName": "thumb",
            "functionVersion": "$LATEST",
            "handler": "index.handler",
        })
    );
    let id = reply.header("Lambda-Extension-Identifier").unwrap().to_owned();
    assert_eq!(within(served.api.extensions_registered()).await, Init::Ready);
    let mut extension = Extension { client, id };

    // Ready only when both have asked.
    let mut runtime = served.client().await;
    runtime.ask().await;
    extension.ask().await;
    assert_eq!(within(served.api.ready()).await, Init::Ready);
    assert_eq!(
        served.api.extensions(),
        [ExtensionInfo {
            name: "watcher".to_owned(),
            kind: ExtensionKind::External,
            events: vec![Lifecycle::Invoke, Lifecycle::Shutdown],
            error_type: None,
        }]
    );

    let mut flight = served.api.invoke(Invoke { trace: Some("Root=1".to_owned()), ..invocation("1") });
    let event = extension.client.receive().await;
    assert!(event.header("Lambda-Extension-Event-Identifier").is_some());
    let request = runtime.receive().await.header("Lambda-Runtime-Aws-Request-Id").unwrap().to_owned();
    assert_eq!(
        event.json(),
        serde_json::json!({
            "eventType": "INVOKE",
            "deadlineMs": 1_800_000_000_123_i64,
            "requestId": request,
            "invokedFunctionArn": "arn:aws:lambda:us-east-1:123456789012:function:thumb",
            "tracing": {"type": "X-Amzn-Trace-Id", "value": "Root=1"},
        })
    );
    runtime.respond(&request, b"1").await;
    runtime.ask().await;
    within(flight.done).await.unwrap();
    // The extension is still at work, and the container with it.
    assert!(flight.idle.try_recv().is_err());
    extension.ask().await;
    within(flight.idle).await.unwrap();

    let deadline = Timestamp::now() + jiff::SignedDuration::from_mins(1);
    within(served.api.shutdown(ShutdownReason::Spindown, deadline)).await;
    let event = extension.client.receive().await.json();
    assert_eq!(event["eventType"], "SHUTDOWN");
    assert_eq!(event["shutdownReason"], "spindown");
    assert_eq!(event["deadlineMs"], deadline.as_millisecond());
}

#[tokio::test]
async fn a_shutdown_waits_for_an_extension_at_work_until_its_deadline() {
    let served = serve().await;
    served.api.expect_extensions(vec!["watcher".to_owned()]);
    let mut extension = Extension::registered(&served, "watcher", r#"["INVOKE","SHUTDOWN"]"#).await;
    let mut runtime = served.client().await;
    runtime.ask().await;
    extension.ask().await;
    within(served.api.ready()).await;
    let flight = served.api.invoke(invocation("1"));
    extension.client.receive().await;
    // At its deadline at once: the caller goes on to the signals.
    within(served.api.shutdown(ShutdownReason::Timeout, Timestamp::now())).await;
    assert!(within(flight.response).await.is_err());
    extension.ask().await;
    assert_eq!(extension.client.receive().await.json()["shutdownReason"], "timeout");
    within(served.api.shutdown(ShutdownReason::Timeout, Timestamp::now() + jiff::SignedDuration::from_mins(1))).await;
}

#[tokio::test]
async fn registration_has_rules() {
    let served = serve().await;
    served.api.expect_extensions(vec!["watcher".to_owned()]);
    let mut client = served.client().await;
    for (name, events, expected) in [
        ("", "[]", "Extension.InvalidExtensionName"),
        ("inside", "7", "InvalidRequestFormat"),
        ("inside", "[\"EXPLODE\"]", "Extension.InvalidEventType"),
        ("inside", "[\"SHUTDOWN\"]", "Extension.InvalidEventType"),
    ] {
        let reply = register(&mut client, name, events).await;
        assert_eq!((reply.status, &*error_type(&reply)), (403, expected), "{name} {events}");
    }
    let headers = [("Lambda-Extension-Name", "inside")];
    let body = br#"{"events":[],"configurationKeys":["A"]}"#;
    let reply = client.call("POST", "/2020-01-01/extension/register", &headers, body).await;
    assert_eq!(error_type(&reply), "InvalidRequestFormat");

    assert_eq!(register(&mut client, "watcher", "[]").await.status, 200);
    assert_eq!(error_type(&register(&mut client, "watcher", "[]").await), "Extension.InvalidExtensionState");
    for index in 1..MAX_EXTENSIONS {
        assert_eq!(register(&mut client, &format!("inside-{index}"), r#"["INVOKE"]"#).await.status, 200);
    }
    assert_eq!(error_type(&register(&mut client, "inside-1", "[]").await), "Extension.InvalidExtensionState");
    let reply = register(&mut client, "one-more", "[]").await;
    assert_eq!(reply.json()["errorMessage"], "Extension limit (10) reached");
    assert_eq!(error_type(&reply), "Extension.TooManyExtensions");

    served.client().await.ask().await;
    let mut runtime = served.client().await;
    runtime.ask().await;
    // Once the runtime has asked, nobody new comes in. The runtime's poll and this request race, so it is asked until it is closed.
    loop {
        let reply = register(&mut client, "late", "[]").await;
        if error_type(&reply) == "Extension.RegistrationClosed" {
            break;
        }
    }
}

#[tokio::test]
async fn identifiers_are_checked() {
    let served = serve().await;
    let mut client = served.client().await;
    let unknown = uuid::Uuid::new_v4().to_string();
    for (id, expected) in [
        (None, "Extension.MissingExtensionIdentifier"),
        (Some("nonsense"), "Extension.InvalidExtensionIdentifier"),
        (Some(&*unknown), "Extension.UnknownExtensionIdentifier"),
    ] {
        for (method, path) in [
            ("GET", "/2020-01-01/extension/event/next"),
            ("POST", "/2020-01-01/extension/init/error"),
            ("POST", "/2020-01-01/extension/exit/error"),
            ("PUT", "/2022-07-01/telemetry"),
        ] {
            let mut headers = vec![("Lambda-Extension-Function-Error-Type", "Extension.X")];
            headers.extend(id.map(|id| ("Lambda-Extension-Identifier", id)));
            let reply = client.call(method, path, &headers, b"").await;
            assert_eq!((reply.status, &*error_type(&reply)), (403, expected), "{path}");
        }
    }
}

#[tokio::test]
async fn an_extension_polls_once_at_a_time() {
    let served = serve().await;
    served.api.expect_extensions(Vec::new());
    let mut extension = Extension::registered(&served, "inside", r#"["INVOKE"]"#).await;
    extension.ask().await;
    let mut runtime = served.client().await;
    runtime.ask().await;
    within(served.api.ready()).await;
    let mut twin = Extension { client: served.client().await, id: extension.id.clone() };
    twin.ask().await;
    let reply = twin.client.receive().await;
    assert_eq!((reply.status, &*error_type(&reply)), (403, "Extension.InvalidExtensionState"));
}

#[tokio::test]
async fn an_extension_that_cannot_start_ends_the_init_phase() {
    let served = serve().await;
    served.api.expect_extensions(vec!["watcher".to_owned()]);
    let mut extension = Extension::registered(&served, "watcher", "[]").await;
    let headers = [("Lambda-Extension-Identifier", &*extension.id)];
    let reply = extension.client.call("POST", "/2020-01-01/extension/init/error", &headers, b"").await;
    assert_eq!(error_type(&reply), "Extension.MissingHeader");
    let reply = extension.error("init", "Extension.NoConfig").await;
    assert_eq!((reply.status, reply.text()), (202, r#"{"status":"OK"}"#));
    let Init::Error(error) = within(served.api.ready()).await else { panic!("ready") };
    assert_eq!(error.extension.as_deref(), Some("watcher"));
    assert_eq!(error.error_type.as_deref(), Some("Extension.NoConfig"));
    assert_eq!(&*error.body, b"{\"a\":1}");
    assert_eq!(served.api.extensions()[0].error_type.as_deref(), Some("Extension.NoConfig"));
    // Said again it is taken; asking for events is over.
    assert_eq!(extension.error("init", "Extension.NoConfig").await.status, 202);
    extension.ask().await;
    assert_eq!(error_type(&extension.client.receive().await), "Extension.InvalidExtensionState");
}

#[tokio::test]
async fn an_extension_that_fails_later_does_not_hold_the_container() {
    let served = serve().await;
    served.api.expect_extensions(vec!["watcher".to_owned()]);
    let mut extension = Extension::registered(&served, "watcher", r#"["INVOKE"]"#).await;
    extension.ask().await;
    let mut runtime = served.client().await;
    runtime.ask().await;
    within(served.api.ready()).await;
    let flight = served.api.invoke(invocation("1"));
    extension.client.receive().await;
    let request = runtime.receive().await.header("Lambda-Runtime-Aws-Request-Id").unwrap().to_owned();
    runtime.respond(&request, b"1").await;
    runtime.ask().await;
    within(flight.done).await.unwrap();
    assert_eq!(extension.error("exit", "Extension.Broken").await.status, 202);
    within(flight.idle).await.unwrap();
    assert_eq!(served.api.extensions()[0].error_type.as_deref(), Some("Extension.Broken"));
}
