//! `POST …/invocation/{id}/response` and `…/error`: from a request's body to the caller's [`Response`].

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use lambent_model::limits::{STREAMED_RESPONSE_BYTES, SYNC_RESPONSE_BYTES};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::body::{self, Read};
use crate::call::{Body, Response, ResponseMode, StreamError};
use crate::core::Answer;
use crate::machine::AnswerKind;
use crate::reply::{self, Reply};

/// `streaming` where the runtime streams.
const MODE: HeaderName = HeaderName::from_static("lambda-runtime-function-response-mode");
/// What kind of error, as a header of errors and a trailer of streams.
pub(crate) const ERROR_TYPE: HeaderName = HeaderName::from_static("lambda-runtime-function-error-type");
/// The error document of a stream that broke off, in base64, as a trailer.
const ERROR_BODY: HeaderName = HeaderName::from_static("lambda-runtime-function-error-body");
const XRAY_CAUSE: HeaderName = HeaderName::from_static("lambda-runtime-function-xray-error-cause");
/// An error document that holds the cause for X-Ray as well.
const ERROR_WITH_CAUSE: &str = "application/vnd.aws.lambda.error.cause+json";
/// Pieces of a streamed response that wait for the caller. A piece is at most what one read from the connection gives.
const PIECES: usize = 4;

/// Takes in an answer that has begun.
pub(crate) async fn take(answer: Answer, kind: AnswerKind, headers: &HeaderMap, body: Incoming) -> Reply {
    match kind {
        AnswerKind::Error => take_error(answer, headers, body).await,
        AnswerKind::Response => match headers.get(MODE).map(|mode| mode.as_bytes()) {
            None | Some(b"") => take_buffered(answer, headers, body, ResponseMode::Buffered).await,
            Some(b"streaming") if answer.mode == ResponseMode::Streaming => take_stream(answer, headers, body).await,
            Some(b"streaming") => take_buffered(answer, headers, body, ResponseMode::Streaming).await,
            Some(_) => {
                let mut answer = answer;
                answer.respond(error_response("Runtime.InvalidResponseModeHeader", Bytes::new()));
                answer.end(0);
                reply::invalid_mode()
            }
        },
    }
}

async fn take_buffered(mut answer: Answer, headers: &HeaderMap, mut body: Incoming, mode: ResponseMode) -> Reply {
    match body::read(&mut body, SYNC_RESPONSE_BYTES).await {
        Read::Whole(bytes, trailers) => {
            let size = bytes.len() as u64;
            answer.respond(match trailers.as_ref().and_then(trailing_error) {
                Some(error) => error_response(&error.error_type, error.body),
                None => Response::Success { content_type: content_type(headers), body: Body::Buffered(bytes), mode },
            });
            answer.end(size);
            reply::accepted()
        }
        Read::TooLarge(bytes) => too_large(answer, bytes, body).await,
        Read::Broken => broken(answer),
    }
}

async fn take_error(mut answer: Answer, headers: &HeaderMap, mut body: Incoming) -> Reply {
    match body::read(&mut body, SYNC_RESPONSE_BYTES).await {
        Read::Whole(bytes, _) => {
            let size = bytes.len() as u64;
            let (body, cause) = match headers.get(CONTENT_TYPE) {
                Some(content_type) if content_type == ERROR_WITH_CAUSE => split_cause(&bytes),
                Some(_) | None => (bytes, text(headers, &XRAY_CAUSE)),
            };
            answer.respond(Response::Error { error_type: text(headers, &ERROR_TYPE), body, xray_cause: cause });
            answer.end(size);
            reply::accepted()
        }
        Read::TooLarge(bytes) => too_large(answer, bytes, body).await,
        Read::Broken => broken(answer),
    }
}

/// Passes a response on as it comes. The caller that reads slowly slows the function down; the caller that went away does not.
async fn take_stream(mut answer: Answer, headers: &HeaderMap, mut body: Incoming) -> Reply {
    let (pieces, stream) = mpsc::channel(PIECES + 1);
    let mut end = StreamEnd(pieces.clone().try_reserve_owned().ok());
    answer.respond(Response::Success {
        content_type: content_type(headers),
        body: Body::Stream(stream),
        mode: ResponseMode::Streaming,
    });
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            drop(end);
            answer.end(size);
            return reply::truncated();
        };
        match frame.into_data() {
            Ok(data) => {
                size += data.len() as u64;
                if size > STREAMED_RESPONSE_BYTES {
                    end.fail(stream_too_large());
                    answer.end(size);
                    return drained(&mut body).await;
                }
                if !data.is_empty() {
                    // A caller that has gone away is no concern of the function's: it runs to its end.
                    let _ = pieces.send(Ok(data)).await;
                }
            }
            Err(frame) => {
                if let Some(error) = frame.trailers_ref().and_then(trailing_error) {
                    end.fail(error);
                    answer.end(size);
                    return reply::accepted();
                }
            }
        }
    }
    end.well();
    answer.end(size);
    reply::accepted()
}

