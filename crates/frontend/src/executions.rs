//! Executions that need not run again: what a request says of itself, and what people see of it and set.
//!
//! ```text
//! PUT    /_lambent/functions/NAME/idempotency              sets how requests of a function are told apart
//! GET    /_lambent/functions/NAME/idempotency              what was set
//! DELETE /_lambent/functions/NAME/idempotency              each request runs again
//! GET    /_lambent/executions?function=&after=&limit=      records, oldest first
//! DELETE /_lambent/executions?function=                    forgets all of a function
//! GET    /_lambent/executions/ID                           one, with its answer
//! GET    /_lambent/executions/ID/why                       whether it would be used now, and each dependency then and now
//! DELETE /_lambent/executions/ID                           forgets it
//! ```
//! Signed as a request of Lambda is, and for the account that the function is of.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Request, header};
use lambent_invoker::executions::{Ask, Filter};
use lambent_model::idempotency::Idempotency;
use lambent_model::{AccountId, FunctionArn, FunctionRef, RequestId};
use lambent_policy::sigv4::Principal;
use lambent_registry::Caller;
use serde_json::{Map, Value, json};

use crate::failure::{Dialect, Failure};
use crate::request::parameters;
use crate::service::Service;

/// Events carry no such headers to where they run.
pub(crate) fn refuse_for_events(headers: &HeaderMap) -> Result<(), Failure> {
    match Ask::read(headers).map_err(lambent_invoker::Error::from)? {
        None => Ok(()),
        Some(_) => Err(Failure::invalid_parameter(
            "X-Lambent-Idempotency is for calls that wait for their answer; for events, configure where in the payload the key is.",
        )),
    }
}

/// The function that an operation deletes, all of it.
pub(crate) fn of_deleted(
    service: &Service,
    by: &Principal,
    operation: &str,
    input: &Map<String, Value>,
) -> Option<FunctionArn> {
    if operation != "DeleteFunction" || input.contains_key("Qualifier") {
        return None;
    }
    let named: FunctionRef = input.get("FunctionName")?.as_str()?.parse().ok()?;
    named.qualifier.is_none().then(|| named.resolve(&by.account, &service.parts.region))
}

pub(crate) fn respond(answer: Result<Value, Failure>) -> Response {
    match answer {
        Ok(document) => ([(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response(),
        Err(failure) => failure.into_response(Dialect::RestJson, RequestId::random()),
    }
}

pub(crate) fn caller(by: &Principal) -> Caller {
    Caller { account: by.account.clone(), arn: by.arn.clone() }
}

fn absent(id: &str) -> Failure {
    Failure::new(404, "ResourceNotFoundException", format!("There is no execution record {id}"))
}

fn number(id: &str) -> Result<u64, Failure> {
    id.parse().map_err(|_| absent(id))
}

/// The function that a query names, by name, partial or full ARN.
pub(crate) fn function(service: &Service, account: &AccountId, query: &str) -> Result<Option<FunctionArn>, Failure> {
    let Some(name) = parameters(query, "function").next().filter(|name| !name.is_empty()) else { return Ok(None) };
    let named: FunctionRef = name.parse().map_err(|error| Failure::validation(format!("{error}")))?;
    Ok(Some(named.resolve(account, &service.parts.region)))
}

fn filter(service: &Service, account: &AccountId, query: &str) -> Result<Filter, Failure> {
    let number = |name: &str| match parameters(query, name).next() {
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| Failure::validation(format!("{name} is no number"))),
        None => Ok(None),
    };
    let function = function(service, account, query)?.map(|function| function.to_string());
    let limit = number("limit")?.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(Filter { function, after: number("after")?, limit })
}

pub(crate) async fn put_setting(
    State(service): State<Arc<Service>>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Response {
    let answer = async {
        let (head, body) = request.into_parts();
        let (by, body) = service.signed(&head, body).await?;
        let setting: Idempotency = serde_json::from_slice(&body)
            .map_err(|error| Failure::invalid_parameter(format!("The body is no idempotency setting: {error}")))?;
        service.parts.registry.put_idempotency(&caller(&by), &name, setting.clone()).await?;
        Ok(json!(setting))
    };
    respond(answer.await)
}

pub(crate) async fn get_setting(
    State(service): State<Arc<Service>>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Response {
    let answer = async {
        let (head, body) = request.into_parts();
        let (by, _) = service.signed(&head, body).await?;
        let setting = service.parts.registry.idempotency(&caller(&by), &name)?;
        Ok(json!(setting.unwrap_or_default()))
    };
    respond(answer.await)
}

pub(crate) async fn delete_setting(
    State(service): State<Arc<Service>>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Response {
    let answer = async {
        let (head, body) = request.into_parts();
        let (by, _) = service.signed(&head, body).await?;
        service.parts.registry.delete_idempotency(&caller(&by), &name).await?;
        Ok(json!(Idempotency::default()))
    };
    respond(answer.await)
}

pub(crate) async fn list(State(service): State<Arc<Service>>, request: Request<Body>) -> Response {
    let answer = async {
        let (head, body) = request.into_parts();
        let (by, _) = service.signed(&head, body).await?;
        let filter = filter(&service, &by.account, head.uri.query().unwrap_or_default())?;
        let found = service.parts.executions.list(&by.account, filter).await?;
        let next = found.last().map(|last| last.id);
        Ok(json!({"executions": found, "next": next}))
    };
    respond(answer.await)
}

pub(crate) async fn purge(State(service): State<Arc<Service>>, request: Request<Body>) -> Response {
    let answer = async {
        let (head, body) = request.into_parts();
        let (by, _) = service.signed(&head, body).await?;
        let filter = filter(&service, &by.account, head.uri.query().unwrap_or_default())?;
        let function = filter.function.ok_or_else(|| Failure::validation("function is missing".to_owned()))?;
        let dropped = service.parts.executions.purge(&by.account, function).await?;
        Ok(json!({"dropped": dropped}))
    };
    respond(answer.await)
}

pub(crate) async fn show(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Response {
    let answer = async {
        let (head, body) = request.into_parts();
        let (by, _) = service.signed(&head, body).await?;
        let found = service.parts.executions.show(&by.account, number(&id)?).await?;
        let (record, answer) = found.ok_or_else(|| absent(&id))?;
        let mut document = json!(record);
        if let (Some(members), Some(answer)) = (document.as_object_mut(), answer) {
            match std::str::from_utf8(&answer) {
                Ok(text) => members.insert("answer".to_owned(), text.into()),
                Err(_) => members.insert("answer_base64".to_owned(), STANDARD.encode(&answer).into()),
            };
        }
        Ok(document)
    };
    respond(answer.await)
}

pub(crate) async fn why(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Response {
    let answer = async {
        let (head, body) = request.into_parts();
        let (by, _) = service.signed(&head, body).await?;
        let found = service.parts.executions.why(&by.account, number(&id)?).await?;
        Ok(json!(found.ok_or_else(|| absent(&id))?))
    };
    respond(answer.await)
}

pub(crate) async fn discard(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Response {
    let answer = async {
        let (head, body) = request.into_parts();
        let (by, _) = service.signed(&head, body).await?;
        match service.parts.executions.discard(&by.account, number(&id)?).await? {
            true => Ok(json!({"dropped": 1})),
            false => Err(absent(&id)),
        }
    };
    respond(answer.await)
}
