//! Traces reach a collector over OTLP/HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use crate::node::{ANSWER, Node, lambent, shell_function, succeed};

/// Answers one connection's requests and hands each body out.
fn collect(stream: TcpStream, bodies: &mpsc::Sender<(String, Vec<u8>)>) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
            head += &line;
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let _ = bodies.send((head, body));
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        reader.get_mut().write_all(answer).unwrap();
    }
}

#[test]
fn an_invocation_is_traced() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || collect(stream, &sender));
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let (data, code) = (dir.path().join("data"), dir.path().join("traced"));
    shell_function(&code, ANSWER);
    let node = Node::start(&data, &["--set", &format!("otlp.endpoint={endpoint}")]);
    succeed(lambent().arg("deploy").arg(&code).arg("--data-dir").arg(&data));
    succeed(lambent().args(["invoke", "traced", "{}", "--data-dir"]).arg(&data));
    // What was not sent yet is sent at the end.
    node.stop();
    let all: Vec<(String, Vec<u8>)> = received.try_iter().collect();
    assert!(!all.is_empty(), "the collector was never called");
    assert!(all.iter().all(|(head, _)| head.starts_with("POST /v1/traces ")), "{all:?}");
    let holds =
        |text: &str| all.iter().any(|(_, body)| body.windows(text.len()).any(|window| window == text.as_bytes()));
    assert!(holds("service.name") && holds("lambent") && holds("invoke") && holds("function:traced"));
}
