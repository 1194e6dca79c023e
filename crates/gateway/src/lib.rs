//! Function URLs: HTTP in, invocation, HTTP out.
//!
//! A URL is found by the host name, `<url-id>.lambda-url.<region>.<suffix>` (the suffix is `localhost` unless configured, which
//! browsers and most resolvers take for this machine), or, for clients that cannot resolve such names, by the path
//! `/_url/<url-id>/...` at any host. No other header is believed: `X-Forwarded-Host` means nothing here.
//!
//! A request goes through, in this order, as on AWS: the URL, CORS preflight, signature (`AWS_IAM`) or resource policy (`NONE`), body
//! (6 MB), resource policy (`AWS_IAM`), event (payload format 2.0), invocation, response. Each step is a module; [`serve`] lists them.
//!
//! Sources: <https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html>,
//! <https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html>, <https://docs.aws.amazon.com/lambda/latest/dg/configuration-response-streaming.html>.
#![forbid(unsafe_code)]

mod access;
mod address;
mod cors;
mod event;
mod refusal;
mod response;
mod serve;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use lambent_invoker::{Answer, Error, Invocation, Invoker};
use lambent_model::{Clock, FunctionArn, Qualifier, Region};
use lambent_policy::sigv4::Verifier;
use lambent_registry::{FunctionUrl, Registry, Resolved};

/// How function URLs look and how long their clients may take.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Region in host names.
    pub region: Region,
    /// What follows the region in host names.
    pub suffix: String,
    /// `http`, or `https` where something in front of this node speaks TLS: the scheme the function is told.
    pub scheme: &'static str,
    /// How long a client may take to send its body.
    pub body_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            region: Region::default(),
            suffix: "localhost".to_owned(),
            scheme: "http",
            body_timeout: Duration::from_secs(60),
        }
    }
}

/// What the gateway needs of the control plane: an in-memory snapshot.
pub trait Directory: Send + Sync + 'static {
    /// The URL of this id.
    fn function_url(&self, id: &str) -> Option<Arc<FunctionUrl>>;
    /// What its function stands for now, with the resource policy.
    fn resolve(&self, arn: &FunctionArn, qualifier: Option<&Qualifier>) -> Result<Resolved, lambent_registry::Error>;
}

impl Directory for Registry {
    fn function_url(&self, id: &str) -> Option<Arc<FunctionUrl>> {
        Registry::function_url(self, id)
    }

    fn resolve(&self, arn: &FunctionArn, qualifier: Option<&Qualifier>) -> Result<Resolved, lambent_registry::Error> {
        Registry::resolve(self, arn, qualifier)
    }
}

/// The one door behind which functions run.
#[async_trait]
pub trait Invoke: Send + Sync + 'static {
    /// Runs a function and gives its answer.
    async fn invoke(&self, invocation: Invocation) -> Result<Answer, Error>;
}

#[async_trait]
impl Invoke for Invoker {
    async fn invoke(&self, invocation: Invocation) -> Result<Answer, Error> {
        Invoker::invoke(self, invocation).await
    }
}

/// What the gateway is made of.
#[derive(Clone)]
pub struct Parts {
    /// Looks.
    pub settings: Settings,
    /// Finds URLs.
    pub directory: Arc<dyn Directory>,
    /// Runs functions.
    pub invoker: Arc<dyn Invoke>,
    /// Checks signatures.
    pub verifier: Arc<Verifier>,
    /// Wall-clock time for events.
    pub clock: Arc<dyn Clock>,
}

/// The listener's service. Serve it with `into_make_service_with_connect_info::<SocketAddr>()`, so that functions learn the
/// caller's address; how many connections there may be is the server's business.
pub fn router(parts: Parts) -> Router {
    Router::new().fallback(serve::serve).with_state(Arc::new(parts))
}
