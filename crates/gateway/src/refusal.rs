//! Requests that get no answer of a function, in AWS's words.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use lambent_model::idempotency::Mode;
use lambent_policy::sigv4;

/// Why.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// There is no such URL.
    #[error("no function URL of this address")]
    Unknown,
    /// Not signed, or not allowed.
    #[error("the caller may not call this function URL")]
    Forbidden,
    /// A stranger asks for what only the owner, and signed callers, decide.
    #[error(
        "An unsigned request cannot change how the function's requests are told apart (configured: {}), nor bring a key unless it is asked for one",
        .0.as_str()
    )]
    Idempotency(Mode),
    /// Signed wrongly.
    #[error(transparent)]
    Signature(sigv4::Error),
    /// The body is larger than an event may be.
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge {
        /// The bound.
        limit: usize,
    },
    /// The body did not come in time.
    #[error("the body did not come in time")]
    BodyTooSlow,
    /// The client went away, or broke HTTP's rules.
    #[error("the body cannot be read")]
    BodyBroken(#[source] axum::Error),
    /// The function was not run.
    #[error(transparent)]
    Invoke(lambent_invoker::Error),
    /// The function failed, or answered what is no HTTP response; its log says more, the caller is told nothing.
    #[error("the function failed")]
    Function,
}

impl Refusal {
    /// Status, error type and body.
    fn parts(&self) -> (StatusCode, Option<&'static str>, String) {
        let status = |code: u16| StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let message = |text: &str| serde_json::json!({ "message": text }).to_string();
        match self {
            Self::Unknown => (StatusCode::FORBIDDEN, Some("AccessDeniedException"), r#"{"Message":null}"#.to_owned()),
            Self::Forbidden | Self::Signature(sigv4::Error::MissingToken) => {
                (StatusCode::FORBIDDEN, Some("AccessDeniedException"), r#"{"Message":"Forbidden"}"#.to_owned())
            }
            Self::Idempotency(_) => (StatusCode::FORBIDDEN, Some("AccessDeniedException"), message(&self.to_string())),
            Self::Signature(error) => (error.status(), Some(error.code()), message(&error.to_string())),
            Self::BodyTooLarge { limit } => {
                let text = format!("Request must be smaller than {limit} bytes for the InvokeFunction operation");
                (StatusCode::PAYLOAD_TOO_LARGE, Some("RequestEntityTooLargeException"), message(&text))
            }
            Self::BodyTooSlow => (StatusCode::REQUEST_TIMEOUT, None, message("Request Timeout")),
            Self::BodyBroken(_) => (StatusCode::BAD_REQUEST, None, message("Bad Request")),
            Self::Invoke(error) => {
                let fault = if error.status() < 500 { "User" } else { "Service" };
                let document = match error.reason() {
                    Some(reason) => {
                        serde_json::json!({ "Reason": reason.to_string(), "Type": fault, "message": error.to_string() })
                    }
                    None => serde_json::json!({ "Type": fault, "message": error.to_string() }),
                };
                (status(error.status()), Some(error.code()), document.to_string())
            }
            Self::Function => (StatusCode::BAD_GATEWAY, None, "Internal Server Error".to_owned()),
        }
    }

    pub fn response(&self) -> Response {
        let (status, error_type, body) = self.parts();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(error_type) = error_type {
            headers.insert("x-amzn-errortype", HeaderValue::from_static(error_type));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use lambent_invoker::{Error, ThrottleReason};

    use super::*;

    #[test]
    fn each_refusal_has_the_status_type_and_body_of_aws() {
        let reason = ThrottleReason::ReservedFunctionConcurrentInvocationLimitExceeded;
        let table = [
            (Refusal::Unknown, 403, Some("AccessDeniedException"), r#"{"Message":null}"#),
            (Refusal::Forbidden, 403, Some("AccessDeniedException"), r#"{"Message":"Forbidden"}"#),
            (
                Refusal::Signature(sigv4::Error::MissingToken),
                403,
                Some("AccessDeniedException"),
                r#"{"Message":"Forbidden"}"#,
            ),
            (
                Refusal::Signature(sigv4::Error::UnknownKey),
                403,
                Some("UnrecognizedClientException"),
                r#"{"message":"The security token included in the request is invalid."}"#,
            ),
            (
                Refusal::BodyTooLarge { limit: 6 },
                413,
                Some("RequestEntityTooLargeException"),
                r#"{"message":"Request must be smaller than 6 bytes for the InvokeFunction operation"}"#,
            ),
            (Refusal::BodyTooSlow, 408, None, r#"{"message":"Request Timeout"}"#),
            (
                Refusal::Invoke(Error::Throttled { reason }),
                429,
                Some("TooManyRequestsException"),
                r#"{"Reason":"ReservedFunctionConcurrentInvocationLimitExceeded","Type":"User","message":"Rate Exceeded."}"#,
            ),
            (
                Refusal::Invoke(Error::ShuttingDown),
                503,
                Some("ServiceException"),
                r#"{"Type":"Service","message":"The service is shutting down."}"#,
            ),
            (Refusal::Function, 502, None, "Internal Server Error"),
        ];
        for (refusal, status, error_type, body) in table {
            let (actual_status, actual_type, actual_body) = refusal.parts();
            assert_eq!((actual_status.as_u16(), actual_type, actual_body.as_str()), (status, error_type, body));
        }
    }
}
