//! What a node and a wasm host process say to each other: frames over a local stream socket.
//!
//! ```text
//! length of the rest (4, little-endian) │ kind (1) │ call or slot (4) │ body
//! ```
//!
//! What happens once a function (loading it) is JSON; what happens every call is laid out by hand, and payloads are never copied into
//! documents. A sender writes at once where the socket takes it, and leaves the rest to one task; so an idle connection costs one
//! system call a frame, and a busy one gathers ([`Sender::gather`]). What is queued is bounded by what may be under way: calls, and a
//! window for each. Lengths are checked on both sides: neither trusts the other.

use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::Flavour;

/// Longest frame: a payload of Lambda's size and room for what goes with it.
pub(super) const MAX_FRAME: usize = 8 << 20;
const HEADER: usize = 9;
/// Read at once; large enough that a busy connection hands over many frames a call.
const READ: usize = 64 << 10;
/// Room below which a new buffer is taken. Frames are parts of the buffer they were read into, and keep it until they are gone.
const LEAST_READ: usize = 8 << 10;
/// Frames that are to be sent later are sent when this much has come together.
const GATHERED: usize = 64 << 10;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Node: load a function; [`Load`].
    Load = 1,
    /// Node: forget one.
    Unload = 2,
    /// Node: run a call; [`Request`].
    Call = 3,
    /// Node: so many bytes of a stream were taken.
    Taken = 4,
    /// Host: it serves.
    Ready = 16,
    /// Host: a function is loaded or not; [`Loaded`].
    Loaded = 17,
    /// Host: what a call wrote to its log.
    Log = 18,
    /// Host: a piece of a call's answer.
    Piece = 19,
    /// Host: a call is over; [`Done`].
    Done = 20,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [
            Self::Load,
            Self::Unload,
            Self::Call,
            Self::Taken,
            Self::Ready,
            Self::Loaded,
            Self::Log,
            Self::Piece,
            Self::Done,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// A frame that came.
#[derive(Debug)]
pub(super) struct Frame {
    pub kind: Kind,
    pub id: u32,
    pub body: Bytes,
}

/// A function to load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Load {
    /// The code's file in the shared directory.
    pub file: String,
    /// SHA-256 that the file must have.
    pub sha256: String,
    pub flavour: Flavour,
    pub name: String,
    pub version: String,
    pub memory_mib: u32,
    pub env: Vec<(String, String)>,
    /// Calls an instance may serve; none for one.
    pub reuse: Option<u32>,
    pub fuel: Option<u64>,
    /// Hosts that may be reached.
    pub allow: Vec<String>,
}

/// Whether that worked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Loaded {
    pub error: Option<String>,
}

/// A call.
#[derive(Debug, Default)]
pub struct Request {
    /// Which function, as [`super::Host::load`] numbered it.
    pub slot: u32,
    /// Whether the answer is wanted in pieces.
    pub streaming: bool,
    /// When it is ended, in milliseconds since 1970.
    pub deadline_ms: u64,
    /// How long it may run.
    pub timeout: Duration,
    /// Its id.
    pub request_id: String,
    /// The ARN it was called by.
    pub invoked_arn: String,
    /// `X-Amzn-Trace-Id`.
    pub trace: Option<String>,
    /// `X-Amz-Client-Context`, decoded.
    pub client_context: Option<String>,
    /// The Cognito identity.
    pub identity: Option<String>,
    /// The event.
    pub event: Bytes,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer.
    Success = 0,
    /// With an error of the function's own.
    Error = 1,
    /// In a trap, by leaving without an answer, and so on: the message says how.
    Trapped = 2,
    /// It ran longer than it may.
    TimedOut = 3,
    /// It wanted more memory than it may have.
    OutOfMemory = 4,
    /// It ran more instructions than it may.
    OutOfFuel = 5,
    /// Its answer is larger than it may be.
    TooLarge = 6,
    /// It never ran, because its function could not be loaded.
    NotRun = 7,
    /// It never ran, because too many others do.
    Busy = 8,
}

impl Outcome {
    fn of(byte: u8) -> Option<Self> {
        [
            Self::Success,
            Self::Error,
            Self::Trapped,
            Self::TimedOut,
            Self::OutOfMemory,
            Self::OutOfFuel,
            Self::TooLarge,
            Self::NotRun,
            Self::Busy,
        ]
        .into_iter()
        .find(|outcome| *outcome as u8 == byte)
    }
}

/// What came of a call.
#[derive(Debug)]
pub struct Done {
    /// How it ended.
    pub outcome: Outcome,
    /// When the guest's code began, on the monotonic clock, in nanoseconds; 0 where it never did.
    pub began_ns: u64,
    /// What making the instance took.
    pub made: Duration,
    /// Most bytes of memory the instance ever had.
    pub memory_bytes: u64,
    /// The type of the answer.
    pub content_type: String,
    /// The error's type, where it failed.
    pub error_type: String,
    /// The error's message.
    pub message: String,
    /// The rest of what it wrote to its log.
    pub log: Bytes,
    /// The answer, where it did not come in pieces.
    pub answer: Bytes,
}

