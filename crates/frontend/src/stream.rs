//! `InvokeWithResponseStream`: the answer as an AWS event stream, sent piece by piece.
//!
//! Each piece of the function's answer is a `PayloadChunk`; one `InvokeComplete` ends the stream and says how it went.
//! Nothing is gathered: a slow reader slows the function, through the bounded channel behind the answer.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue as EventValue, Message};
use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderValue, header};
use lambent_invoker::{Answer, Body as AnswerBody, LogTail, Report, StreamError};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

/// What is still to be sent.
enum Rest {
    Whole(Bytes),
    Pieces(mpsc::Receiver<Result<Bytes, StreamError>>),
    Failed { code: String, details: String },
    Complete,
    Nothing,
}

struct Sender {
    rest: Rest,
    finished: Option<oneshot::Receiver<Report>>,
}

/// The response whose body is the stream.
pub(crate) fn response(answer: Answer, log_tail: LogTail) -> Response {
    let rest = match (answer.error, answer.body) {
        (Some(kind), AnswerBody::Buffered(document)) => {
            Rest::Failed { code: kind.to_string(), details: String::from_utf8_lossy(&document).into_owned() }
        }
        (_, AnswerBody::Buffered(whole)) => Rest::Whole(whole),
        (_, AnswerBody::Stream(pieces)) => Rest::Pieces(pieces),
    };
    // Only who asked for the log has to wait until all is over.
    let finished = answer.finished.filter(|_| log_tail == LogTail::Tail);
    let frames = stream::unfold(Sender { rest, finished }, |mut sender| async {
        let frame = sender.next().await?;
        Some((Ok::<_, std::convert::Infallible>(frame), sender))
    });
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/vnd.amazon.eventstream"));
    if let Ok(media) = HeaderValue::try_from(answer.content_type) {
        headers.insert("x-amzn-remapped-content-type", media);
    }
    if let Ok(version) = HeaderValue::try_from(answer.executed_version.to_string()) {
        headers.insert("x-amz-executed-version", version);
    }
    response
}

impl Sender {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            match std::mem::replace(&mut self.rest, Rest::Nothing) {
                Rest::Nothing => return None,
                Rest::Complete => return Some(self.complete(None).await),
                Rest::Failed { code, details } => return Some(self.complete(Some((code, details))).await),
                Rest::Whole(whole) => {
                    self.rest = Rest::Complete;
                    if !whole.is_empty() {
                        return Some(chunk(whole));
                    }
                }
                Rest::Pieces(mut pieces) => match pieces.recv().await {
                    Some(Ok(piece)) => {
                        self.rest = Rest::Pieces(pieces);
                        if !piece.is_empty() {
                            return Some(chunk(piece));
                        }
                    }
                    Some(Err(error)) => {
                        let details = String::from_utf8_lossy(&error.body).into_owned();
                        self.rest = Rest::Failed { code: error.error_type, details };
                    }
                    None => self.rest = Rest::Complete,
                },
            }
        }
    }

    async fn complete(&mut self, failed: Option<(String, String)>) -> Bytes {
        let mut document = Map::new();
        if let Some((code, details)) = failed {
            document.insert("ErrorCode".to_owned(), code.into());
            document.insert("ErrorDetails".to_owned(), details.into());
        }
        if let Some(finished) = self.finished.take() {
            let tail = finished.await.ok().and_then(|report| report.log_tail).unwrap_or_default();
            document.insert("LogResult".to_owned(), STANDARD.encode(tail).into());
        }
        frame("event", "InvokeComplete", "application/json", Value::Object(document).to_string().into())
    }
}

fn chunk(piece: Bytes) -> Bytes {
    frame("event", "PayloadChunk", "application/octet-stream", piece)
}

/// One message of an event stream; its kind is `event` or `exception`.
pub(crate) fn frame(kind: &'static str, name: &'static str, media: &'static str, payload: Bytes) -> Bytes {
    let text = |value: &'static str| EventValue::String(value.into());
    let mut buffer = BytesMut::with_capacity(payload.len() + 128);
    let message = Message::new(payload)
        .add_header(Header::new(if kind == "exception" { ":exception-type" } else { ":event-type" }, text(name)))
        .add_header(Header::new(":content-type", text(media)))
        .add_header(Header::new(":message-type", text(kind)));
    if let Err(error) = write_message_to(&message, &mut buffer) {
        // Only a message beyond 16 MiB fails, and no piece is that long.
        tracing::error!(%error, "a piece of a streamed answer cannot be framed");
    }
    buffer.freeze()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use aws_smithy_eventstream::frame::read_message_from;
    use lambent_model::{RequestId, Version};

    use super::*;

    async fn events(body: AnswerBody) -> Vec<(String, String)> {
        let answer = Answer {
            executed_version: Version::Latest,
            request_id: RequestId::random(),
            error: None,
            content_type: "text/plain".to_owned(),
            body,
            stages: lambent_invoker::Stages::since(std::time::Instant::now()),
            log_tail: None,
            finished: None,
            execution: None,
            affinity: None,
        };
        let response = response(answer, LogTail::None);
        let mut bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let mut events = Vec::new();
        while !bytes.is_empty() {
            let message = read_message_from(&mut bytes).unwrap();
            let kind = message.headers().iter().find(|header| header.name().as_str() == ":event-type").unwrap();
            let payload = String::from_utf8(message.payload().to_vec()).unwrap();
            events.push((kind.value().as_string().unwrap().as_str().to_owned(), payload));
        }
        events
    }

    fn event(kind: &str, payload: &str) -> (String, String) {
        (kind.to_owned(), payload.to_owned())
    }

    #[tokio::test]
    async fn pieces_come_as_they_are_and_the_end_is_told() {
        let (sender, pieces) = mpsc::channel(4);
        sender.send(Ok(Bytes::from_static(b"one"))).await.unwrap();
        sender.send(Ok(Bytes::from_static(b"two"))).await.unwrap();
        drop(sender);
        let expected = [event("PayloadChunk", "one"), event("PayloadChunk", "two"), event("InvokeComplete", "{}")];
        assert_eq!(events(AnswerBody::Stream(pieces)).await, expected);
        let expected = [event("PayloadChunk", "whole"), event("InvokeComplete", "{}")];
        assert_eq!(events(AnswerBody::Buffered(Bytes::from_static(b"whole"))).await, expected);
    }

    #[tokio::test]
    async fn a_stream_that_breaks_off_ends_with_its_error() {
        let (sender, pieces) = mpsc::channel(4);
        sender.send(Ok(Bytes::from_static(b"one"))).await.unwrap();
        let error = StreamError { error_type: "Function.Oops".to_owned(), body: Bytes::from_static(b"{}") };
        sender.send(Err(error)).await.unwrap();
        drop(sender);
        let end = r#"{"ErrorCode":"Function.Oops","ErrorDetails":"{}"}"#;
        assert_eq!(
            events(AnswerBody::Stream(pieces)).await,
            [event("PayloadChunk", "one"), event("InvokeComplete", end)]
        );
    }
}
