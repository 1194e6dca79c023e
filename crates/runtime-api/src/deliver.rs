//! One telemetry subscriber: its bounded queue, and the task that sends batches to it.
//!
//! The task waits for the first event, then until the batch is full, its time is up or a flush is asked for, and sends it over a connection
//! into the container. What cannot be delivered is tried again [`ATTEMPTS`] times and then dropped; so is what comes while the queue is
//! full. Either way the subscriber is told with `platform.logsDropped` as soon as it listens again.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use lambent_model::Clock;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::call::Connect;
use crate::event::PlatformEvent;
use crate::subscription::{Buffering, Destination, Subscription};
use crate::telemetry::Stream;

/// A queue holds this many batches: one on its way, one filling.
const BATCHES: usize = 2;
/// How often a batch is tried.
const ATTEMPTS: u32 = 5;
/// The wait after the first failure; it doubles with each.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// How long one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// What is read of a subscriber's answer, which nobody needs, before the connection is given up.
const ANSWER_BYTES: usize = 64 * 1024;

const TOO_SLOW: &str = "Some logs were dropped because the downstream consumer is slower than the logs production rate";
const UNREACHABLE: &str = "Some logs were dropped because they could not be delivered to the subscriber";

/// A subscriber. Dropping it ends its delivery.
pub(crate) struct Subscriber {
    name: String,
    types: Vec<Stream>,
    queue: Arc<Queue>,
    /// Holds one task, and aborts it when dropped.
    _task: JoinSet<()>,
}

struct Queue {
    limits: Buffering,
    state: Mutex<Waiting>,
    changed: Notify,
    /// How many events were delivered or given up.
    settled: watch::Sender<u64>,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Bytes>,
    bytes: usize,
    /// Events ever taken in.
    pushed: u64,
    /// Up to which of these no batch waits to fill.
    flush_to: u64,
    /// Events that left the queue.
    taken: u64,
    dropped: Option<Dropped>,
}

struct Dropped {
    reason: &'static str,
    records: u64,
    bytes: u64,
}

impl Subscriber {
    pub fn start(name: &str, subscription: Subscription, connect: Arc<dyn Connect>, clock: Arc<dyn Clock>) -> Self {
        let queue = Arc::new(Queue {
            limits: subscription.buffering,
            state: Mutex::new(Waiting::default()),
            changed: Notify::new(),
            settled: watch::Sender::new(0),
        });
        let mut task = JoinSet::new();
        let client = Client { destination: subscription.destination, connect, open: Open::None };
        task.spawn(deliver(Arc::clone(&queue), client, clock));
        Self { name: name.to_owned(), types: subscription.types, queue, _task: task }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn wants(&self, stream: Stream) -> bool {
        self.types.contains(&stream)
    }

    /// Queues an event; where there is no room it is counted and dropped.
    pub fn push(&self, event: Bytes) {
        let limits = self.queue.limits;
        let mut waiting = self.queue.lock();
        if waiting.events.len() >= BATCHES * limits.items || waiting.bytes + event.len() > BATCHES * limits.bytes {
            waiting.drop_event(TOO_SLOW, 1, event.len() as u64);
            return;
        }
        waiting.pushed += 1;
        waiting.bytes += event.len();
        waiting.events.push_back(event);
        // The task waits for the first event, then for the batch to fill; anything between need not wake it.
        if waiting.events.len() == 1 || limits.reached(&waiting) {
            self.queue.changed.notify_one();
        }
    }

    /// Sends what is queued now. The future ends when it has been delivered or given up.
    pub fn flush(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut waiting = self.queue.lock();
        let target = waiting.pushed;
        waiting.flush_to = target;
        drop(waiting);
        self.queue.changed.notify_one();
        let mut settled = self.queue.settled.subscribe();
        async move {
            // It errs when the subscriber is gone, and then there is nothing to wait for either.
            let _ = settled.wait_for(|count| *count >= target).await;
        }
    }
}

impl Buffering {
    fn reached(&self, waiting: &Waiting) -> bool {
        waiting.events.len() >= self.items || waiting.bytes >= self.bytes
    }
}

impl Waiting {
    fn drop_event(&mut self, reason: &'static str, records: u64, bytes: u64) {
        let dropped = self.dropped.get_or_insert(Dropped { reason, records: 0, bytes: 0 });
        dropped.records += records;
        dropped.bytes += bytes;
    }

