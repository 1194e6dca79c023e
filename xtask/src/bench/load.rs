//! The load: clients that each keep one connection and send the next call when the last one is answered. They are as bare as can be,
//! because whatever they take is in the figures of both servers.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http::{HeaderValue, Method, Request};
use lambent_policy::sigv4::{self, Signer};

use super::servers::Key;

/// What every call sends.
const EVENT: &[u8] = br#"{"key1":"value1","key2":"value2"}"#;

/// A part of it that comes back whoever serialises it.
const ECHOED: &[u8] = br#""value2""#;

/// The header of an answer whose function failed.
const FAILED: &[u8] = b"\r\nx-amz-function-error:";

/// Where to call, and as whom.
#[derive(Clone)]
pub struct Target {
    /// The server.
    pub address: SocketAddr,
    /// The path of the invocation.
    pub path: String,
    /// The key to sign with; the emulator asks for none.
    pub key: Option<Key>,
    /// What is asked for.
    pub asked: Asked,
}

/// What a call asks for.
#[derive(Clone)]
pub enum Asked {
    /// The function's answer, which is the event.
    Answer,
    /// That it run later.
    Event,
    /// A page, got without more ado.
    Page {
        /// The name it is asked for by.
        host: String,
        /// What its body holds.
        expected: &'static [u8],
    },
}

impl Target {
    /// A request, signed now, as it goes over the wire.
    fn request(&self) -> Result<Vec<u8>> {
        if let Asked::Page { host, .. } = &self.asked {
            return Ok(format!("GET {} HTTP/1.1\r\nhost: {host}\r\n\r\n", self.path).into_bytes());
        }
        let uri = format!("http://{}{}", self.address, self.path);
        let (mut head, ()) = Request::builder().method(Method::POST).uri(uri).body(())?.into_parts();
        if let Asked::Event = self.asked {
            head.headers.insert("x-amz-invocation-type", HeaderValue::from_static("Event"));
        }
        match &self.key {
            Some(key) => sigv4::sign(&mut head, EVENT, signer(key)),
            None => _ = head.headers.insert(http::header::HOST, HeaderValue::from_str(&self.address.to_string())?),
        }
        let mut wire = format!("POST {} HTTP/1.1\r\n", self.path).into_bytes();
        for (name, value) in &head.headers {
            wire.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        wire.extend(format!("content-length: {}\r\n\r\n", EVENT.len()).bytes());
        wire.extend(EVENT);
        Ok(wire)
    }
}

/// What signs with this key, now.
pub fn signer(key: &Key) -> Signer<'_> {
    let (access_key_id, secret, region) = (key.id.as_str(), key.secret.as_str(), key.region.as_str());
    Signer { access_key_id, secret, session_token: None, region, service: "lambda", at: jiff::Timestamp::now() }
}

/// One call with this event, over a connection of its own: the function's answer, and the time from the request's first byte until it was
/// there.
pub fn one(address: SocketAddr, path: &str, key: &Key, event: &[u8]) -> Result<(serde_json::Value, Duration)> {
    let uri = format!("http://{address}{path}");
    let (mut head, ()) = Request::builder().method(Method::POST).uri(uri).body(())?.into_parts();
    sigv4::sign(&mut head, event, signer(key));
    let mut wire = format!("POST {path} HTTP/1.1\r\n").into_bytes();
    for (name, value) in &head.headers {
        wire.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    wire.extend(format!("connection: close\r\ncontent-length: {}\r\n\r\n", event.len()).bytes());
    wire.extend(event);
    let mut socket = TcpStream::connect(address).context("cannot connect")?;
    socket.set_nodelay(true)?;
    let begun = Instant::now();
    socket.write_all(&wire)?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    let took = begun.elapsed();
    check(&answer, 200, b"")?;
    let text = String::from_utf8_lossy(&answer);
    let (_, body) = text.split_once("\r\n\r\n").context("an answer without body")?;
    Ok((serde_json::from_str(body)?, took))
}

/// How long a signed request is sent again; the server takes it for five minutes.
const SIGNED_FOR: Duration = Duration::from_secs(60);
/// Room for the answer.
const ANSWER_BYTES: usize = 64 * 1024;

/// One client: a socket and a buffer, so that what is measured is the server.
struct Client<'a> {
    target: &'a Target,
    socket: TcpStream,
    request: Vec<u8>,
    signed_at: Instant,
    buffer: Vec<u8>,
}

impl<'a> Client<'a> {
    fn connect(target: &'a Target) -> Result<Self> {
        let socket = TcpStream::connect(target.address).context("cannot connect")?;
        socket.set_nodelay(true)?;
        let request = target.request()?;
        Ok(Self { target, socket, request, signed_at: Instant::now(), buffer: vec![0; ANSWER_BYTES] })
    }

    /// Sends one call; the time from its first byte to the last of the answer.
    fn call(&mut self) -> Result<Duration> {
        if self.signed_at.elapsed() > SIGNED_FOR {
            (self.request, self.signed_at) = (self.target.request()?, Instant::now());
        }
        let begun = Instant::now();
        let (status, expected) = match &self.target.asked {
            Asked::Answer => (200, ECHOED),
            Asked::Event => (202, b"".as_slice()),
            Asked::Page { expected, .. } => (200, *expected),
        };
        let answer = self.exchange()?;
        let took = begun.elapsed();
        check(answer, status, expected)?;
        Ok(took)
    }

