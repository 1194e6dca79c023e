//! Clients that mean harm, or know no better. Whatever they do, the next one that behaves is served.

use lambent_runtime_api::{Body, Response};
use tokio::io::AsyncWriteExt as _;

use crate::client::{Client, Served, invocation, serve, within};

/// The container still works, over a connection of its own.
async fn still_works(served: &Served, runtime: &mut Client) {
    let flight = served.api.invoke(invocation("still"));
    let event = runtime.receive().await;
    assert_eq!(event.text(), "still");
    let id = event.header("Lambda-Runtime-Aws-Request-Id").unwrap();
    assert_eq!(runtime.respond(id, b"here").await.status, 202);
    let Response::Success { body: Body::Buffered(body), .. } = within(flight.response).await.unwrap() else {
        panic!("no success")
    };
    assert_eq!(&*body, b"here");
    runtime.ask().await;
    within(flight.idle).await.unwrap();
}

#[tokio::test]
async fn garbage_is_answered_or_dropped() {
    let served = serve().await;
    let mut runtime = served.ready().await;
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
    ] {
        let mut client = served.client().await;
        client.raw(garbage).await;
        client.stream.shutdown().await.unwrap();
        while within(client.try_receive()).await.is_some() {}
    }
    still_works(&served, &mut runtime).await;
}

#[tokio::test]
async fn a_head_without_end_is_cut_off() {
    let served = serve().await;
    let mut runtime = served.ready().await;
    let mut client = served.client().await;
    client.raw(b"GET /2018-06-01/ping HTTP/1.1\r\nX: ").await;
    let chunk = vec![b'x'; 64 * 1024];
    // It is cut off long before all of this.
    for _ in 0..64 {
        if client.stream.write_all(&chunk).await.is_err() {
            break;
        }
    }
    let reply = within(client.try_receive()).await;
    assert!(reply.is_none_or(|reply| reply.status == 431));
    still_works(&served, &mut runtime).await;
}

