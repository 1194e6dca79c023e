//! Telemetry: what the platform, the function and the extensions say, handed to the extensions that subscribed.
//!
//! [`Hub`] sorts events to subscribers; each [`Subscriber`]'s queue and delivery are in [`crate::deliver`]. Where nobody subscribed, an event
//! costs one atomic load. Until the init phase ends, events are also kept (a bounded backlog), so that an extension which subscribes
//! late in it still gets those of its own start; then subscription closes, for good.
//!
//! The Telemetry API (2022-07-01) and the Logs API (2020-08-15) before it differ in the shapes of platform events, and in nothing else
//! that matters here: a subscriber has a [`Dialect`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use lambent_model::Clock;
use lambent_model::clock::rfc3339_millis;
use lambent_model::function::LogFormat;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::call::Connect;
use crate::deliver::Subscriber;
use crate::event::{PlatformEvent, ReportMetrics};
use crate::reply::body_of;
use crate::subscription::Subscription;

/// Bytes of events that are kept for those who have not subscribed yet.
const BACKLOG_BYTES: usize = 256 * 1024;

/// A stream of telemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stream {
    /// What the platform does.
    Platform,
    /// What the function writes.
    Function,
    /// What the extensions write.
    Extension,
}

impl Stream {
    pub const ALL: [Self; 3] = [Self::Platform, Self::Function, Self::Extension];

    fn bit(self) -> u8 {
        match self {
            Self::Platform => 1,
            Self::Function => 2,
            Self::Extension => 4,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Function => "function",
            Self::Extension => "extension",
        }
    }
}

/// The shapes a subscriber expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Telemetry API.
    Telemetry {
        /// Whether lines of a function that logs JSON come as objects, as since its schema of 2022-12-13.
        objects: bool,
    },
    /// Logs API, with or without `platform.runtimeDone`, which came with its schema of 2021-03-18.
    Logs {
        /// Whether it knows `platform.runtimeDone`.
        runtime_done: bool,
    },
}

impl Dialect {
    fn is_telemetry(self) -> bool {
        match self {
            Self::Telemetry { .. } => true,
            Self::Logs { .. } => false,
        }
    }
}

#[derive(Debug, Clone)]
enum Content {
    Platform(PlatformEvent),
    Line(Stream, Bytes),
}

#[derive(Debug, Clone)]
struct Record {
    at: Timestamp,
    content: Content,
}

/// Why a subscription is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The init phase is over.
    Closed,
    /// The extension subscribed through the other API.
    OtherApi,
}

/// The events of one container and who wants them.
pub(crate) struct Hub {
    /// Streams that somebody wants, or may yet want.
    wanted: AtomicU8,
    state: Mutex<State>,
    format: LogFormat,
    clock: Arc<dyn Clock>,
    connect: Arc<dyn Connect>,
}

struct State {
    open: bool,
    backlog: VecDeque<Record>,
    backlog_bytes: usize,
    /// At most one an extension.
    subscribers: Vec<(Dialect, Subscriber)>,
}

