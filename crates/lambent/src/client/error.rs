//! An error that the API answered with.

use http::{HeaderMap, StatusCode};
use serde_json::Value;

/// AWS's error document, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code} ({status}): {message}{}", advice(.code))]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// E.g. `ResourceNotFoundException`.
    pub code: String,
    /// What AWS says.
    pub message: String,
}

/// What to do about the errors that a newcomer meets first.
fn advice(code: &str) -> &'static str {
    match code {
        "UnrecognizedClientException" | "InvalidSignatureException" | "MissingAuthenticationTokenException" => {
            "\nThe access key is not one of this node: name its --data-dir, or set what `lambent credentials` prints."
        }
        _ => "",
    }
}

impl ApiError {
    /// Reads an answer that is no success.
    pub fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let document: Value = serde_json::from_slice(body).unwrap_or_default();
        let field = |names: [&str; 3]| names.iter().find_map(|name| document.get(name)?.as_str()).map(str::to_owned);
        let header = headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let code = header.or_else(|| field(["__type", "code", "Code"])).unwrap_or_else(|| "UnknownError".to_owned());
        // Some services write `prefix#Code:url`.
        let code = code.rsplit('#').next().and_then(|code| code.split(':').next()).unwrap_or_default().to_owned();
        let message = field(["Message", "message", "errorMessage"])
            .unwrap_or_else(|| String::from_utf8_lossy(body.get(..300).unwrap_or(body)).into_owned());
        Self { status: status.as_u16(), code, message }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_code_comes_from_the_header_or_the_document() {
        let mut headers = HeaderMap::new();
        let body = br#"{"__type":"com.amazonaws#Other","message":"gone"}"#;
        let error = ApiError::read(StatusCode::NOT_FOUND, &headers, body);
        assert_eq!((error.code.as_str(), error.message.as_str(), error.status), ("Other", "gone", 404));
        headers.insert("x-amzn-errortype", "ResourceNotFoundException:http://x/".parse().unwrap());
        assert_eq!(ApiError::read(StatusCode::NOT_FOUND, &headers, body).code, "ResourceNotFoundException");
        assert_eq!(ApiError::read(StatusCode::BAD_GATEWAY, &HeaderMap::new(), b"oops").message, "oops");
    }
}
