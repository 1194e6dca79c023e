//! CloudWatch Logs (JSON 1.1, `X-Amz-Target: Logs_20140328.…`): groups, streams, events.
//!
//! Enough for `aws logs`, `aws logs tail --follow`, `sam logs` and the SDKs to read what functions wrote, to tail it live, and to write
//! events beside it. Log groups belong to the account that owns the node; other accounts are refused.

mod events;
mod filter;
mod groups;
pub(crate) mod tail;
mod write;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, header};
use jiff::Timestamp;
use lambent_model::RequestId;
use lambent_policy::sigv4::Principal;
use serde_json::{Map, Value};

use crate::check;
use crate::failure::Failure;
use crate::model::LOGS;
use crate::request;
use crate::respond::set_request_id;
use crate::service::Service;

/// The checked members of an input.
type Input = Map<String, Value>;

/// Answers one operation.
pub(crate) async fn answer(
    service: &Service,
    by: &Principal,
    operation: &str,
    body: &[u8],
    id: RequestId,
) -> Result<Response, Failure> {
    let known = LOGS.operations.get(operation).ok_or_else(Failure::unknown_operation)?;
    if by.account != service.parts.account {
        let text = format!("User: {} is not authorized to perform: logs:{operation}", by.arn);
        return Err(Failure::new(400, "AccessDeniedException", text));
    }
    let shape = known.input.as_deref().and_then(|name| LOGS.shape(name)).ok_or_else(Failure::internal)?;
    let input = request::read_body(&LOGS, shape, body)?;
    if let Some(violations) = check::violations(&LOGS, shape, &input) {
        return Err(invalid(violations));
    }
    if operation == "StartLiveTail" {
        let mut response = tail::start(service, &input, id).await?;
        set_request_id(response.headers_mut(), id);
        return Ok(response);
    }
    let output = match operation {
        "DescribeLogGroups" => groups::describe_groups(service, &input).await,
        "DescribeLogStreams" => groups::describe_streams(service, &input).await,
        "CreateLogGroup" => groups::create(service, &input).await,
        "DeleteLogGroup" => groups::delete(service, &input).await,
        "PutRetentionPolicy" => groups::put_retention(service, &input).await,
        "DeleteRetentionPolicy" => groups::delete_retention(service, &input).await,
        "ListTagsForResource" | "ListTagsLogGroup" => Ok(Some(serde_json::json!({"tags": {}}))),
        "CreateLogStream" => write::create_stream(service, &input).await,
        "DeleteLogStream" => write::delete_stream(service, &input).await,
        "PutLogEvents" => write::put(service, &input).await,
        "GetLogEvents" => events::get(service, &input).await,
        "FilterLogEvents" => events::filter(service, &input).await,
        _ => Err(Failure::not_built(operation)),
    }?;
    let body = output.map_or_else(Body::empty, |output| Body::from(output.to_string()));
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
    set_request_id(response.headers_mut(), id);
    Ok(response)
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(400, "InvalidParameterException", message)
}

fn group_not_found() -> Failure {
    Failure::new(400, "ResourceNotFoundException", "The specified log group does not exist.")
}

fn stream_not_found() -> Failure {
    Failure::new(400, "ResourceNotFoundException", "The specified log stream does not exist.")
}

fn text<'a>(input: &'a Input, name: &str) -> Option<&'a str> {
    input.get(name).and_then(Value::as_str)
}

fn flag(input: &Input, name: &str) -> bool {
    input.get(name).and_then(Value::as_bool).unwrap_or_default()
}

fn limit(input: &Input, default: usize) -> usize {
    input.get("limit").and_then(Value::as_u64).and_then(|limit| usize::try_from(limit).ok()).unwrap_or(default)
}

/// A time given in milliseconds since 1970.
fn time(input: &Input, name: &str) -> Option<Timestamp> {
    let millis = input.get(name).and_then(Value::as_i64)?;
    Some(Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX))
}

/// The name in an identifier, which is a name or an ARN.
fn name_of(identifier: &str) -> &str {
    let name = identifier.split_once(":log-group:").map_or(identifier, |(_, name)| name);
    name.strip_suffix(":*").unwrap_or(name)
}

/// The group that an input names: by name, or by ARN or name as identifier.
fn group(input: &Input) -> Result<&str, Failure> {
    match (text(input, "logGroupName"), text(input, "logGroupIdentifier")) {
        (Some(name), None) => Ok(name),
        (None, Some(identifier)) => Ok(name_of(identifier)),
        (None, None) => Err(invalid("Either logGroupName or logGroupIdentifier must be specified")),
        (Some(_), Some(_)) => Err(invalid("LogGroup name and LogGroup ARN are mutually exclusive parameters.")),
    }
}