impl Hub {
    pub fn new(format: LogFormat, clock: Arc<dyn Clock>, connect: Arc<dyn Connect>) -> Self {
        let state = State { open: true, backlog: VecDeque::new(), backlog_bytes: 0, subscribers: Vec::new() };
        let wanted = Stream::ALL.iter().fold(0, |bits, stream| bits | stream.bit());
        Self { wanted: AtomicU8::new(wanted), state: Mutex::new(state), format, clock, connect }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wants(&self, stream: Stream) -> bool {
        // Relaxed: an event that races with a subscription may be on either side of it.
        self.wanted.load(Ordering::Relaxed) & stream.bit() != 0
    }

    /// A line of the function or of an extension.
    pub fn line(&self, stream: Stream, at: Timestamp, line: Bytes) {
        if self.wants(stream) {
            self.publish(Record { at, content: Content::Line(stream, line) });
        }
    }

    /// Something that the platform did.
    pub fn platform(&self, at: Timestamp, event: &PlatformEvent) {
        if self.wants(Stream::Platform) {
            self.publish(Record { at, content: Content::Platform(event.clone()) });
        }
    }

    fn publish(&self, record: Record) {
        let mut state = self.lock();
        for (dialect, subscriber) in &state.subscribers {
            self.hand(*dialect, subscriber, &record);
        }
        if state.open {
            state.keep(record);
        }
    }

    fn hand(&self, dialect: Dialect, subscriber: &Subscriber, record: &Record) {
        if subscriber.wants(record.stream()) {
            for event in record.render(dialect, self.format) {
                subscriber.push(event);
            }
        }
    }

    /// Subscribes an extension. Asked again, it stays subscribed as it was.
    pub fn subscribe(&self, name: &str, dialect: Dialect, subscription: Subscription) -> Result<(), Refused> {
        let mut state = self.lock();
        if !state.open {
            return Err(Refused::Closed);
        }
        if let Some((before, _)) = state.subscribers.iter().find(|(_, subscriber)| subscriber.name() == name) {
            let same = before.is_telemetry() == dialect.is_telemetry();
            return if same { Ok(()) } else { Err(Refused::OtherApi) };
        }
        let types = subscription.types.iter().map(|stream| stream.name().to_owned()).collect();
        let subscriber = Subscriber::start(name, subscription, Arc::clone(&self.connect), Arc::clone(&self.clock));
        for record in &state.backlog {
            self.hand(dialect, &subscriber, record);
        }
        state.subscribers.push((dialect, subscriber));
        drop(state);
        let event =
            PlatformEvent::TelemetrySubscription { name: name.to_owned(), state: "Subscribed".to_owned(), types };
        self.platform(self.clock.now(), &event);
        Ok(())
    }

    /// Ends the time in which extensions may subscribe.
    pub fn close_subscriptions(&self) {
        let mut state = self.lock();
        state.open = false;
        state.backlog = VecDeque::new();
        let wanted = state.subscribers.iter().fold(0, |bits, (_, subscriber)| {
            Stream::ALL
                .iter()
                .filter(|stream| subscriber.wants(**stream))
                .fold(bits, |bits, stream| bits | stream.bit())
        });
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Delivers what is queued, without waiting for batches to fill. Returns when that is done; a subscriber that does not take it keeps
    /// this waiting.
    pub async fn flush(&self) {
        let flushes: Vec<_> = self.lock().subscribers.iter().map(|(_, subscriber)| subscriber.flush()).collect();
        for flush in flushes {
            flush.await;
        }
    }
}

impl State {
    fn keep(&mut self, mut record: Record) {
        if let Content::Line(_, line) = &mut record.content {
            // A line is a piece of the buffer that it was read into; kept, it would keep all of that.
            *line = Bytes::copy_from_slice(line);
        }
        self.backlog_bytes += record.cost();
        self.backlog.push_back(record);
        while self.backlog_bytes > BACKLOG_BYTES {
            let Some(oldest) = self.backlog.pop_front() else { break };
            self.backlog_bytes -= oldest.cost();
        }
    }
}

impl Record {
    fn stream(&self) -> Stream {
        match &self.content {
            Content::Platform(_) => Stream::Platform,
            Content::Line(stream, _) => *stream,
        }
    }

    /// What keeping it costs, near enough.
    fn cost(&self) -> usize {
        let content = match &self.content {
            Content::Platform(_) => 256,
            Content::Line(_, line) => line.len(),
        };
        size_of::<Self>() + content
    }

    /// The events that say this in a dialect, each as JSON: usually one.
    fn render(&self, dialect: Dialect, format: LogFormat) -> Vec<Bytes> {
        match (&self.content, dialect) {
            (Content::Line(stream, line), dialect) => {
                let structured = dialect == Dialect::Telemetry { objects: true } && format == LogFormat::Json;
                let object = if structured { as_object(line) } else { None };
                vec![match object {
                    Some(object) => self.event(stream.name(), object),
                    None => self.event(stream.name(), &String::from_utf8_lossy(line)),
                }]
            }
            (Content::Platform(event), Dialect::Telemetry { .. }) => vec![event.line(self.at).into()],
            (Content::Platform(event), Dialect::Logs { runtime_done }) => self.platform_log(event, runtime_done),
        }
    }

    fn event(&self, kind: &str, record: &(impl Serialize + ?Sized)) -> Bytes {
        #[derive(Serialize)]
        struct Event<'a, T: ?Sized> {
            time: String,
            r#type: &'a str,
            record: &'a T,
        }
        body_of(&Event { time: rfc3339_millis(self.at), r#type: kind, record })
    }

    /// The Logs API's shapes. Events that it does not know are not sent.
    fn platform_log(&self, event: &PlatformEvent, runtime_done: bool) -> Vec<Bytes> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Request<'a> {
            request_id: lambent_model::RequestId,
            #[serde(skip_serializing_if = "Option::is_none")]
            version: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            status: Option<crate::event::Status>,
            #[serde(skip_serializing_if = "Option::is_none")]
            metrics: Option<&'a ReportMetrics>,
        }
        let request = |request_id| Request { request_id, version: None, status: None, metrics: None };
        match event {
            PlatformEvent::Start { request_id, version, .. } => {
                vec![self.event("platform.start", &Request { version: Some(version), ..request(*request_id) })]
            }
            PlatformEvent::RuntimeDone { request_id, status, .. } if runtime_done => {
                vec![self.event("platform.runtimeDone", &Request { status: Some(*status), ..request(*request_id) })]
            }
            PlatformEvent::Report { request_id, metrics, .. } => vec![
                self.event("platform.end", &request(*request_id)),
                self.event("platform.report", &Request { metrics: Some(metrics), ..request(*request_id) }),
            ],
            PlatformEvent::TelemetrySubscription { name, state, types } => {
                #[derive(Serialize)]
                struct Subscribed<'a> {
                    name: &'a str,
                    state: &'a str,
                    types: &'a [String],
                }
                vec![self.event("platform.logsSubscription", &Subscribed { name, state, types })]
            }
            PlatformEvent::Extension { .. } | PlatformEvent::LogsDropped { .. } => vec![event.line(self.at).into()],
            PlatformEvent::InitStart { .. }
            | PlatformEvent::RestoreStart { .. }
            | PlatformEvent::RestoreRuntimeDone { .. }
            | PlatformEvent::RestoreReport { .. }
            | PlatformEvent::InitRuntimeDone { .. }
            | PlatformEvent::InitReport { .. }
            | PlatformEvent::RuntimeDone { .. } => Vec::new(),
        }
    }
}

/// A line that is one JSON object, as such.
fn as_object(line: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice::<&RawValue>(line).ok().filter(|value| value.get().starts_with('{'))
}
