//! `/_lambent/events` and `/_lambent/queues`: the queue of events, for the account that the events are of.
//!
//! ```text
//! GET    /_lambent/events?queue=&function=&after=&limit=   pending and running ones; with `queue`, what is in that built-in queue
//! DELETE /_lambent/events?queue=&function=                 forgets all of those
//! GET    /_lambent/events/ID                               one, with its content
//! DELETE /_lambent/events/ID                               forgets it
//! POST   /_lambent/events/ID/retry                         makes it due now
//! GET    /_lambent/queues                                  built-in queues, and how much is in each
//! ```
//! Signed as a request of Lambda is. A function is named as everywhere: by name, partial or full ARN.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::{Request, header, request};
use lambent_invoker::events::{Events, Filter, NotRetried};
use lambent_model::{AccountId, RequestId};
use serde_json::{Value, json};

use crate::executions;
use crate::failure::{Dialect, Failure};
use crate::request::parameters;
use crate::service::Service;

type Answer = Result<Value, Failure>;

fn respond(answer: Answer) -> Response {
    match answer {
        Ok(document) => ([(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response(),
        Err(failure) => failure.into_response(Dialect::RestJson, RequestId::random()),
    }
}

/// Who asks, and the head of what is asked.
async fn admitted(service: &Service, request: Request<Body>) -> Result<(AccountId, request::Parts), Failure> {
    let (head, body) = request.into_parts();
    let by = service.principal(&head, body).await?;
    Ok((by.account.clone(), head))
}

fn filter(service: &Service, account: &AccountId, head: &request::Parts) -> Result<Filter, Failure> {
    let query = head.uri.query().unwrap_or_default();
    let text = |name| parameters(query, name).next().filter(|text| !text.is_empty());
    let number = |name: &str| match parameters(query, name).next() {
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| Failure::validation(format!("{name} is no number"))),
        None => Ok(None),
    };
    let function = executions::function(service, account, query)?.map(|function| function.to_string());
    let limit = number("limit")?.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(Filter { queue: text("queue"), function, after: number("after")?, limit })
}

fn absent(id: &str) -> Failure {
    Failure::new(404, "ResourceNotFoundException", format!("There is no event {id}"))
}

fn number(id: &str) -> Result<u64, Failure> {
    id.parse().map_err(|_| absent(id))
}

fn events(service: &Service) -> &Arc<Events> {
    &service.parts.events
}

pub(crate) async fn list(State(service): State<Arc<Service>>, request: Request<Body>) -> Response {
    let answer = async {
        let (account, head) = admitted(&service, request).await?;
        let found = events(&service).list(&account, filter(&service, &account, &head)?).await?;
        let next = found.last().map(|last| last.id);
        Ok(json!({"events": found, "next": next}))
    };
    respond(answer.await)
}

pub(crate) async fn purge(State(service): State<Arc<Service>>, request: Request<Body>) -> Response {
    let answer = async {
        let (account, head) = admitted(&service, request).await?;
        let dropped = events(&service).purge(&account, filter(&service, &account, &head)?).await?;
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
        let (account, _) = admitted(&service, request).await?;
        let found = events(&service).show(&account, number(&id)?).await?;
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
        let (account, _) = admitted(&service, request).await?;
        match events(&service).discard(&account, number(&id)?).await? {
            true => Ok(json!({"dropped": 1})),
            false => Err(absent(&id)),
        }
    };
    respond(answer.await)
}

pub(crate) async fn retry(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Response {
    let answer = async {
        let (account, _) = admitted(&service, request).await?;
        let conflict = |text: &str| Err(Failure::new(409, "ResourceConflictException", format!("Event {id} {text}")));
        match events(&service).retry(&account, number(&id)?).await? {
            Ok(()) => Ok(json!({"retried": 1})),
            Err(NotRetried::Absent) => Err(absent(&id)),
            Err(NotRetried::Running) => conflict("is running"),
            Err(NotRetried::Message) => conflict("is a message to be read; there is nothing to run"),
        }
    };
    respond(answer.await)
}

pub(crate) async fn queues(State(service): State<Arc<Service>>, request: Request<Body>) -> Response {
    let answer = async {
        let (account, _) = admitted(&service, request).await?;
        let found = events(&service).queues(&account).await?;
        let queues: Vec<Value> = found.iter().map(|(name, count)| json!({"name": name, "messages": count})).collect();
        Ok(json!({"queues": queues}))
    };
    respond(answer.await)
}
