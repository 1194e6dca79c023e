//! Outputs as responses: status, headers and body where the model puts them.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use lambent_model::RequestId;
use serde_json::Value;

use crate::model::{Location, Model, Operation};

/// The successful answer of `operation`.
pub(crate) fn success(model: &Model, operation: &Operation, output: Value, id: RequestId) -> Response {
    let shape = operation.output.as_deref().and_then(|name| model.shape(name));
    let mut status = StatusCode::from_u16(operation.http.response_code).unwrap_or(StatusCode::OK);
    let mut headers = HeaderMap::new();
    let mut fields = match output {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    };
    for (name, member) in shape.map(|shape| shape.members.as_slice()).unwrap_or_default() {
        match member.location {
            Location::StatusCode => {
                let code = fields.remove(name).and_then(|code| u16::try_from(code.as_u64()?).ok());
                status = code.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(status);
            }
            Location::Header => {
                let text = fields.remove(name).map(|value| value.as_str().map_or(value.to_string(), str::to_owned));
                let wire = member.location_name.as_deref().unwrap_or(name);
                if let (Some(Ok(value)), Ok(wire)) = (text.map(HeaderValue::try_from), HeaderName::try_from(wire)) {
                    headers.insert(wire, value);
                }
            }
            Location::Body | Location::Uri | Location::Query => {}
        }
    }
    if let Some(shape) = shape {
        // A type that several operations share may have members that this one has not.
        fields.retain(|name, _| shape.has(name));
    }
    let has_body = shape.is_some() && status != StatusCode::NO_CONTENT;
    let body = if has_body { Body::from(Value::Object(fields).to_string()) } else { Body::empty() };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if has_body {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    set_request_id(response.headers_mut(), id);
    response
}

/// `x-amzn-RequestId`, which every answer has.
pub(crate) fn set_request_id(headers: &mut HeaderMap, id: RequestId) {
    if let Ok(value) = HeaderValue::try_from(id.to_string()) {
        headers.insert("x-amzn-requestid", value);
    }
}
