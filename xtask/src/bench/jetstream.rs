//! NATS JetStream, driven over its own protocol: clients that each publish an event and wait until it is on disk.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::servers::{Process, free_address};
use crate::run;

const WITHIN: Duration = Duration::from_secs(10);
const EVENT: [u8; 256] = [b'x'; 256];

/// Events a second with `sync_interval: always`.
pub fn rate(server: &Path, clients: usize, warm_up: Duration, counted: Duration) -> Result<f64> {
    let (dir, address) = (tempfile::tempdir_in(run::target())?, free_address()?);
    let store = dir.path().join("store");
    let configuration = format!(
        "listen: {address}\njetstream {{\n  store_dir: {}\n  sync_interval: always\n}}\n",
        json!(store.to_string_lossy())
    );
    let file = dir.path().join("nats.conf");
    std::fs::write(&file, configuration)?;
    let mut command = Command::new(server);
    command.arg("--config").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Process(command.spawn().context("cannot start nats-server")?);
    let mut first = Client::connect(address)?;
    let stream = json!({ "name": "events", "subjects": ["events"], "storage": "file" }).to_string();
    let answer = first.ask("$JS.API.STREAM.CREATE.events", stream.as_bytes())?;
    if !answer.contains("\"config\"") {
        bail!("JetStream said {answer}");
    }
    let (counts, stops, count) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    let publish = || -> Result<()> {
        let mut client = Client::connect(address)?;
        while !stops.load(Ordering::Relaxed) {
            let answer = client.ask("events", &EVENT)?;
            if !answer.contains("\"seq\"") {
                bail!("JetStream said {answer}");
            }
            count.fetch_add(u64::from(counts.load(Ordering::Relaxed)), Ordering::Relaxed);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(publish)).collect();
        let wait = |time| std::thread::park_timeout(time);
        wait(warm_up);
        counts.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        wait(counted);
        counts.store(false, Ordering::Relaxed);
        let took = begun.elapsed();
        stops.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().ok().context("a client panicked")??;
        }
        Ok(count.load(Ordering::Relaxed) as f64 / took.as_secs_f64())
    })
}

/// A connection with an inbox.
struct Client {
    reader: BufReader<TcpStream>,
    /// Where answers come.
    inbox: String,
}

impl Client {
    fn connect(address: SocketAddr) -> Result<Self> {
        let begun = Instant::now();
        let socket = loop {
            match TcpStream::connect(address) {
                Ok(socket) => break socket,
                Err(error) if begun.elapsed() > WITHIN => return Err(error).context("nats-server does not answer"),
                Err(_) => std::thread::yield_now(),
            }
        };
        socket.set_nodelay(true)?;
        let inbox = format!("inbox.{}", socket.local_addr()?.port());
        let mut client = Self { reader: BufReader::new(socket), inbox };
        let hello = format!("CONNECT {{\"verbose\":false}}\r\nSUB {} 1\r\n", client.inbox);
        client.reader.get_mut().write_all(hello.as_bytes())?;
        Ok(client)
    }

    /// Publishes, and the answer that comes to the inbox.
    fn ask(&mut self, subject: &str, content: &[u8]) -> Result<String> {
        let mut wire = format!("PUB {subject} {} {}\r\n", self.inbox, content.len()).into_bytes();
        wire.extend_from_slice(content);
        wire.extend_from_slice(b"\r\n");
        self.reader.get_mut().write_all(&wire)?;
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                bail!("nats-server closed the connection");
            }
            if line.starts_with("PING") {
                self.reader.get_mut().write_all(b"PONG\r\n")?;
            } else if line.starts_with("MSG ") {
                let mut answer = String::new();
                self.reader.read_line(&mut answer)?;
                return Ok(answer);
            } else if line.starts_with("-ERR") {
                bail!("nats-server said {line}");
            }
        }
    }
}
