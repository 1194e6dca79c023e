//! The smallest function that speaks the Runtime API: one static file, no crate. It answers every event with the moment at which its
//! first line ran, in microseconds since 1970; started without a Runtime API it prints that and ends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

const NEXT: &str = "/2018-06-01/runtime/invocation/next";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let began = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros().to_string();
    let Ok(api) = std::env::var("AWS_LAMBDA_RUNTIME_API") else {
        println!("{began}");
        return Ok(());
    };
    let mut events = BufReader::new(TcpStream::connect(&api)?);
    loop {
        let request = format!("GET {NEXT} HTTP/1.1\r\nHost: {api}\r\n\r\n");
        events.get_mut().write_all(request.as_bytes())?;
        let id = exchange(&mut events)?;
        let (path, length) = (format!("/2018-06-01/runtime/invocation/{id}/response"), began.len());
        let request = format!("POST {path} HTTP/1.1\r\nHost: {api}\r\nContent-Length: {length}\r\n\r\n{began}");
        events.get_mut().write_all(request.as_bytes())?;
        exchange(&mut events)?;
    }
}

/// Reads one answer to its end; the request id it carries.
fn exchange(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let (mut id, mut length, mut chunked) = (String::new(), 0, false);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            if line.trim_end().is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap_or(0),
            "transfer-encoding" => chunked = value == "chunked",
            "lambda-runtime-aws-request-id" => id = value.to_owned(),
            _ => {}
        }
    }
    while chunked {
        let mut size = String::new();
        stream.read_line(&mut size)?;
        let size = u64::from_str_radix(size.trim(), 16).unwrap_or(0);
        std::io::copy(&mut stream.take(size + 2), &mut std::io::sink())?;
        chunked = size > 0;
    }
    std::io::copy(&mut stream.take(length), &mut std::io::sink())?;
    Ok(id)
}
