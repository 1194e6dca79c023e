//! Answers as AWS words them: `{"errorMessage": …, "errorType": …}` with its status, `{"status":"OK"}`, and events.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use lambent_model::limits::SYNC_RESPONSE_BYTES;
use serde::Serialize;
use uuid::Uuid;

use crate::call::{Invoke, Lifecycle, ShutdownReason};
use crate::core::Event;
use crate::machine::{MAX_EXTENSIONS, Refusal};

/// What every endpoint answers with: a body that is all there.
pub(crate) type Reply = Response<Full<Bytes>>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const REQUEST_ID: HeaderName = HeaderName::from_static("lambda-runtime-aws-request-id");
const DEADLINE: HeaderName = HeaderName::from_static("lambda-runtime-deadline-ms");
const INVOKED_ARN: HeaderName = HeaderName::from_static("lambda-runtime-invoked-function-arn");
const TRACE: HeaderName = HeaderName::from_static("lambda-runtime-trace-id");
const CLIENT_CONTEXT: HeaderName = HeaderName::from_static("lambda-runtime-client-context");
const COGNITO: HeaderName = HeaderName::from_static("lambda-runtime-cognito-identity");
/// Given with an event, and given back with its answer by clients that know it.
pub(crate) const INVOCATION_ID: HeaderName = HeaderName::from_static("lambda-runtime-invocation-id");
const TENANT: HeaderName = HeaderName::from_static("lambda-runtime-aws-tenant-id");
const EVENT_ID: HeaderName = HeaderName::from_static("lambda-extension-event-identifier");
/// The identifier of an extension, in its requests and in the answer to its registration.
pub(crate) const EXTENSION_ID: HeaderName = HeaderName::from_static("lambda-extension-identifier");

/// A JSON body under a status.
pub(crate) fn json(status: StatusCode, body: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, JSON);
    reply
}

/// A value as JSON. The values of this crate are strings, numbers and structs of them, which always serialise.
pub(crate) fn body_of(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// 202: taken.
pub(crate) fn accepted() -> Reply {
    json(StatusCode::ACCEPTED, Bytes::from_static(br#"{"status":"OK"}"#))
}

/// An error answer.
pub(crate) fn error(status: StatusCode, error_type: &str, message: &str) -> Reply {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Document<'a> {
        error_message: &'a str,
        error_type: &'a str,
    }
    json(status, body_of(&Document { error_message: message, error_type }))
}

/// A path or method that does not exist.
pub(crate) fn nowhere(status: StatusCode) -> Reply {
    let mut reply = Response::new(Full::new(if status == StatusCode::NOT_FOUND {
        Bytes::from_static(b"404 page not found\n")
    } else {
        Bytes::new()
    }));
    *reply.status_mut() = status;
    reply
}

/// 413: the answer of the function is larger than it may be.
pub(crate) fn too_large() -> Reply {
    let message = format!("Exceeded maximum allowed payload size ({SYNC_RESPONSE_BYTES} bytes).");
    error(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &message)
}

/// 413 to a request of the extension or telemetry API whose body nobody would have a reason to send.
pub(crate) fn body_too_large(limit: usize) -> Reply {
    closing(error(
        StatusCode::PAYLOAD_TOO_LARGE,
        "RequestEntityTooLarge",
        &format!("Exceeded maximum allowed payload size ({limit} bytes)."),
    ))
}

/// 400: the request's body broke off.
pub(crate) fn truncated() -> Reply {
    closing(error(StatusCode::BAD_REQUEST, "TruncatedHTTPRequest", "HTTP request detected as truncated"))
}

/// 400: a response mode that does not exist.
pub(crate) fn invalid_mode() -> Reply {
    error(StatusCode::BAD_REQUEST, "InvalidFunctionResponseMode", "Invalid function response mode")
}

/// The same answer, and the connection ends with it: the rest of the request's body is not worth reading.
pub(crate) fn closing(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    reply
}

/// What the protocol's state does not allow.
pub(crate) fn refused(refusal: &Refusal) -> Reply {
    let forbidden = |error_type, message: &str| error(StatusCode::FORBIDDEN, error_type, message);
    match refusal {
        Refusal::RequestId => error(StatusCode::BAD_REQUEST, "InvalidRequestID", "Invalid request ID"),
        Refusal::Stale => error(StatusCode::GONE, "InvokeTimeout", "Invoke timeout"),
        Refusal::Runtime { from, to } => forbidden(
            "InvalidStateTransition",
            &format!("State transition from {from} to {to} failed for runtime. Error: State transition is not allowed"),
        ),
        Refusal::Extension { who, from, to } => forbidden(
            "Extension.InvalidExtensionState",
            &format!(
                "State transition from {from} to {to} failed for extension {who}. Error: State transition is not allowed"
            ),
        ),
        Refusal::UnknownExtension(id) => {
            forbidden("Extension.UnknownExtensionIdentifier", &format!("Unknown extension {id}"))
        }
        Refusal::NameTaken => {
            forbidden("Extension.InvalidExtensionState", "Extension with this name already registered")
        }
        Refusal::TooManyExtensions => {
            forbidden("Extension.TooManyExtensions", &format!("Extension limit ({MAX_EXTENSIONS}) reached"))
        }
        Refusal::RegistrationClosed => {
            forbidden("Extension.RegistrationClosed", "Extension registration closed already")
        }
        Refusal::NotForInternal(event) => forbidden(
            "Extension.InvalidEventType",
            &format!("{}: ShutdownEventNotSupportedForInternalExtension", name_of(*event)),
        ),
        // Only the node can be told this, never a client.
        Refusal::NotIdle => error(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "Internal Server Error"),
    }
}

fn name_of(event: Lifecycle) -> &'static str {
    match event {
        Lifecycle::Invoke => "INVOKE",
        Lifecycle::Shutdown => "SHUTDOWN",
    }
}

/// An event, as the runtime gets it: the payload untouched, everything else in headers.
pub(crate) fn runtime_event(event: &Event) -> Reply {
    let Event::Invoke(invoke, invocation) = event else {
        // The runtime is never told of a shutdown: it gets a signal.
        return error(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "Internal Server Error");
    };
    let mut reply = Response::new(Full::new(invoke.payload.clone()));
    let headers = reply.headers_mut();
    headers.reserve(9);
    headers.insert(CONTENT_TYPE, JSON);
    insert(headers, REQUEST_ID, &invoke.request_id.to_string());
    insert(headers, INVOCATION_ID, &invocation.to_string());
    headers.insert(DEADLINE, HeaderValue::from(invoke.deadline.as_millisecond()));
    insert(headers, INVOKED_ARN, &invoke.invoked_arn);
    for (name, value) in [
        (TRACE, &invoke.trace),
        (CLIENT_CONTEXT, &invoke.client_context),
        (COGNITO, &invoke.cognito_identity),
        (TENANT, &invoke.tenant),
    ] {
        if let Some(value) = value {
            insert(headers, name, value);
        }
    }
    reply
}

/// Inserts text as it is. Line ends, which only white space between JSON tokens can hold, become spaces.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    let value = HeaderValue::from_str(value)
        .or_else(|_| HeaderValue::from_bytes(value.replace(|c: char| c.is_control(), " ").as_bytes()));
    if let Ok(value) = value {
        headers.insert(name, value);
    }
}

