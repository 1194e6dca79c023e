//! Where the outcomes go.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use serde_json::Value;

/// A server that notes what is delivered to it.
pub struct Receiver {
    /// Where it is.
    pub address: SocketAddr,
    delivered: Arc<Mutex<HashMap<u64, u64>>>,
}

impl Receiver {
    /// Starts it.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let (address, delivered) = (listener.local_addr()?, Arc::<Mutex<HashMap<u64, u64>>>::default());
        let noted = delivered.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let noted = noted.clone();
                std::thread::spawn(move || receive(&stream, &noted));
            }
        });
        Ok(Self { address, delivered })
    }

    /// How often each event's outcome came.
    pub fn delivered(&self) -> MutexGuard<'_, HashMap<u64, u64>> {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes one connection's records until it is closed.
fn receive(stream: &TcpStream, noted: &Mutex<HashMap<u64, u64>>) -> Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let record: Value = serde_json::from_slice(&body)?;
        let n = record.pointer("/responsePayload").and_then(Value::as_u64).context("a record without its number")?;
        *noted.lock().unwrap_or_else(PoisonError::into_inner).entry(n).or_default() += 1;
        (&mut &*stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    }
}