/// The last word of a stream, kept free in its channel from the start. Dropped without one, the stream ends as truncated.
struct StreamEnd(Option<mpsc::OwnedPermit<Result<Bytes, StreamError>>>);

impl StreamEnd {
    fn well(mut self) {
        self.0 = None;
    }

    fn fail(&mut self, error: StreamError) {
        if let Some(permit) = self.0.take() {
            permit.send(Err(error));
        }
    }
}

impl Drop for StreamEnd {
    fn drop(&mut self) {
        self.fail(StreamError { error_type: TRUNCATED.to_owned(), body: document(TRUNCATED, TRUNCATED_MESSAGE) });
    }
}

const TRUNCATED: &str = "Runtime.TruncatedResponse";
const TRUNCATED_MESSAGE: &str = "The response of the function broke off before its end";

/// What the caller gets of an answer that broke off.
pub(crate) fn truncated() -> Response {
    error_response(TRUNCATED, document(TRUNCATED, TRUNCATED_MESSAGE))
}

fn stream_too_large() -> StreamError {
    let error_type = "Function.ResponseSizeTooLarge";
    let message =
        format!("Response payload size exceeded maximum allowed payload size ({STREAMED_RESPONSE_BYTES} bytes).");
    StreamError { error_type: error_type.to_owned(), body: document(error_type, &message) }
}

fn error_response(error_type: &str, body: Bytes) -> Response {
    Response::Error { error_type: Some(error_type.to_owned()), body, xray_cause: None }
}

fn document(error_type: &str, message: &str) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Document<'a> {
        error_type: &'a str,
        error_message: &'a str,
    }
    reply::body_of(&Document { error_type, error_message: message })
}

fn broken(mut answer: Answer) -> Reply {
    answer.respond(truncated());
    answer.end(0);
    reply::truncated()
}

async fn too_large(mut answer: Answer, bytes: u64, mut body: Incoming) -> Reply {
    answer.respond(Response::TooLarge { bytes });
    let reply = drained(&mut body).await;
    answer.end(bytes);
    reply
}

async fn drained(body: &mut Incoming) -> Reply {
    if body::drain(body).await { reply::too_large() } else { reply::closing(reply::too_large()) }
}

fn content_type(headers: &HeaderMap) -> String {
    text(headers, &CONTENT_TYPE).unwrap_or_else(|| "application/octet-stream".to_owned())
}

/// A header as text; what is not UTF-8 in it is replaced.
pub(crate) fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers
        .get(name)
        .filter(|value| !value.is_empty())
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn trailing_error(trailers: &HeaderMap) -> Option<StreamError> {
    let error_type = text(trailers, &ERROR_TYPE)?;
    let encoded = trailers.get(ERROR_BODY).map(|value| value.as_bytes()).unwrap_or_default();
    // Runtimes send base64; whatever else comes is passed on as it is.
    let body = BASE64.decode(encoded).unwrap_or_else(|_| encoded.to_vec());
    Some(StreamError { error_type, body: body.into() })
}

/// Parts the caller's document from the cause for X-Ray.
fn split_cause(bytes: &Bytes) -> (Bytes, Option<String>) {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct WithCause<'a> {
        #[serde(default)]
        error_message: String,
        #[serde(default)]
        error_type: String,
        #[serde(default)]
        stack_trace: Vec<String>,
        #[serde(borrow, default)]
        error_cause: Option<&'a RawValue>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Without<'a> {
        error_message: &'a str,
        error_type: &'a str,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        stack_trace: &'a [String],
    }
    match serde_json::from_slice::<WithCause>(bytes) {
        Ok(document) => {
            let without = Without {
                error_message: &document.error_message,
                error_type: &document.error_type,
                stack_trace: &document.stack_trace,
            };
            (reply::body_of(&without), document.error_cause.map(|cause| cause.get().to_owned()))
        }
        Err(_) => (Bytes::from_static(br#""Invalid error body""#), None),
    }
}

/// How long the runtime took, in the parts that AWS reports, and how much it answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Done {
    /// From the event's delivery to the first byte of the answer; none where it answered an event that was never delivered.
    pub latency: Option<Duration>,
    /// From the first byte of the answer to its last.
    pub duration: Duration,
    /// Size of the answer.
    pub produced_bytes: u64,
}
