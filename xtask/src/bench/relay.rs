//! The least that any server of the Runtime API can do: one thread that passes bytes between clients and functions, and looks at
//! nothing but lengths and whom an answer is for. What a call takes through it is what the official client itself takes, on this machine, in
//! this run; what it does with a crowd is what the machine does with so many processes.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::install::Function;
use super::servers::Process;

/// Room for a request or an answer; the bench's are small.
const MESSAGE_BYTES: usize = 64 * 1024;
/// How often the thread looks whether it is still wanted.
const LOOK_MILLIS: u16 = 100;

/// A relay and its functions.
pub struct Relay {
    /// Where it takes calls.
    pub address: SocketAddr,
    wanted: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
    _functions: Vec<Process>,
}

impl Relay {
    /// Starts the function's bootstrap so many times and relays to them.
    pub fn start(function: &Function, times: usize) -> Result<Self> {
        let (calls, events) = (TcpListener::bind(("127.0.0.1", 0))?, TcpListener::bind(("127.0.0.1", 0))?);
        let (address, runtime_api) = (calls.local_addr()?, events.local_addr()?);
        let wanted = Arc::new(AtomicBool::new(true));
        let still = Arc::clone(&wanted);
        let thread = std::thread::spawn(move || serve(&calls, &events, &still));
        let functions = (0..times).map(|_| run(function, runtime_api)).collect::<Result<_>>()?;
        Ok(Self { address, wanted, thread: Some(thread), _functions: functions })
    }
}

fn run(function: &Function, runtime_api: SocketAddr) -> Result<Process> {
    let mut command = Command::new(function.dir.join("bootstrap"));
    command.arg(function.handler).current_dir(&function.dir).env("AWS_LAMBDA_RUNTIME_API", runtime_api.to_string());
    let named =
        ["FUNCTION_NAME", "LOG_GROUP_NAME", "LOG_STREAM_NAME"].map(|name| (format!("AWS_LAMBDA_{name}"), "relay"));
    command.envs(named).env("AWS_LAMBDA_FUNCTION_VERSION", "1").env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1769");
    command.env("_HANDLER", function.handler).env("LAMBDA_TASK_ROOT", &function.dir).env("AWS_REGION", "us-east-1");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Process(command.spawn().context("cannot start the function")?))
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.wanted.store(false, Ordering::Relaxed);
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("the relay failed: {error:#}");
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    Client,
    Function,
}

/// A connection and what has come of its next message.
struct Open {
    peer: Peer,
    stream: TcpStream,
    message: Vec<u8>,
}

/// What is under way.
#[derive(Default)]
struct State {
    /// The last call's number.
    number: usize,
    /// The callers that wait, by the number of their call.
    callers: HashMap<usize, usize>,
    /// The events that no function has yet asked for.
    events: VecDeque<Vec<u8>>,
    /// The polls that wait for an event; the last that came is the first that is served.
    polls: Vec<usize>,
}

fn serve(calls: &TcpListener, events: &TcpListener, wanted: &AtomicBool) -> Result<()> {
    let (mut open, mut state, mut next) = (HashMap::<usize, Open>::new(), State::default(), 0);
    while wanted.load(Ordering::Relaxed) {
        let mut fds =
            vec![PollFd::new(calls.as_fd(), PollFlags::POLLIN), PollFd::new(events.as_fd(), PollFlags::POLLIN)];
        let ids: Vec<usize> = open.keys().copied().collect();
        fds.extend(open.values().map(|open| PollFd::new(open.stream.as_fd(), PollFlags::POLLIN)));
        poll(&mut fds, PollTimeout::from(LOOK_MILLIS))?;
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        drop(fds);
        for (listener, peer) in [(calls, Peer::Client), (events, Peer::Function)] {
            if ready.get(usize::from(peer == Peer::Function)) == Some(&true) {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                open.insert(next, Open { peer, stream, message: Vec::new() });
                next += 1;
            }
        }
        for (id, _) in ids.into_iter().zip(ready.iter().skip(2)).filter(|(_, ready)| **ready) {
            let Some(connection) = open.get_mut(&id) else { continue };
            match connection.take()? {
                Taken::Part => {}
                Taken::End => drop(open.remove(&id)),
                Taken::Whole(message) => relay(&mut open, &mut state, id, &message)?,
            }
        }
    }
    Ok(())
}

enum Taken {
    Part,
    Whole(Vec<u8>),
    End,
}

impl Open {
    /// Reads once.
    fn take(&mut self) -> Result<Taken> {
        let mut buffer = [0; MESSAGE_BYTES];
        let count = match self.stream.read(&mut buffer) {
            Ok(0) => return Ok(Taken::End),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(Taken::End),
            read => read?,
        };
        self.message.extend(buffer.iter().take(count));
        Ok(if is_whole(&self.message)? { Taken::Whole(std::mem::take(&mut self.message)) } else { Taken::Part })
    }
}

fn is_whole(message: &[u8]) -> Result<bool> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(body) = head.parse(message)? else { return Ok(false) };
    let header = |name: &str| head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    if header("transfer-encoding").is_some() {
        return Ok(message.ends_with(b"0\r\n\r\n"));
    }
    let length = header("content-length")
        .map_or(Ok(0), |length| std::str::from_utf8(length.value)?.parse::<usize>().map_err(anyhow::Error::from))?;
    Ok(message.len() >= body + length)
}

/// The body of the bench's event, which is also its answer.
fn body(message: &[u8]) -> &[u8] {
    let begin = message.iter().position(|byte| *byte == b'{').unwrap_or(message.len());
    let end = message.iter().rposition(|byte| *byte == b'}').map_or(begin, |at| at + 1);
    message.get(begin..end).unwrap_or_default()
}

fn relay(open: &mut HashMap<usize, Open>, state: &mut State, id: usize, message: &[u8]) -> Result<()> {
    let from = open.get(&id).map(|open| open.peer);
    if from == Some(Peer::Client) {
        state.number += 1;
        state.callers.insert(state.number, id);
        let headers = format!("Lambda-Runtime-Aws-Request-Id: {}\r\n{EVENT_HEADERS}", state.number);
        let event = answer("200 OK", &headers, body(message));
        match state.polls.pop().and_then(|poll| open.get_mut(&poll)) {
            Some(poll) => poll.stream.write_all(&event)?,
            None => state.events.push_back(event),
        }
    } else if message.starts_with(b"GET") {
        match (state.events.pop_front(), open.get_mut(&id)) {
            (Some(event), Some(poll)) => poll.stream.write_all(&event)?,
            _ => state.polls.push(id),
        }
    } else {
        let caller = number(message).and_then(|number| state.callers.remove(&number));
        if let Some(caller) = caller.and_then(|caller| open.get_mut(&caller)) {
            caller.stream.write_all(&answer("200 OK", "", body(message)))?;
        }
        if let Some(function) = open.get_mut(&id) {
            function.stream.write_all(&answer("202 Accepted", "", b"{\"status\":\"OK\"}"))?;
        }
    }
    Ok(())
}

/// Which call an answer is for: `POST /2018-06-01/runtime/invocation/7/response`.
fn number(message: &[u8]) -> Option<usize> {
    let line = message.split(|byte| *byte == b'\r').next()?;
    std::str::from_utf8(line).ok()?.split('/').rev().nth(2)?.parse().ok()
}

/// What every event of the Runtime API has.
const EVENT_HEADERS: &str = "Lambda-Runtime-Deadline-Ms: 4102444800000\r\n\
    Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:us-east-1:000000000000:function:relay\r\n";

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\n{headers}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}