impl Default for Done {
    fn default() -> Self {
        let (made, memory_bytes, began_ns) = (Duration::ZERO, 0, 0);
        let (content_type, error_type, message) = Default::default();
        let (log, answer) = (Bytes::new(), Bytes::new());
        Self { outcome: Outcome::NotRun, began_ns, made, memory_bytes, content_type, error_type, message, log, answer }
    }
}

fn put_text(out: &mut BytesMut, text: Option<&str>) {
    match text {
        None => out.put_u32_le(u32::MAX),
        Some(text) => {
            out.put_u32_le(u32::try_from(text.len()).unwrap_or(0));
            out.put_slice(text.as_bytes());
        }
    }
}

/// Reads what the other side laid out; none where that is no such thing.
struct Reader(Bytes);

impl Reader {
    fn u8(&mut self) -> Option<u8> {
        self.0.try_get_u8().ok()
    }
    fn u32(&mut self) -> Option<u32> {
        self.0.try_get_u32_le().ok()
    }
    fn u64(&mut self) -> Option<u64> {
        self.0.try_get_u64_le().ok()
    }
    fn bytes(&mut self) -> Option<Bytes> {
        let length = self.u32()? as usize;
        (length <= self.0.len()).then(|| self.0.split_to(length))
    }
    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.into()).ok()
    }
    fn optional(&mut self) -> Option<Option<String>> {
        match self.0.first_chunk::<4>() {
            Some([255, 255, 255, 255]) => {
                self.0.advance(4);
                Some(None)
            }
            _ => self.text().map(Some),
        }
    }
}

impl Request {
    /// Everything but the event, which follows as it is.
    pub(super) fn head(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(256);
        out.put_u32_le(self.slot);
        out.put_u8(u8::from(self.streaming));
        out.put_u64_le(self.deadline_ms);
        out.put_u64_le(u64::try_from(self.timeout.as_micros()).unwrap_or(u64::MAX));
        put_text(&mut out, Some(&self.request_id));
        put_text(&mut out, Some(&self.invoked_arn));
        put_text(&mut out, self.trace.as_deref());
        put_text(&mut out, self.client_context.as_deref());
        put_text(&mut out, self.identity.as_deref());
        out
    }

    pub(super) fn read(body: Bytes) -> Option<Self> {
        let mut from = Reader(body);
        Some(Self {
            slot: from.u32()?,
            streaming: from.u8()? != 0,
            deadline_ms: from.u64()?,
            timeout: Duration::from_micros(from.u64()?),
            request_id: from.text()?,
            invoked_arn: from.text()?,
            trace: from.optional()?,
            client_context: from.optional()?,
            identity: from.optional()?,
            event: from.0,
        })
    }
}

impl Done {
    /// Everything but the answer, which follows as it is.
    pub(super) fn head(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(128 + self.log.len());
        out.put_u8(self.outcome as u8);
        out.put_u64_le(self.began_ns);
        out.put_u64_le(u64::try_from(self.made.as_nanos()).unwrap_or(u64::MAX));
        out.put_u64_le(self.memory_bytes);
        put_text(&mut out, Some(&self.content_type));
        put_text(&mut out, Some(&self.error_type));
        put_text(&mut out, Some(&self.message));
        out.put_u32_le(u32::try_from(self.log.len()).unwrap_or(0));
        out.put_slice(&self.log);
        out
    }

    pub(super) fn read(body: Bytes) -> Option<Self> {
        let mut from = Reader(body);
        Some(Self {
            outcome: Outcome::of(from.u8()?)?,
            began_ns: from.u64()?,
            made: Duration::from_nanos(from.u64()?),
            memory_bytes: from.u64()?,
            content_type: from.text()?,
            error_type: from.text()?,
            message: from.text()?,
            log: from.bytes()?,
            answer: from.0,
        })
    }
}

/// The sending side of a connection.
#[derive(Debug)]
pub(super) struct Sender {
    stream: Arc<UnixStream>,
    pending: Mutex<Pending>,
    /// There is something for [`Sender::run`].
    wake: Notify,
}

/// What is to be sent.
#[derive(Debug, Default)]
struct Pending {
    bytes: BytesMut,
    /// The socket is full; [`Sender::run`] waits for it.
    blocked: bool,
    /// [`Sender::run`] was told that there is something, and has not come to it.
    told: bool,
}