/// An event, as an extension gets it.
pub(crate) fn extension_event(event: &Event) -> Reply {
    #[derive(Serialize)]
    #[serde(tag = "eventType", rename_all = "UPPERCASE", rename_all_fields = "camelCase")]
    enum Document<'a> {
        Invoke {
            deadline_ms: i64,
            request_id: lambent_model::RequestId,
            invoked_function_arn: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            tracing: Option<Tracing<'a>>,
        },
        Shutdown {
            shutdown_reason: ShutdownReason,
            deadline_ms: i64,
        },
    }
    #[derive(Serialize)]
    struct Tracing<'a> {
        r#type: &'static str,
        value: &'a str,
    }
    let document = match event {
        Event::Invoke(invoke, _) => {
            let Invoke { deadline, request_id, invoked_arn, trace, .. } = &**invoke;
            Document::Invoke {
                deadline_ms: deadline.as_millisecond(),
                request_id: *request_id,
                invoked_function_arn: invoked_arn,
                tracing: trace.as_deref().map(|value| Tracing { r#type: "X-Amzn-Trace-Id", value }),
            }
        }
        Event::Shutdown(reason, deadline) => {
            Document::Shutdown { shutdown_reason: *reason, deadline_ms: deadline.as_millisecond() }
        }
    };
    let mut reply = json(StatusCode::OK, body_of(&document));
    insert(reply.headers_mut(), EVENT_ID, &Uuid::new_v4().to_string());
    reply
}

/// The answer to a registration.
pub(crate) fn registered(id: Uuid, identity: &crate::call::Identity, with_account: bool) -> Reply {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Document<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        account_id: Option<&'a str>,
        function_name: &'a str,
        function_version: String,
        handler: &'a str,
    }
    let document = Document {
        account_id: with_account.then(|| identity.account.as_str()),
        function_name: identity.function.arn.name.as_str(),
        function_version: identity.function.version.to_string(),
        handler: &identity.handler,
    };
    let mut reply = json(StatusCode::OK, body_of(&document));
    insert(reply.headers_mut(), EXTENSION_ID, &id.to_string());
    reply
}
