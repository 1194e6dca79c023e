//! `GetCallerIdentity` of STS, the one question that tools ask before anything else.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, header};
use lambent_model::RequestId;
use lambent_policy::sigv4::Principal;

use crate::failure::Failure;
use crate::request::parameters;
use crate::respond::set_request_id;

/// Answers a request of the query protocol.
pub(crate) fn answer(by: &Principal, body: &[u8], id: RequestId) -> Result<Response, Failure> {
    let form = String::from_utf8_lossy(body);
    match parameters(&form, "Action").next().as_deref() {
        Some("GetCallerIdentity") => {}
        Some(other) => return Err(Failure::not_built(other)),
        None => return Err(Failure::unknown_operation()),
    }
    // Account ids and ARNs hold nothing that XML would have to escape.
    let text = format!(
        "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
         <Arn>{}</Arn><UserId>{}</UserId><Account>{}</Account></GetCallerIdentityResult>\
         <ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata></GetCallerIdentityResponse>",
        by.arn, by.account, by.account
    );
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/xml"));
    set_request_id(response.headers_mut(), id);
    Ok(response)
}
