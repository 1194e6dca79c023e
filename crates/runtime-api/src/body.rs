//! Reading request bodies that nobody vouches for: never more in memory than the limit, never for ever.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

/// What is read and thrown away of a body that is too large, so that a client which sends first and listens later hears of it.
const DRAIN_BYTES: u64 = 64 * 1024 * 1024;

/// The outcome of reading a body.
#[derive(Debug)]
pub(crate) enum Read {
    /// All of it, and its trailers.
    Whole(Bytes, Option<HeaderMap>),
    /// It is larger than the limit: its size where it was announced, else what came before it went too far.
    TooLarge(u64),
    /// The connection broke off.
    Broken,
}

/// Reads a body of at most `limit` bytes. What a client sends in one piece is not copied.
pub(crate) async fn read(body: &mut Incoming, limit: usize) -> Read {
    let announced = body.size_hint().exact();
    if let Some(announced) = announced.filter(|announced| *announced > limit as u64) {
        return Read::TooLarge(announced);
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Read::Broken };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                trailers = frame.into_trailers().ok();
                continue;
            }
        };
        let so_far = first.len() + rest.len() + data.len();
        if so_far > limit {
            return Read::TooLarge(so_far as u64);
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            // Announced is within the limit here.
            rest.reserve(announced.map_or(so_far, |announced| announced as usize));
            rest.extend_from_slice(&std::mem::take(&mut first));
        }
        rest.extend_from_slice(&data);
    }
    Read::Whole(if rest.is_empty() { first } else { rest.freeze() }, trailers)
}

/// Throws away what is left of a body; false where that is more than is worth reading, and the connection should end.
pub(crate) async fn drain(body: &mut Incoming) -> bool {
    let mut left = DRAIN_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, |data| data.len() as u64)) else { return false };
        left = rest;
    }
    true
}
