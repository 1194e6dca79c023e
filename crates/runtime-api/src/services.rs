//! What else is at the Runtime API's address: the services of the container's account, for the ordinary SDK.
//!
//! The socket is inside the container's own network, so whatever network a function has, it reaches this and nothing else of the host.
//! Requests that carry a signature (SigV4) are passed on as they are; whoever implements [`Services`] checks it. Credentials are in the
//! environment; `GET /lambent/2026-11-24/credentials` gives them in the form that SDKs ask containers' hosts for
//! (`AWS_CONTAINER_CREDENTIALS_FULL_URI`), for clones of snapshots, whose environment is older than they are. What is below
//! `/lambent/2026-11-24/calls` and at `/lambent/2026-11-24/dependencies` needs no signature: the socket says which container asks.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use jiff::Timestamp;

use crate::call::{Identity, Invoke};

/// An answer whose body may come piece by piece.
pub type Streamed = Response<StreamedBody>;

/// The body of such an answer.
pub type StreamedBody = UnsyncBoxBody<Bytes, io::Error>;

/// The header by which a chain of calls is followed.
pub(crate) const TRACE: &str = "x-amzn-trace-id";

/// What a container signs its requests with.
#[derive(Clone)]
pub struct Credentials {
    /// `AWS_ACCESS_KEY_ID`.
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key: String,
    /// `AWS_SESSION_TOKEN`.
    pub session_token: String,
    /// Until when they are good.
    pub expires_at: Timestamp,
}

/// Who asks.
#[derive(Clone)]
pub struct Caller {
    /// The container.
    pub identity: Identity,
    /// The invocation it is at work on; none before the first and between two.
    pub invoke: Option<Arc<Invoke>>,
}

/// Answers what is not the Runtime API's.
#[async_trait]
pub trait Services: Send + Sync + 'static {
    /// Fresh credentials that are good for this long; none where there cannot be any.
    fn credentials(&self, identity: &Identity, life: Duration) -> Option<Credentials>;

    /// Answers a signed request, or one about the invocation under way. A signature is not checked yet. Bounding the body is the answerer's.
    async fn answer(&self, caller: Caller, request: Request<Incoming>) -> Streamed;
}

/// A body of this server's own, or one of the services behind it.
pub(crate) enum Either {
    Own(Full<Bytes>),
    Services(StreamedBody),
}

impl Body for Either {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Own(body) => Pin::new(body).poll_frame(context).map_err(|never| match never {}),
            Self::Services(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Services(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Services(body) => body.size_hint(),
        }
    }
}
