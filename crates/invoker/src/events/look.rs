//! What people see of the queue, and what they can do: list, show, retry, drop, purge.

use bytes::Bytes;
use lambent_model::{AccountId, RequestId};
use lambent_store::queue::{EventId, Kept, Query, Status};
use serde::Serialize;

use super::Events;
use super::event::{Meta, Task};
use crate::Error;

/// Events of one page at most.
const PAGE: usize = 1_000;

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Those in this built-in queue; none: those that are pending or running.
    pub queue: Option<String>,
    /// Only of the function of this ARN.
    pub function: Option<String>,
    /// Continue behind this one.
    pub after: Option<u64>,
    /// At most so many.
    pub limit: Option<usize>,
}

/// An event as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    /// Its number.
    pub id: u64,
    /// The id that its caller was told.
    pub request_id: Option<RequestId>,
    /// `pending`, `running` or `buried`.
    pub state: &'static str,
    /// What is to be done with it: `invoke`, `deliver`; or `keep`, to be read.
    pub task: &'static str,
    /// The function it is about.
    pub function: Option<String>,
    /// The version or alias that was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qualifier: Option<String>,
    /// Where it is to be delivered, or was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// The built-in queue it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Why it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it came, RFC 3339.
    pub enqueued_at: String,
    /// When it is due.
    pub due_at: String,
    /// When it must start at the latest; what events are ordered by.
    pub latest_start: String,
    /// How often it was begun.
    pub attempts: u32,
    /// How often the function failed it.
    pub failures: u32,
    /// Size of its content.
    pub payload_bytes: u64,
    /// Message attributes, where it is a dead letter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<(String, String, String)>,
    /// Its content, where one event is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
}

/// Why an event was not made pending again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotRetried {
    /// There is none such.
    Absent,
    /// It runs.
    Running,
    /// It is a message, to be read.
    Message,
}

fn shown(kept: Kept) -> Shown {
    let meta = Meta::read(&kept.meta).ok();
    let (task, qualifier, destination, attributes) = match meta.as_ref().map(|meta| &meta.task) {
        Some(Task::Invoke(call)) => ("invoke", call.qualifier.clone(), None, Vec::new()),
        Some(Task::Deliver(parcel)) => ("deliver", None, Some(parcel.to.clone()), parcel.attributes.clone()),
        Some(Task::Keep(parcel)) => ("keep", None, Some(parcel.to.clone()), parcel.attributes.clone()),
        Some(Task::Tick(_)) => ("tick", None, None, Vec::new()),
        None => ("unreadable", None, None, Vec::new()),
    };
    let (state, queue, reason) = match kept.status {
        Status::Pending => ("pending", None, None),
        Status::Leased => ("running", None, None),
        Status::Buried { queue, reason } => ("buried", Some(queue), Some(reason)),
    };
    Shown {
        id: kept.id.0,
        request_id: meta.as_ref().map(|meta| meta.request_id),
        state,
        task,
        function: meta.as_ref().map(|meta| meta.function().to_string()),
        qualifier,
        destination,
        queue,
        reason,
        enqueued_at: kept.enqueued.to_string(),
        due_at: kept.due.to_string(),
        latest_start: kept.latest_start.to_string(),
        attempts: kept.leases,
        failures: meta.map_or(0, |meta| meta.failures),
        payload_bytes: kept.payload_bytes,
        attributes,
        payload: None,
    }
}

impl Events {
    /// Events of an account, in the order in which they came.
    pub async fn list(&self, account: &AccountId, filter: Filter) -> Result<Vec<Shown>, Error> {
        let query = Query {
            queue: filter.queue,
            account: Some(account.to_string()),
            lane: filter.function,
            after: filter.after.map(EventId),
            limit: filter.limit.unwrap_or(PAGE).clamp(1, PAGE),
        };
        Ok(self.queue.list(query).await?.into_iter().map(shown).collect())
    }

    /// Built-in queues that hold something, and how much.
    pub async fn queues(&self, account: &AccountId) -> Result<Vec<(String, u64)>, Error> {
        Ok(self.queue.queues(account.as_str()).await?)
    }

    /// One event with its content; none where the account has none such.
    pub async fn show(&self, account: &AccountId, id: u64) -> Result<Option<Shown>, Error> {
        Ok(self.own(account, id).await?.map(|(kept, payload)| {
            let payload = Some(String::from_utf8_lossy(&payload).into_owned());
            Shown { payload, ..shown(kept) }
        }))
    }

    /// Makes an event due now: with all of its attempts before it where it was buried.
    pub async fn retry(&self, account: &AccountId, id: u64) -> Result<Result<(), NotRetried>, Error> {
        let Some((kept, _)) = self.own(account, id).await? else { return Ok(Err(NotRetried::Absent)) };
        let Ok(mut meta) = Meta::read(&kept.meta) else { return Ok(Err(NotRetried::Message)) };
        if let Task::Keep(_) = meta.task {
            return Ok(Err(NotRetried::Message));
        }
        let now = self.now();
        if let Status::Buried { .. } = kept.status {
            (meta.since, meta.failures, meta.setbacks) = (now, 0, 0);
        }
        let is_retried = self.queue.revise(kept.id, now, kept.latest_start, meta.written()).await?;
        Ok(if is_retried { Ok(()) } else { Err(NotRetried::Running) })
    }

    /// Forgets an event; one that runs runs on, but is not tried again. False where the account has none such.
    pub async fn discard(&self, account: &AccountId, id: u64) -> Result<bool, Error> {
        if self.own(account, id).await?.is_none() {
            return Ok(false);
        }
        Ok(self.queue.forget(vec![EventId(id)]).await? > 0)
    }

    /// Forgets every event that `filter` shows; returns how many there were.
    pub async fn purge(&self, account: &AccountId, filter: Filter) -> Result<u64, Error> {
        let (mut gone, mut after) = (0, None);
        loop {
            let page = self.list(account, Filter { after, limit: None, ..filter.clone() }).await?;
            let Some(last) = page.last() else { return Ok(gone) };
            after = Some(last.id);
            gone += self.queue.forget(page.iter().map(|event| EventId(event.id)).collect()).await?;
        }
    }

    async fn own(&self, account: &AccountId, id: u64) -> Result<Option<(Kept, Bytes)>, Error> {
        let found = self.queue.get(EventId(id)).await?;
        Ok(found.filter(|(kept, _)| kept.account == account.as_str()))
    }
}
