//! Does what `{"do": …}` asks for, most of which a function should not be able to do.

use std::io::Write as _;

use serde_json::{Value, json};

wit_bindgen::generate!({ path: "../../../crates/sandbox/wit", world: "function" });

use exports::lambent::function::handler::{Context, Error, Guest};

struct Probe;

export!(Probe);

/// What an instance keeps between calls, where it is used again.
static CALLS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

impl Guest for Probe {
    fn handle(event: Vec<u8>, context: Context) -> Result<Vec<u8>, Error> {
        let began = std::time::SystemTime::now();
        let event: Value = serde_json::from_slice(&event).unwrap_or(Value::Null);
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| event[name].as_u64().unwrap_or_default();
        let calls = CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        let answer = match event["do"].as_str().unwrap_or_default() {
            // When its first line ran, in microseconds since 1970.
            "" => json!(began.duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64),
            "echo" => event.clone(),
            "smear" => {
                smear(&text("secret"), number("mib"));
                json!("smeared")
            }
            "seek" => json!(seek(&text("secret"), number("mib"))),
            "context" => json!({
                "requestId": context.request_id, "arn": context.invoked_function_arn, "name": context.function_name,
                "version": context.function_version, "memory": context.memory_limit_mib, "deadline": context.deadline_ms,
                "trace": context.trace_id, "client": context.client_context,
            }),
            "count" => json!(calls),
            "env" => json!(std::env::vars().collect::<std::collections::BTreeMap<_, _>>()),
            "fail" => return Err(Error { error_type: "Probe.Failed".to_owned(), message: text("message") }),
            "loop" => loop {
                std::hint::black_box(0);
            },
            "recurse" => json!(recurse(1)),
            "trap" => std::process::abort(),
            "panic" => panic!("{}", text("message")),
            "exit" => std::process::exit(i32::try_from(number("code")).unwrap_or(1)),
            "sleep" => {
                std::thread::sleep(std::time::Duration::from_millis(number("ms")));
                json!("slept")
            }
            "grow" => {
                let mut held = Vec::new();
                for _ in 0..number("mib") {
                    held.push(vec![1_u8; 1 << 20]);
                }
                json!(held.len())
            }
            "print" => {
                for line in 0..number("lines") {
                    println!("{line} {}", text("text"));
                }
                eprintln!("to standard error");
                std::io::stdout().flush().unwrap();
                json!("printed")
            }
            "large" => return Ok(vec![b'x'; usize::try_from(number("bytes")).unwrap()]),
            "read" => said(std::fs::read_to_string(text("path"))),
            "write" => said(std::fs::write(text("path"), "x").map(|()| String::new())),
            "list" => said(std::fs::read_dir(text("path")).map(|all| format!("{} entries", all.count()))),
            "connect" => said(std::net::TcpStream::connect(text("address")).map(|_| "connected".to_owned())),
            "bind" => said(std::net::TcpListener::bind(text("address")).map(|_| "bound".to_owned())),
            "resolve" => {
                use std::net::ToSocketAddrs as _;
                said((text("name").as_str(), 80).to_socket_addrs().map(|all| format!("{} addresses", all.count())))
            }
            "get" => get(&text("authority"), &text("path")),
            "random" => json!(wasi::random::random::get_random_u64()),
            other => return Err(Error { error_type: "Probe.Unknown".to_owned(), message: other.to_owned() }),
        };
        Ok(answer.to_string().into_bytes())
    }
}

fn said(result: std::io::Result<String>) -> Value {
    match result {
        Ok(text) => json!({ "ok": text }),
        Err(error) => json!({ "error": error.to_string() }),
    }
}

/// Fills so much memory with the secret, backwards: forwards it is in the event.
fn smear(secret: &str, mib: u64) {
    let backwards: Vec<u8> = secret.bytes().rev().collect();
    for _ in 0..mib {
        std::mem::forget(std::hint::black_box(backwards.repeat((1 << 20) / backwards.len())));
    }
}

/// How often the secret is found, backwards, in all memory there is, and in so much more.
fn seek(secret: &str, mib: u64) -> usize {
    core::arch::wasm32::memory_grow(0, usize::try_from(mib).unwrap() * 16);
    let end = core::arch::wasm32::memory_size(0) * 65_536;
    // SAFETY: all of a linear memory can be read; nothing else writes while this runs.
    let all = unsafe { std::slice::from_raw_parts(std::hint::black_box(1) as *const u8, end - 1) };
    all.windows(secret.len()).filter(|window| window.iter().rev().eq(secret.as_bytes())).count()
}

#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let held = std::hint::black_box([depth; 64]);
    recurse(depth + 1) + held[0]
}

/// A request on the way out.
fn get(authority: &str, path: &str) -> Value {
    use wasi::http::outgoing_handler::handle;
    use wasi::http::types::{Fields, OutgoingRequest, Scheme};
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Http)).unwrap();
    request.set_authority(Some(authority)).unwrap();
    request.set_path_with_query(Some(path)).unwrap();
    let pending = match handle(request, None) {
        Ok(pending) => pending,
        Err(error) => return json!({ "error": format!("{error:?}") }),
    };
    pending.subscribe().block();
    match pending.get() {
        Some(Ok(Ok(response))) => {
            let body = response.consume().unwrap();
            let stream = body.stream().unwrap();
            let mut bytes = Vec::new();
            while let Ok(piece) = stream.blocking_read(65_536) {
                bytes.extend(piece);
            }
            json!({ "status": response.status(), "body": String::from_utf8_lossy(&bytes) })
        }
        other => json!({ "error": format!("{other:?}") }),
    }
}
