//! What goes wrong, as AWS's clients read it: a code, a status and a body in the form of that error's shape.
//!
//! Every subsystem's error becomes a [`Failure`] in exactly one place here. The public text and the cause are apart: the
//! cause is logged where the failure is made into a response, and never sent.

use std::error::Error as _;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use lambent_model::RequestId;
use lambent_policy::sigv4;
use serde_json::{Map, Value};

use crate::model::{LAMBDA, Model, SCHEDULER};

/// Which error documents a service writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Lambda: the code in `x-amzn-ErrorType`, `Type` and `message` or `Message` in the body.
    RestJson,
    /// The scheduler: the same, in its own shapes.
    Scheduler,
    /// CloudWatch Logs: the code as `__type` in the body.
    Json,
}

/// A refused or failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
    /// AWS's `Reason`, which throttling has.
    pub reason: Option<String>,
}

impl Failure {
    /// A failure of this status.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, code, message: message.into(), reason: None }
    }

    /// A constraint of the model is broken.
    pub fn validation(message: impl Into<String>) -> Self {
        Self::new(400, "ValidationException", message)
    }

    /// A value is of a wrong type, or the body is no JSON.
    pub fn serialization(message: impl Into<String>) -> Self {
        Self::new(400, "SerializationException", message)
    }

    /// A value is refused for its meaning.
    pub fn invalid_parameter(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidParameterValueException", message)
    }

    /// The body or a header of an invocation cannot be read.
    pub fn invalid_content(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidRequestContentException", message)
    }

    /// The operation is known and not built.
    pub fn not_built(what: &str) -> Self {
        Self::new(501, "NotImplementedException", format!("{what} is not built yet"))
    }

    /// No operation has this method and path.
    pub fn unknown_operation() -> Self {
        Self::new(404, "UnknownOperationException", "")
    }

    /// The body is larger than the operation takes.
    pub fn too_large(limit: usize, operation: &str) -> Self {
        let operation = if operation == "Invoke" { "InvokeFunction" } else { operation };
        let text = format!("Request must be smaller than {limit} bytes for the {operation} operation");
        let code =
            if operation == "InvokeFunction" { "RequestTooLargeException" } else { "RequestEntityTooLargeException" };
        Self::new(413, code, text)
    }

    /// The payload is larger than an event can be.
    pub fn event_too_large(bytes: usize) -> Self {
        let limit = lambent_model::limits::ASYNC_REQUEST_BYTES;
        let text = format!("{bytes} byte payload is too large for the Event invocation type (limit {limit} bytes)");
        Self::new(413, "RequestEntityTooLargeException", text)
    }

    /// Something of ours failed; what, is in the log.
    pub fn internal() -> Self {
        Self::new(500, "ServiceException", "The AWS Lambda service encountered an internal error.")
    }

    /// The response.
    pub fn into_response(self, dialect: Dialect, id: RequestId) -> Response {
        let body = match dialect {
            Dialect::RestJson => self.document(&LAMBDA),
            Dialect::Scheduler => self.document(&SCHEDULER),
            Dialect::Json => {
                let mut body = Map::new();
                body.insert("__type".to_owned(), self.code.into());
                body.insert("message".to_owned(), self.message.clone().into());
                body
            }
        };
        let mut response = Response::new(Body::from(Value::Object(body).to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let media = match dialect {
            Dialect::RestJson | Dialect::Scheduler => "application/json",
            Dialect::Json => "application/x-amz-json-1.1",
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
        headers.insert("x-amzn-errortype", HeaderValue::from_static(self.code));
        if self.status == StatusCode::TOO_MANY_REQUESTS && self.reason.is_some() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        crate::respond::set_request_id(headers, id);
        response
    }

    /// The members of the error's shape; for an error that the model does not have, only `message`.
    fn document(&self, model: &Model) -> Map<String, Value> {
        let shape = model.error(self.code).map(|(_, shape)| shape);
        let mut body = Map::new();
        if shape.is_some_and(|shape| shape.has("Type")) {
            let kind = if self.status.is_server_error() { "Service" } else { "User" };
            body.insert("Type".to_owned(), kind.into());
        }
        if let Some(reason) = &self.reason {
            body.insert("Reason".to_owned(), reason.as_str().into());
        }
        let key = if shape.is_some_and(|shape| shape.has("Message")) { "Message" } else { "message" };
        body.insert(key.to_owned(), self.message.as_str().into());
        body
    }
}

impl From<sigv4::Error> for Failure {
    fn from(error: sigv4::Error) -> Self {
        Self::new(error.status().as_u16(), error.code(), error.to_string())
    }
}

impl From<lambent_registry::Error> for Failure {
    fn from(error: lambent_registry::Error) -> Self {
        if let lambent_registry::Error::Store(cause) = &error {
            tracing::error!(error = %cause, source = cause.source().map(tracing::field::display), "the store failed");
        }
        Self::new(error.status(), error.code(), error.to_string())
    }
}

impl From<lambent_invoker::Error> for Failure {
    fn from(error: lambent_invoker::Error) -> Self {
        match error {
            lambent_invoker::Error::Resolve(error) => error.into(),
            error => {
                if let lambent_invoker::Error::Store(cause) = &error {
                    tracing::error!(error = %cause, source = cause.source().map(tracing::field::display), "an event was not kept");
                }
                if let lambent_invoker::Error::Service(cause) = &error {
                    tracing::error!(error = %cause, source = cause.source().map(tracing::field::display), "an invocation failed");
                }
                let mut failure = Self::new(error.status(), error.code(), error.to_string());
                failure.reason = error.reason().map(|reason| reason.to_string());
                failure
            }
        }
    }
}

impl From<lambent_invoker::schedules::Error> for Failure {
    fn from(error: lambent_invoker::schedules::Error) -> Self {
        if let lambent_invoker::schedules::Error::Store(cause) = &error {
            tracing::error!(error = %cause, source = cause.source().map(tracing::field::display), "the store failed");
        }
        let (code, status) = error.code();
        Self::new(status, code, error.to_string())
    }
}

impl From<lambent_store::Error> for Failure {
    fn from(error: lambent_store::Error) -> Self {
        tracing::error!(%error, source = error.source().map(tracing::field::display), "the store failed");
        Self::new(503, "ServiceUnavailableException", "The service cannot complete the request.")
    }
}

#[cfg(test)]
mod tests {
    use lambent_registry::{Error as Registry, State};

    use super::*;

    /// Whether AWS's SDKs try again: on throttling and on what is the service's fault.
    fn is_retried(failure: &Failure) -> bool {
        failure.status.is_server_error() || failure.status == StatusCode::TOO_MANY_REQUESTS
    }

    #[test]
    fn every_error_has_awss_code_status_and_retryability() {
        let text = || "text".to_owned();
        let throttled = lambent_invoker::ThrottleReason::ConcurrentInvocationLimitExceeded;
        let failures: [(Failure, &str, u16, bool); 33] = [
            (Registry::InvalidParameterValue(text()).into(), "InvalidParameterValueException", 400, false),
            (Registry::Validation(text()).into(), "ValidationException", 400, false),
            (Registry::ResourceNotFound(text()).into(), "ResourceNotFoundException", 404, false),
            (Registry::ResourceConflict(text()).into(), "ResourceConflictException", 409, false),
            (Registry::ResourceInUse(text()).into(), "ResourceInUseException", 400, false),
            (Registry::PreconditionFailed(text()).into(), "PreconditionFailedException", 412, false),
            (Registry::AccessDenied(text()).into(), "AccessDeniedException", 403, false),
            (Registry::PolicyLengthExceeded(text()).into(), "PolicyLengthExceededException", 400, false),
            (Registry::CodeStorageExceeded(text()).into(), "CodeStorageExceededException", 400, false),
            (Registry::RequestTooLarge(text()).into(), "RequestEntityTooLargeException", 413, false),
            (Registry::CodeSigningConfigNotFound(text()).into(), "CodeSigningConfigNotFoundException", 404, false),
            (
                Registry::ProvisionedConcurrencyConfigNotFound(text()).into(),
                "ProvisionedConcurrencyConfigNotFoundException",
                404,
                false,
            ),
            (Registry::TooManyRequests.into(), "TooManyRequestsException", 429, true),
            (
                lambent_invoker::Error::NotReady { state: State::Pending }.into(),
                "ResourceConflictException",
                409,
                false,
            ),
            (lambent_invoker::Error::Throttled { reason: throttled }.into(), "TooManyRequestsException", 429, true),
            (lambent_invoker::Error::TooLarge { limit: 1 }.into(), "RequestEntityTooLargeException", 413, false),
            (lambent_invoker::Error::QueueFull.into(), "TooManyRequestsException", 429, true),
            (lambent_invoker::Error::Recursive.into(), "RecursiveInvocationException", 400, false),
            (lambent_invoker::Error::RecordsFull.into(), "TooManyRequestsException", 429, true),
            (lambent_invoker::Error::NoIdempotencyKey.into(), "InvalidParameterValueException", 400, false),
            (lambent_invoker::Error::AffinityValue { bytes: 0 }.into(), "InvalidParameterValueException", 400, false),
            (lambent_invoker::Error::IdempotencyMismatch.into(), "IdempotentParameterMismatchException", 400, false),
            (lambent_invoker::Error::AnswerTooLarge { limit: 1 }.into(), "ResponseSizeTooLargeException", 413, false),
            (lambent_invoker::Error::Lost.into(), "ServiceException", 500, true),
            (Failure::event_too_large(1), "RequestEntityTooLargeException", 413, false),
            (lambent_invoker::Error::ShuttingDown.into(), "ServiceException", 503, true),
            (
                lambent_invoker::Error::SnapStart { error_type: "Runtime.AfterRestoreError".to_owned() }.into(),
                "SnapStartException",
                400,
                false,
            ),
            (lambent_invoker::Error::SnapStartTimeout.into(), "SnapStartTimeoutException", 408, false),
            (sigv4::Error::MissingToken.into(), "MissingAuthenticationTokenException", 403, false),
            (sigv4::Error::UnknownKey.into(), "UnrecognizedClientException", 403, false),
            (sigv4::Error::Incomplete(text()).into(), "IncompleteSignatureException", 400, false),
            (sigv4::Error::Invalid(text()).into(), "InvalidSignatureException", 403, false),
            (Failure::internal(), "ServiceException", 500, true),
        ];
        for (failure, code, status, retried) in failures {
            assert_eq!((failure.code, failure.status.as_u16(), is_retried(&failure)), (code, status, retried));
            // The model agrees where it knows the error; a node that shuts down is the one exception.
            if let Some((known, _)) = LAMBDA.error(code).filter(|_| status != 503) {
                assert_eq!(known, status, "{code}");
            }
        }
    }

    #[test]
    fn documents_have_the_members_of_their_shape() {
        let written = |failure: Failure| Value::Object(failure.document(&LAMBDA)).to_string();
        assert_eq!(written(Failure::validation("m")), r#"{"message":"m"}"#);
        assert_eq!(written(Failure::invalid_parameter("m")), r#"{"Type":"User","message":"m"}"#);
        assert_eq!(written(Failure::new(404, "ResourceNotFoundException", "m")), r#"{"Type":"User","Message":"m"}"#);
        assert_eq!(written(Failure::internal()).split(',').next(), Some(r#"{"Type":"Service""#));
        let mut throttled = Failure::new(429, "TooManyRequestsException", "Rate Exceeded.");
        throttled.reason = Some("ConcurrentInvocationLimitExceeded".to_owned());
        let document = r#"{"Type":"User","Reason":"ConcurrentInvocationLimitExceeded","message":"Rate Exceeded."}"#;
        assert_eq!(written(throttled), document);
    }
}