impl Sender {
    pub(super) fn new(stream: Arc<UnixStream>) -> Arc<Self> {
        Arc::new(Self { stream, pending: Mutex::default(), wake: Notify::new() })
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a frame; its body is `head` and `rest`. What the socket does not take now goes out by [`Sender::run`].
    pub(super) fn send(&self, kind: Kind, id: u32, head: &[u8], rest: &[u8]) -> io::Result<()> {
        let start = start(kind, id, head.len() + rest.len())?;
        let mut pending = self.pending();
        let mut sent = 0;
        if pending.bytes.is_empty() {
            let slices = [IoSlice::new(&start), IoSlice::new(head), IoSlice::new(rest)];
            match self.stream.try_write_vectored(&slices) {
                Ok(count) => sent = count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        for part in [&start[..], head, rest] {
            let skip = sent.min(part.len());
            sent -= skip;
            pending.bytes.put_slice(part.get(skip..).unwrap_or_default());
        }
        self.write(&mut pending)
    }

    /// The same, with the next frame that is sent or [`Sender::flush`]: so that many go out with one system call.
    pub(super) fn send_later(&self, kind: Kind, id: u32, head: &[u8], rest: &[u8]) -> io::Result<()> {
        let start = start(kind, id, head.len() + rest.len())?;
        let mut pending = self.pending();
        [&start[..], head, rest].iter().for_each(|part| pending.bytes.put_slice(part));
        if pending.bytes.len() < GATHERED { Ok(()) } else { self.write(&mut pending) }
    }

    /// Sends what was to be sent later.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.write(&mut self.pending())
    }

    /// The same, as soon as everything else that is ready on this thread has had its turn: so that calls which came together go out with
    /// one system call, and wake the other side once. For a connection that is busy; [`Sender::run`] has to be polled.
    pub(super) fn gather(&self, kind: Kind, id: u32, head: &[u8], rest: &[u8]) -> io::Result<()> {
        self.send_later(kind, id, head, rest)?;
        let mut pending = self.pending();
        if !pending.bytes.is_empty() && !pending.told {
            pending.told = true;
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Writes what there is, and leaves to [`Sender::run`] what the socket does not take.
    fn write(&self, pending: &mut Pending) -> io::Result<()> {
        if pending.blocked || pending.bytes.is_empty() {
            return Ok(());
        }
        match self.stream.try_write(&pending.bytes) {
            Ok(count) => pending.bytes.advance(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if !pending.bytes.is_empty() {
            pending.blocked = true;
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Sends what is left over, until the connection breaks.
    pub(super) async fn run(&self) -> io::Result<()> {
        loop {
            self.wake.notified().await;
            // Whoever else is ready may have something to send, too.
            tokio::task::yield_now().await;
            while !self.drain()? {
                self.stream.writable().await?;
            }
        }
    }

    /// Writes what there is; whether the socket took all of it.
    fn drain(&self) -> io::Result<bool> {
        let mut pending = self.pending();
        (pending.told, pending.blocked) = (false, false);
        self.write(&mut pending)?;
        Ok(!pending.blocked)
    }
}

/// What goes before a body of so many bytes.
fn start(kind: Kind, id: u32, body: usize) -> io::Result<[u8; HEADER]> {
    let length = HEADER - 4 + body;
    if length > MAX_FRAME {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let [a, b, c, d] = u32::try_from(length).unwrap_or(0).to_le_bytes();
    let [e, f, g, h] = id.to_le_bytes();
    Ok([a, b, c, d, kind as u8, e, f, g, h])
}

/// The receiving side.
#[derive(Debug)]
pub(super) struct Receiver {
    stream: Arc<UnixStream>,
    buffer: BytesMut,
}

impl Receiver {
    pub(super) fn new(stream: Arc<UnixStream>) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next frame; none at the end of the connection.
    pub(super) async fn receive(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.received()? {
                return Ok(Some(frame));
            }
            self.stream.readable().await?;
            if self.buffer.capacity() - self.buffer.len() < LEAST_READ {
                self.buffer.reserve(READ);
            }
            match self.stream.try_read_buf(&mut self.buffer) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next frame, if it has come already.
    pub(super) fn received(&mut self) -> io::Result<Option<Frame>> {
        let Some(head) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let [a, b, c, d, kind, e, f, g, h] = *head;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let kind = Kind::of(kind).filter(|_| (HEADER - 4..=MAX_FRAME).contains(&length));
        let Some(kind) = kind else { return Err(io::ErrorKind::InvalidData.into()) };
        if self.buffer.len() < length + 4 {
            self.buffer.reserve(length + 4 - self.buffer.len());
            return Ok(None);
        }
        let mut body = self.buffer.split_to(length + 4).freeze();
        body.advance(HEADER);
        Ok(Some(Frame { kind, id: u32::from_le_bytes([e, f, g, h]), body }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_answers_read_back_as_written() {
        let call = Request {
            slot: 7,
            streaming: true,
            deadline_ms: 1,
            timeout: Duration::from_micros(2),
            request_id: "r".to_owned(),
            invoked_arn: "arn".to_owned(),
            trace: None,
            client_context: Some(String::new()),
            identity: Some("{}".to_owned()),
            event: Bytes::from_static(b"event"),
        };
        let mut bytes = call.head();
        bytes.put_slice(&call.event);
        let whole = bytes.freeze();
        let read = Request::read(whole.clone()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{call:?}"));
        for end in 0..whole.len() - call.event.len() {
            assert!(Request::read(whole.slice(..end)).is_none(), "{end}");
        }
        let done = Done {
            outcome: Outcome::Trapped,
            message: "m".to_owned(),
            log: Bytes::from_static(b"log"),
            answer: Bytes::from_static(b"answer"),
            ..Done::default()
        };
        let mut bytes = done.head();
        bytes.put_slice(&done.answer);
        assert_eq!(format!("{:?}", Done::read(bytes.freeze()).unwrap()), format!("{done:?}"));
    }

    #[tokio::test]
    async fn frames_cross_whole_in_order_whatever_the_socket_takes() {
        let (a, b) = UnixStream::pair().unwrap();
        let sender = Sender::new(Arc::new(a));
        let mut receiver = Receiver::new(Arc::new(b));
        let large = vec![7; 3 << 20];
        sender.send(Kind::Call, 1, b"head", &large).unwrap();
        sender.send(Kind::Done, 2, b"", b"").unwrap();
        let running = Arc::clone(&sender);
        let task = tokio::spawn(async move { running.run().await });
        let first = receiver.receive().await.unwrap().unwrap();
        assert_eq!((first.kind, first.id, first.body.len()), (Kind::Call, 1, 4 + large.len()));
        let second = receiver.receive().await.unwrap().unwrap();
        assert_eq!((second.kind, second.id, second.body.len()), (Kind::Done, 2, 0));
        assert!(sender.send(Kind::Call, 3, &vec![0; MAX_FRAME], b"").is_err());
        task.abort();
    }

    #[tokio::test]
    async fn what_is_sent_later_goes_before_what_is_sent_next() {
        let (a, b) = UnixStream::pair().unwrap();
        let sender = Sender::new(Arc::new(a));
        let mut receiver = Receiver::new(Arc::new(b));
        sender.send_later(Kind::Done, 1, b"a", b"b").unwrap();
        sender.send_later(Kind::Done, 2, b"", b"c").unwrap();
        sender.send(Kind::Log, 3, b"d", b"").unwrap();
        sender.send_later(Kind::Done, 4, b"e", b"").unwrap();
        sender.flush().unwrap();
        for (id, body) in [(1, "ab"), (2, "c"), (3, "d"), (4, "e")] {
            let frame = receiver.receive().await.unwrap().unwrap();
            assert_eq!((frame.id, &frame.body[..]), (id, body.as_bytes()));
        }
        assert!(receiver.received().unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_gathered_goes_out_when_the_others_have_had_their_turn() {
        let (a, b) = UnixStream::pair().unwrap();
        let sender = Sender::new(Arc::new(a));
        let mut receiver = Receiver::new(Arc::new(b));
        let large = vec![7; 3 << 20];
        sender.gather(Kind::Call, 1, b"a", b"b").unwrap();
        sender.gather(Kind::Call, 2, b"", b"c").unwrap();
        assert!(receiver.stream.try_read(&mut [0]).is_err(), "nothing was sent yet");
        let running = Arc::clone(&sender);
        let task = tokio::spawn(async move { running.run().await });
        for (id, body) in [(1, "ab"), (2, "c")] {
            let frame = receiver.receive().await.unwrap().unwrap();
            assert_eq!((frame.id, &frame.body[..]), (id, body.as_bytes()));
        }
        // More than the socket takes at once, and something behind it.
        sender.gather(Kind::Call, 3, b"", &large).unwrap();
        sender.gather(Kind::Call, 4, b"d", b"").unwrap();
        for (id, length) in [(3, large.len()), (4, 1)] {
            let frame = receiver.receive().await.unwrap().unwrap();
            assert_eq!((frame.id, frame.body.len()), (id, length));
        }
        task.abort();
    }

    #[tokio::test]
    async fn what_is_no_frame_breaks_the_connection() {
        for bytes in [[255, 255, 255, 255, 3, 0, 0, 0, 0], [5, 0, 0, 0, 99, 0, 0, 0, 0], [0, 0, 0, 0, 3, 0, 0, 0, 0]] {
            let (a, b) = UnixStream::pair().unwrap();
            a.writable().await.unwrap();
            a.try_write(&bytes).unwrap();
            assert!(Receiver::new(Arc::new(b)).receive().await.is_err());
        }
    }
}