#[tokio::test]
async fn a_body_without_end_is_cut_off() {
    let served = serve().await;
    let mut runtime = served.ready().await;
    let flight = served.api.invoke(invocation("1"));
    let id = runtime.receive().await.header("Lambda-Runtime-Aws-Request-Id").unwrap().to_owned();
    let mut client = served.client().await;
    let head = format!(
        "POST /2018-06-01/runtime/invocation/{id}/response HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    client.raw(head.as_bytes()).await;
    let chunk = [b"100000\r\n".as_slice(), &vec![b'x'; 0x10_0000], b"\r\n"].concat();
    let mut sent = 0;
    while client.stream.write_all(&chunk).await.is_ok() {
        sent += 1;
        assert!(sent < 1_000, "read for ever");
    }
    assert!(matches!(within(flight.response).await.unwrap(), Response::TooLarge { .. }));
    // The invocation is over as far as the node is concerned; the runtime may go on.
    runtime.ask().await;
    within(flight.idle).await.unwrap();
    still_works(&served, &mut runtime).await;
}

#[tokio::test]
async fn a_length_that_is_not_kept_is_a_truncated_response() {
    let served = serve().await;
    let mut runtime = served.ready().await;
    let flight = served.api.invoke(invocation("1"));
    let id = runtime.receive().await.header("Lambda-Runtime-Aws-Request-Id").unwrap().to_owned();
    let mut client = served.client().await;
    let head = format!(
        "POST /2018-06-01/runtime/invocation/{id}/response HTTP/1.1\r\nHost: h\r\nContent-Length: 6000000\r\n\r\nx"
    );
    client.raw(head.as_bytes()).await;
    drop(client);
    let Response::Error { error_type, .. } = within(flight.response).await.unwrap() else { panic!("no error") };
    assert_eq!(error_type.as_deref(), Some("Runtime.TruncatedResponse"));
    runtime.ask().await;
    within(flight.idle).await.unwrap();
    still_works(&served, &mut runtime).await;
}

#[tokio::test]
async fn a_large_answer_to_nothing_is_refused_and_not_kept() {
    let served = serve().await;
    let mut runtime = served.ready().await;
    let mut client = served.client().await;
    for _ in 0..3 {
        let reply = client.respond(&uuid::Uuid::new_v4().to_string(), &vec![b'x'; 20_000_000]).await;
        assert_eq!(reply.status, 400);
    }
    still_works(&served, &mut runtime).await;
}

#[tokio::test]
async fn requests_in_a_row_on_one_connection_are_answered_in_order() {
    let served = serve().await;
    let mut runtime = served.ready().await;
    let mut client = served.client().await;
    let ping = "GET /2018-06-01/ping HTTP/1.1\r\nHost: h\r\n\r\n";
    let nowhere = "GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n";
    client.raw(format!("{ping}{nowhere}").repeat(50).as_bytes()).await;
    for _ in 0..50 {
        assert_eq!(client.receive().await.status, 200);
        assert_eq!(client.receive().await.status, 404);
    }
    still_works(&served, &mut runtime).await;
}

#[tokio::test]
async fn an_answer_and_the_next_question_may_come_at_once() {
    let served = serve().await;
    let mut runtime = served.ready().await;
    let flight = served.api.invoke(invocation("1"));
    let id = runtime.receive().await.header("Lambda-Runtime-Aws-Request-Id").unwrap().to_owned();
    let both = format!(
        "POST /2018-06-01/runtime/invocation/{id}/response HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n1\
         GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: h\r\n\r\n"
    );
    runtime.raw(both.as_bytes()).await;
    within(flight.idle).await.unwrap();
    assert_eq!(runtime.receive().await.status, 202);
    still_works(&served, &mut runtime).await;
}

#[tokio::test]
async fn connections_are_bounded_and_come_free_again() {
    let served = serve().await;
    let mut runtime = served.ready().await;
    let mut crowd = Vec::new();
    for _ in 0..100 {
        let mut client = served.client().await;
        client.raw(b"GET /2018-06-01/ping HT").await;
        crowd.push(client);
    }
    // Those that are being served, and the runtime among them, still are.
    still_works(&served, &mut runtime).await;
    // The last of the crowd is not, until others leave.
    let mut last = crowd.pop().unwrap();
    last.raw(b"TP/1.1\r\nHost: h\r\n\r\n").await;
    drop(crowd);
    assert_eq!(last.receive().await.text(), "pong");
    still_works(&served, &mut runtime).await;
}

#[tokio::test]
async fn polls_that_come_and_go_leave_nothing_behind() {
    let served = serve().await;
    let mut runtime = served.ready().await;
    for _ in 0..500 {
        let mut client = served.client().await;
        client.ask().await;
    }
    // Each of them may have been counted as a poll; the event still reaches the one that is there.
    let flight = served.api.invoke(invocation("1"));
    let event = runtime.receive().await;
    runtime.respond(event.header("Lambda-Runtime-Aws-Request-Id").unwrap(), b"1").await;
    within(flight.response).await.unwrap();
}

#[tokio::test]
async fn a_poll_that_is_half_closed_gets_no_event() {
    let served = serve().await;
    let mut runtime = served.ready().await;
    let flight = served.api.invoke(invocation("1"));
    let id = runtime.receive().await.header("Lambda-Runtime-Aws-Request-Id").unwrap().to_owned();
    runtime.respond(&id, b"1").await;
    let mut half = served.client().await;
    half.ask().await;
    within(flight.idle).await.unwrap();
    // This one polled first, and closes its sending side; then the runtime polls as well.
    half.stream.shutdown().await.unwrap();
    assert!(within(half.try_receive()).await.is_none());
    runtime.ask().await;
    still_works(&served, &mut runtime).await;
}

#[tokio::test]
async fn heads_beyond_the_small_buffer_are_refused_once_the_large_ones_are_taken() {
    let served = serve().await;
    let mut runtime = served.ready().await;
    let large = format!("GET /2018-06-01/ping HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(200_000));
    let mut crowd = Vec::new();
    for _ in 0..20 {
        let mut client = served.client().await;
        // Answered: it has been accepted, and has its buffer.
        assert_eq!(client.call("GET", "/2018-06-01/ping", &[], b"").await.status, 200);
        crowd.push(client);
    }
    let mut last = crowd.pop().unwrap();
    let _ = last.stream.write_all(large.as_bytes()).await;
    assert!(within(last.try_receive()).await.is_none_or(|reply| reply.status == 431));
    let mut first = crowd.remove(0);
    first.raw(large.as_bytes()).await;
    assert_eq!(first.receive().await.status, 200);
    still_works(&served, &mut runtime).await;
}