    fn batch(&mut self, limits: &Buffering) -> Vec<Bytes> {
        let mut batch = Vec::with_capacity(self.events.len().min(limits.items));
        let mut bytes = 0;
        while let Some(event) = self.events.front()
            && batch.len() < limits.items
            && (batch.is_empty() || bytes + event.len() <= limits.bytes)
        {
            bytes += event.len();
            batch.extend(self.events.pop_front());
        }
        self.bytes -= bytes;
        self.taken += batch.len() as u64;
        batch
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is a batch to send.
    async fn batch(&self) -> (Vec<Bytes>, Option<Dropped>) {
        let mut due = None;
        loop {
            {
                let mut waiting = self.lock();
                let first = waiting.events.front().is_some();
                let now = tokio::time::Instant::now();
                if first
                    && (self.limits.reached(&waiting)
                        || waiting.flush_to > waiting.taken
                        || due.is_some_and(|due| now >= due))
                {
                    return (waiting.batch(&self.limits), waiting.dropped.take());
                }
                if first && due.is_none() {
                    due = Some(now + self.limits.timeout);
                }
            }
            match due {
                // Time up or something changed: looked at again either way.
                Some(due) => drop(tokio::time::timeout_at(due, self.changed.notified()).await),
                None => self.changed.notified().await,
            }
        }
    }
}

async fn deliver(queue: Arc<Queue>, mut client: Client, clock: Arc<dyn Clock>) {
    loop {
        let (mut batch, dropped) = queue.batch().await;
        let count = batch.len() as u64;
        let bytes = batch.iter().map(|event| event.len() as u64).sum();
        if let Some(dropped) = &dropped {
            let event = PlatformEvent::LogsDropped {
                reason: dropped.reason.to_owned(),
                dropped_records: dropped.records,
                dropped_bytes: dropped.bytes,
            };
            batch.insert(0, event.line(clock.now()).into());
        }
        if client.send(&batch).await.is_err() {
            let mut waiting = queue.lock();
            waiting.drop_event(UNREACHABLE, count, bytes);
            if let Some(dropped) = dropped {
                // Said to nobody: it stays to be said.
                waiting.drop_event(UNREACHABLE, dropped.records, dropped.bytes);
            }
        }
        queue.settled.send_modify(|settled| *settled += count);
    }
}

struct Client {
    destination: Destination,
    connect: Arc<dyn Connect>,
    open: Open,
}

/// The connection that is kept between batches.
enum Open {
    None,
    /// Its task drives the connection, and is aborted with it.
    Http(SendRequest<Full<Bytes>>, JoinSet<()>),
    Tcp(TcpStream),
}

impl Client {
    /// Sends a batch, trying again where it fails.
    async fn send(&mut self, batch: &[Bytes]) -> io::Result<()> {
        let body = match self.destination {
            Destination::Http { .. } => array(batch),
            Destination::Tcp { .. } => lines(batch),
        };
        let mut backoff = FIRST_BACKOFF;
        let mut attempt = 1;
        loop {
            let outcome = tokio::time::timeout(ATTEMPT_TIMEOUT, self.attempt(body.clone())).await;
            let error = match outcome {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => io::ErrorKind::TimedOut.into(),
            };
            self.open = Open::None;
            if attempt == ATTEMPTS {
                tracing::debug!(%error, "telemetry subscriber not reached");
                return Err(error);
            }
            attempt += 1;
            tokio::time::sleep(backoff).await;
            backoff *= 2;
        }
    }

    async fn attempt(&mut self, body: Bytes) -> io::Result<()> {
        match &self.destination {
            Destination::Tcp { port } => {
                let mut stream = match std::mem::replace(&mut self.open, Open::None) {
                    Open::Tcp(stream) => stream,
                    Open::None | Open::Http(..) => self.connect.connect(*port).await?,
                };
                stream.write_all(&body).await?;
                self.open = Open::Tcp(stream);
                Ok(())
            }
            Destination::Http { port, authority, path, method } => {
                let (mut sender, connection) = match std::mem::replace(&mut self.open, Open::None) {
                    Open::Http(sender, connection) if !sender.is_closed() => (sender, connection),
                    Open::None | Open::Http(..) | Open::Tcp(_) => open_http(self.connect.connect(*port).await?).await?,
                };
                let request = Request::builder()
                    .method(method.clone())
                    .uri(path)
                    .header(HOST, authority)
                    .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
                    .body(Full::new(body))
                    .map_err(io::Error::other)?;
                sender.ready().await.map_err(io::Error::other)?;
                let response = sender.send_request(request).await.map_err(io::Error::other)?;
                let status = response.status();
                // Read to its end, so that the connection can be used again.
                let answer = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
                if answer.is_ok() {
                    self.open = Open::Http(sender, connection);
                }
                if status.is_success() { Ok(()) } else { Err(io::Error::other(format!("status {status}"))) }
            }
        }
    }
}

async fn open_http(stream: TcpStream) -> io::Result<(SendRequest<Full<Bytes>>, JoinSet<()>)> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let mut task = JoinSet::new();
    task.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to a telemetry subscriber ended");
        }
    });
    Ok((sender, task))
}

/// `[a,b,c]`
fn array(batch: &[Bytes]) -> Bytes {
    let mut body = BytesMut::with_capacity(batch.iter().map(|event| event.len() + 1).sum::<usize>() + 1);
    body.put_u8(b'[');
    for (index, event) in batch.iter().enumerate() {
        if index > 0 {
            body.put_u8(b',');
        }
        body.extend_from_slice(event);
    }
    body.put_u8(b']');
    body.freeze()
}

/// A line each.
fn lines(batch: &[Bytes]) -> Bytes {
    let mut body = BytesMut::with_capacity(batch.iter().map(|event| event.len() + 1).sum());
    for event in batch {
        body.extend_from_slice(event);
        body.put_u8(b'\n');
    }
    body.freeze()
}
