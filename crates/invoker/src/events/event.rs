//! What the invoker knows of an event; it stands beside the event's content in the queue.

use bytes::Bytes;
use jiff::Timestamp;
use lambent_fleet::AffinityValue;
use lambent_model::{AccountId, FunctionArn, Qualifier, RequestId};
use lambent_store::queue::{NewEvent, Place};
use serde::{Deserialize, Serialize};

/// The built-in queue for what has nowhere else to go.
pub const DEAD_LETTERS: &str = "dead-letters";

/// An event's memory. A later release reads what an earlier one wrote, so fields that come later have a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) request_id: RequestId,
    /// Its age is counted from here.
    pub(crate) since: Timestamp,
    /// How often the function has answered it with an error.
    pub(crate) failures: u32,
    /// How often in a row it could not be run, or delivered.
    pub(crate) setbacks: u32,
    pub(crate) task: Task,
}

/// What is to be done with an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Task {
    /// Run a function with it.
    Invoke(Call),
    /// Take it somewhere.
    Deliver(Parcel),
    /// Have a schedule run.
    Tick(Tick),
    /// Nothing: it is in a built-in queue to be read.
    Keep(Parcel),
}

/// A function call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) function: FunctionArn,
    pub(crate) qualifier: Option<String>,
    /// `X-Amzn-Trace-Id`.
    pub(crate) trace: Option<String>,
    /// As JSON text.
    pub(crate) client_context: Option<String>,
    /// `X-Amz-Tenant-Id`.
    #[serde(default)]
    pub(crate) tenant: Option<String>,
    /// The digest of the value it shares with the calls that belong to the same container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) affinity: Option<AffinityValue>,
    /// The schedule whose run it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) schedule: Option<Scheduled>,
}

/// Where a call of a schedule is from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Scheduled {
    /// The schedule's ARN.
    pub(crate) arn: String,
    /// When it was to run.
    pub(crate) at: Timestamp,
    /// Where the event goes when the function cannot be called at all.
    pub(crate) dead_letter: Option<String>,
}

/// The next run of a schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tick {
    /// Its target.
    pub(crate) function: FunctionArn,
    pub(crate) account: AccountId,
    pub(crate) group: String,
    pub(crate) name: String,
    /// Of the schedule, when this was made; void when it has another.
    pub(crate) generation: RequestId,
    pub(crate) at: Timestamp,
}

impl Call {
    pub(crate) fn qualifier(&self) -> Option<Qualifier> {
        self.qualifier.as_ref().and_then(|text| text.parse().ok())
    }
}

/// An outcome on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Parcel {
    /// The function whose event it was.
    pub(crate) function: FunctionArn,
    /// ARN of where it goes.
    pub(crate) to: String,
    /// Message attributes, for destinations that have such: name, SQS's data type, value.
    pub(crate) attributes: Vec<(String, String, String)>,
}

impl Meta {
    /// A fresh event's.
    pub(crate) fn new(request_id: RequestId, since: Timestamp, task: Task) -> Self {
        Self { request_id, since, failures: 0, setbacks: 0, task }
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// As it is kept. Nothing in it can fail to be written.
    pub(crate) fn written(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// The function it is about.
    pub(crate) fn function(&self) -> &FunctionArn {
        match &self.task {
            Task::Invoke(call) => &call.function,
            Task::Tick(tick) => &tick.function,
            Task::Deliver(parcel) | Task::Keep(parcel) => &parcel.function,
        }
    }

    /// This as a pending event that is due now. A function's events share a lane, and so does what goes to one destination.
    pub(crate) fn pending(self, payload: Bytes) -> NewEvent {
        let lane = match &self.task {
            Task::Invoke(call) => call.function.to_string(),
            Task::Tick(tick) => tick.function.to_string(),
            Task::Deliver(parcel) | Task::Keep(parcel) => parcel.to.clone(),
        };
        let account = self.function().account.to_string();
        self.placed(account, lane, Place::Pending, payload)
    }

    /// This as a message of a built-in queue.
    pub(crate) fn kept(self, account: &AccountId, queue: &str, reason: String, payload: Bytes) -> NewEvent {
        let lane = self.function().to_string();
        let place = Place::Buried { queue: queue.to_owned(), reason };
        self.placed(account.to_string(), lane, place, payload)
    }

    fn placed(self, account: String, lane: String, place: Place, payload: Bytes) -> NewEvent {
        let (due, meta) = (self.since, self.written());
        NewEvent { account, lane, place, due, latest_start: due, meta, payload }
    }
}
