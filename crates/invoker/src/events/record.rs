//! What destinations and dead-letter targets are sent, as AWS documents it:
//! <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html>.

use bytes::Bytes;
use jiff::Timestamp;
use lambent_model::clock::rfc3339_millis;
use serde::Serialize;
use serde_json::value::RawValue;

use super::event::{Call, Meta, Scheduled};

/// Longest `ErrorMessage` attribute of a dead letter.
const ERROR_MESSAGE_BYTES: usize = 1_024;

/// Why an event is at its end, in AWS's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Condition {
    Success,
    RetriesExhausted,
    EventAgeExceeded,
}

/// What a run of the function answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Response {
    pub(crate) executed_version: String,
    /// `Handled` or `Unhandled`.
    pub(crate) error: Option<String>,
    pub(crate) payload: Bytes,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    version: &'static str,
    timestamp: String,
    request_context: RequestContext,
    request_payload: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_context: Option<ResponseContext<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_payload: Option<Box<RawValue>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestContext {
    request_id: String,
    function_arn: String,
    condition: Condition,
    approximate_invoke_count: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResponseContext<'a> {
    status_code: u16,
    executed_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_error: Option<&'a str>,
}

/// The invocation record of an event. `response` is the last answer of the function; none where there was none.
pub(crate) fn invocation(
    meta: &Meta,
    call: &Call,
    payload: &[u8],
    (condition, invoke_count): (Condition, u32),
    response: Option<&Response>,
    now: Timestamp,
) -> Bytes {
    let qualifier = call.qualifier.as_deref().unwrap_or("$LATEST");
    let record = Record {
        version: "1.0",
        timestamp: rfc3339_millis(now),
        request_context: RequestContext {
            request_id: meta.request_id.to_string(),
            function_arn: call.function.qualified(qualifier),
            condition,
            approximate_invoke_count: invoke_count,
        },
        request_payload: raw(payload),
        response_context: response.map(|response| ResponseContext {
            status_code: 200,
            executed_version: &response.executed_version,
            function_error: response.error.as_deref(),
        }),
        response_payload: response.map(|response| raw(&response.payload)),
    };
    serde_json::to_vec(&record).unwrap_or_default().into()
}

/// JSON as it is; what is none becomes a string.
fn raw(payload: &[u8]) -> Box<RawValue> {
    let text = String::from_utf8_lossy(payload);
    serde_json::from_str::<Box<RawValue>>(&text)
        .or_else(|_| serde_json::value::to_raw_value(&text))
        .unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// The attributes that a dead letter has beside the event: name, data type, value.
pub(crate) fn dead_letter_attributes(meta: &Meta, status: u16, message: &str) -> Vec<(String, String, String)> {
    let mut message = message.to_owned();
    message.truncate(message.floor_char_boundary(ERROR_MESSAGE_BYTES));
    [("RequestID", "String", meta.request_id.to_string()), ("ErrorCode", "Number", status.to_string())]
        .into_iter()
        .chain((!message.is_empty()).then_some(("ErrorMessage", "String", message)))
        .map(|(name, kind, value)| (name.to_owned(), kind.to_owned(), value))
        .collect()
}

/// The same for a schedule's dead-letter queue, as the scheduler names them.
pub(crate) fn schedule_attributes(
    meta: &Meta,
    call: &Call,
    schedule: &Scheduled,
    message: &str,
) -> Vec<(String, String, String)> {
    let text = |name: &str, value: String| (name.to_owned(), "String".to_owned(), value);
    vec![
        text("ERROR_CODE", "ResourceNotFoundException".to_owned()),
        text("ERROR_MESSAGE", message.to_owned()),
        text("EXECUTION_ID", meta.request_id.to_string()),
        text("RETRY_ATTEMPTS", "0".to_owned()),
        text("SCHEDULED_TIME", schedule.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        text("SCHEDULE_ARN", schedule.arn.clone()),
        text("TARGET_ARN", call.function.to_string()),
    ]
}

/// What the function said was wrong: the `errorMessage` of its error document.
pub(crate) fn error_message(response: &Response) -> String {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Document {
        error_message: Option<String>,
    }
    let document = serde_json::from_slice::<Document>(&response.payload).ok();
    document
        .and_then(|document| document.error_message)
        .unwrap_or_else(|| String::from_utf8_lossy(&response.payload).into_owned())
}
