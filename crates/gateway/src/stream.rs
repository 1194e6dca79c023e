//! Streamed answers: what the function sends is passed on as it comes.
//!
//! A stream of the type `application/vnd.awslambda.http-integration-response` begins with a JSON object (status, headers, cookies)
//! and eight zero bytes; any other stream is the body of a 200. A failure before the response has begun is a 502; after that
//! all that can be done is to break the connection, so that nobody takes a part for the whole.

use std::io;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use lambent_invoker::{Body as Answer, StreamError};
use tokio::sync::mpsc;

use crate::refusal::Refusal;
use crate::response::{self, Head};

/// The type of streams with a prelude.
pub(crate) const WITH_PRELUDE: &str = "application/vnd.awslambda.http-integration-response";
const DELIMITER: [u8; 8] = [0; 8];
/// Longest prelude; a function that sends more before the delimiter has failed.
const MAX_PRELUDE: usize = 64 * 1024;

/// The response that a streamed (or at least unparsed) answer means.
pub(crate) async fn respond(content_type: &str, answer: Answer) -> Result<Response, Refusal> {
    let mut source = Source::new(answer);
    if content_type.eq_ignore_ascii_case(WITH_PRELUDE) {
        let head = prelude(&mut source).await?;
        return Ok(head.respond(source.into_body()));
    }
    // Waits for the first piece, so that a failure before it can still be told as one.
    if let Some(first) = source.next().await? {
        source.unread(first);
    }
    let content_type = HeaderValue::from_str(content_type).map_err(|_| Refusal::Function)?;
    let head = Head { status: StatusCode::OK, headers: HeaderMap::from_iter([(CONTENT_TYPE, content_type)]) };
    Ok(head.respond(source.into_body()))
}

async fn prelude(source: &mut Source) -> Result<Head, Refusal> {
    let mut buffer = BytesMut::new();
    let mut searched = 0;
    loop {
        let found =
            buffer.get(searched..).unwrap_or_default().windows(DELIMITER.len()).position(|part| part == DELIMITER);
        if let Some(offset) = found {
            let json = buffer.split_to(searched + offset);
            let rest = buffer.split_off(DELIMITER.len());
            source.unread(rest.freeze());
            return response::prelude(&json);
        }
        if buffer.len() > MAX_PRELUDE {
            return Err(Refusal::Function);
        }
        // A delimiter may have begun in the last seven bytes.
        searched = buffer.len().saturating_sub(DELIMITER.len() - 1);
        buffer.extend_from_slice(&source.next().await?.ok_or(Refusal::Function)?);
    }
}

/// An answer's pieces.
struct Source {
    unread: Option<Bytes>,
    rest: Option<mpsc::Receiver<Result<Bytes, StreamError>>>,
}

impl Source {
    fn new(answer: Answer) -> Source {
        match answer {
            Answer::Buffered(whole) => Source { unread: Some(whole), rest: None },
            Answer::Stream(pieces) => Source { unread: None, rest: Some(pieces) },
        }
    }

    fn unread(&mut self, piece: Bytes) {
        self.unread = Some(piece);
    }

    async fn piece(&mut self) -> Option<Result<Bytes, StreamError>> {
        match self.unread.take() {
            Some(piece) => Some(Ok(piece)),
            None => self.rest.as_mut()?.recv().await,
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        self.piece().await.transpose().map_err(|error| {
            tracing::debug!(error_type = error.error_type, "the function failed before its response began");
            Refusal::Function
        })
    }

    fn into_body(self) -> Body {
        Body::from_stream(stream::unfold(self, async |mut source| {
            let piece = source.piece().await?.map_err(|error| {
                tracing::debug!(error_type = error.error_type, "the function failed in the middle of its response");
                io::Error::other(error.error_type)
            });
            Some((piece, source))
        }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn broken() -> StreamError {
        StreamError { error_type: "Sandbox.Timedout".to_owned(), body: Bytes::new() }
    }

    fn pieces(pieces: Vec<Result<Bytes, StreamError>>) -> Answer {
        let (sender, receiver) = mpsc::channel(pieces.len().max(1));
        for piece in pieces {
            sender.try_send(piece).unwrap();
        }
        Answer::Stream(receiver)
    }

    async fn body(response: Response) -> Option<Vec<u8>> {
        response.into_body().collect().await.ok().map(|body| body.to_bytes().to_vec())
    }

    const ANSWER: &[u8] =
        b"{\"statusCode\":418,\"headers\":{\"x-a\":\"b\"},\"cookies\":[\"c=d\"]}\0\0\0\0\0\0\0\0short\0and stout";

    #[tokio::test]
    async fn a_prelude_is_found_wherever_the_pieces_are_cut() {
        for cut in 0..=ANSWER.len() {
            let (left, right) = ANSWER.split_at(cut);
            let answer = pieces(vec![Ok(Bytes::from_static(left)), Ok(Bytes::from_static(right))]);
            let response = respond(WITH_PRELUDE, answer).await.unwrap();
            assert_eq!(response.status(), 418);
            assert_eq!(response.headers()["x-a"], "b");
            assert_eq!(response.headers()["set-cookie"], "c=d");
            assert_eq!(response.headers()["content-type"], "application/octet-stream");
            assert_eq!(body(response).await.unwrap(), b"short\0and stout");
        }
        let whole = respond(WITH_PRELUDE, Answer::Buffered(Bytes::from_static(ANSWER))).await.unwrap();
        assert_eq!(body(whole).await.unwrap(), b"short\0and stout");
    }

    #[tokio::test]
    async fn an_empty_prelude_and_an_empty_body_are_fine() {
        let response =
            respond(WITH_PRELUDE, pieces(vec![Ok(Bytes::from_static(b"{}\0\0\0\0\0\0\0\0"))])).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(body(response).await.unwrap(), b"");
        let response = respond("text/html", pieces(vec![])).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/html");
        assert_eq!(body(response).await.unwrap(), b"");
    }

    #[tokio::test]
    async fn a_failure_before_the_response_is_a_refusal() {
        let cases = [
            (WITH_PRELUDE, vec![Ok(Bytes::from_static(b"{\"statusCode\":200}"))]),
            (WITH_PRELUDE, vec![Ok(Bytes::from_static(b"{\"statusCode\"")), Err(broken())]),
            (WITH_PRELUDE, vec![Ok(Bytes::from_static(b"no json\0\0\0\0\0\0\0\0x"))]),
            (WITH_PRELUDE, vec![Ok(Bytes::from(vec![b' '; MAX_PRELUDE + 1])), Ok(Bytes::from_static(ANSWER))]),
            ("text/plain", vec![Err(broken())]),
        ];
        for (content_type, answer) in cases {
            assert!(matches!(respond(content_type, pieces(answer)).await, Err(Refusal::Function)));
        }
    }

    #[tokio::test]
    async fn a_failure_in_the_middle_breaks_the_body() {
        let response =
            respond("text/plain", pieces(vec![Ok(Bytes::from_static(b"half")), Err(broken())])).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(body(response).await, None);
    }
}