    /// Sends one call; the whole answer.
    fn exchange(&mut self) -> Result<&[u8]> {
        self.socket.write_all(&self.request)?;
        let mut filled = 0;
        loop {
            let room = self.buffer.get_mut(filled..).unwrap_or_default();
            match self.socket.read(room)? {
                0 => bail!("the server closed the connection, or answered more than {ANSWER_BYTES} bytes"),
                count => filled += count,
            }
            if is_whole(self.buffer.get(..filled).unwrap_or_default())? {
                return Ok(self.buffer.get(..filled).unwrap_or_default());
            }
        }
    }
}

/// Whether an answer is there to its end. Both servers say how long it is.
fn is_whole(answer: &[u8]) -> Result<bool> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(body) = head.parse(answer)? else { return Ok(false) };
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length: usize = std::str::from_utf8(length.context("an answer without length")?.value)?.parse()?;
    Ok(answer.len() >= body + length)
}

fn check(answer: &[u8], status: u16, expected: &[u8]) -> Result<()> {
    // Both functions answer with the event; the emulator reports errors with status 200.
    let echoed = expected.is_empty() || answer.windows(expected.len()).any(|window| window == expected);
    let failed = answer.windows(FAILED.len()).any(|window| window.eq_ignore_ascii_case(FAILED));
    if !answer.starts_with(format!("HTTP/1.1 {status}").as_bytes()) || failed || !echoed {
        bail!("a call failed: {}", String::from_utf8_lossy(answer));
    }
    Ok(())
}

/// One call to a function that answers with the moment at which its first line ran, in microseconds since 1970: the time from the
/// request's first byte until then, by the same clock, in milliseconds; and until the answer was there. The connection and the signature
/// are made before.
pub fn until_user_code(target: &Target) -> Result<(f64, f64)> {
    let mut client = Client::connect(target)?;
    let sent = jiff::Timestamp::now().as_microsecond();
    let answer = client.exchange()?;
    let answered = jiff::Timestamp::now().as_microsecond();
    let text = String::from_utf8_lossy(answer);
    let began = text.split_once("\r\n\r\n").and_then(|(_, body)| body.trim().parse::<i64>().ok());
    let began = began.with_context(|| format!("a call failed: {text}"))?;
    if !(sent..=answered).contains(&began) {
        bail!("user code ran before the call: the container was not made for it");
    }
    Ok((millis(began - sent), millis(answered - sent)))
}

/// So many clients, each of which sends one call at the same moment; connections and signatures are made before. How long each took, or
/// why it failed.
pub fn burst(target: &Target, clients: usize) -> Result<Vec<Result<Duration>>> {
    let clients: Vec<Client<'_>> = (0..clients).map(|_| Client::connect(target)).collect::<Result<_>>()?;
    let together = &std::sync::Barrier::new(clients.len());
    Ok(std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                scope.spawn(move || {
                    together.wait();
                    client.call()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a client panicked"))).collect()
    }))
}

/// One client that calls without a pause until it is told to stop: when each call began, and how long it took.
pub fn stream(target: &Target, stop: &std::sync::atomic::AtomicBool) -> Result<Vec<(Instant, Duration)>> {
    let mut client = Client::connect(target)?;
    let mut seen = Vec::new();
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let begun = Instant::now();
        seen.push((begun, client.call()?));
    }
    Ok(seen)
}

/// Microseconds in milliseconds.
pub fn millis(micros: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far less than a float can count")]
    let micros = micros as f64;
    micros / 1000.0
}

/// One client, `warm_up` calls that do not count and `calls` that do; the latter's latencies, sorted.
pub fn latencies(target: &Target, warm_up: usize, calls: usize) -> Result<Vec<Duration>> {
    let mut client = Client::connect(target)?;
    for _ in 0..warm_up {
        client.call()?;
    }
    let mut measured = (0..calls).map(|_| client.call()).collect::<Result<Vec<_>>>()?;
    measured.sort();
    Ok(measured)
}

/// So many clients at once, each a thread that mostly waits: calls per second over `counted`, after `warm_up`. Any failed call fails the
/// bench.
pub fn throughput(target: &Target, clients: usize, warm_up: Duration, counted: Duration) -> Result<f64> {
    let calls = u32::try_from(crowd(target, clients, warm_up, counted)?.len())?;
    Ok(f64::from(calls) / counted.as_secs_f64())
}

/// The same; the latencies of all calls that ended within `counted`, sorted.
pub fn crowd(target: &Target, clients: usize, warm_up: Duration, counted: Duration) -> Result<Vec<Duration>> {
    let (from, to) = (Instant::now() + warm_up, Instant::now() + warm_up + counted);
    let work = || {
        let mut client = Client::connect(target)?;
        let mut measured = Vec::new();
        while Instant::now() < to {
            let took = client.call()?;
            if (from..to).contains(&Instant::now()) {
                measured.push(took);
            }
        }
        anyhow::Ok(measured)
    };
    let mut all = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(work)).collect();
        let ended = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a client panicked")));
        ended.collect::<Result<Vec<_>>>()
    })?
    .concat();
    all.sort();
    Ok(all)
}
