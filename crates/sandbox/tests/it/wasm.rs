//! WebAssembly functions in real cells: what a guest can, what it cannot, and what becomes of those that go wrong.
//!
//! The guest is `tests/functions/wasm`, which does what its event says (`cargo xtask functions` builds it).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lambent_sandbox::wasm::{
    self, Answer, CompileError, Compiled, Done, Event, Flavour, Function, Host, Outcome, Request,
};
use lambent_sandbox::{Error, ExitStatus};
use serde_json::{Value, json};

use super::support::{Bench, PATIENCE, agent_program, cell};

/// The guest.
const PROBE: &[u8] = include_bytes!("../../../../tests/functions/wasm/probe.wasm");

/// A host process with the guest compiled for it.
struct World {
    host: Arc<Host>,
    bench: Bench,
    code: PathBuf,
    compiled: Compiled,
}

async fn compile(bench: &Bench, module: &[u8], flavour: Flavour) -> Result<(PathBuf, Compiled), CompileError> {
    let (source, target) = (bench.directory.path().join("module.wasm"), bench.directory.path().join("code"));
    std::fs::write(&source, module).unwrap();
    let _ = std::fs::remove_file(&target);
    let compiled = wasm::compile(bench.sandbox.as_ref(), &agent_program(), &source, flavour, &target).await?;
    Ok((target, compiled))
}

impl World {
    async fn new(flavour: Flavour) -> Option<Self> {
        Self::of(flavour, 1_024).await
    }

    async fn of(flavour: Flavour, memory_mib: u32) -> Option<Self> {
        let bench = cell()?;
        let (code, compiled) = compile(&bench, PROBE, flavour).await.unwrap();
        let parent = bench.directory.path().join("hosts");
        let host = Host::start(bench.sandbox.as_ref(), &agent_program(), &parent, memory_mib).await.unwrap();
        Some(Self { host, bench, code, compiled })
    }

    async fn load(&self, change: impl FnOnce(&mut Function)) -> u32 {
        let mut function = Function {
            code: self.code.clone(),
            sha256: self.compiled.sha256.clone(),
            name: "probe".to_owned(),
            version: "$LATEST".to_owned(),
            memory_mib: 128,
            env: vec![("GIVEN".to_owned(), "1".to_owned())],
            ..Function::default()
        };
        change(&mut function);
        self.host.load(function).await.unwrap()
    }

    fn start(&self, slot: u32, event: &Value) -> Answer {
        let event = Bytes::from(event.to_string());
        let timeout = Duration::from_secs(20);
        self.host.call(Request { slot, timeout, event, request_id: "r-1".to_owned(), ..Request::default() }).unwrap()
    }

    async fn call(&self, slot: u32, event: Value) -> (Done, String) {
        ended(self.start(slot, &event)).await.unwrap()
    }

    /// What the guest answered.
    async fn said(&self, slot: u32, event: Value) -> Value {
        let (done, _) = self.call(slot, event.clone()).await;
        assert_eq!(done.outcome, Outcome::Success, "{event}: {done:?}");
        serde_json::from_slice(&done.answer).unwrap()
    }
}

/// How a call ended, and all it wrote; none where its host process was lost.
async fn ended(mut answer: Answer) -> Option<(Done, String)> {
    let mut log = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, answer.next()).await.expect("an answer in time")? {
            Event::Log(bytes) | Event::Piece(bytes) => log.extend_from_slice(&bytes),
            Event::Done(done) => {
                log.extend_from_slice(&done.log);
                return Some((*done, String::from_utf8(log).unwrap()));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_gets_its_call_and_nothing_else() {
    let Some(world) = World::new(Flavour::Plain).await else { return };
    let slot = world.load(|_| {}).await;
    assert_eq!(world.said(slot, json!({"do": "echo", "x": [1]})).await, json!({"do": "echo", "x": [1]}));
    let context = world.said(slot, json!({"do": "context"})).await;
    assert_eq!(
        (&context["requestId"], &context["name"], &context["memory"]),
        (&json!("r-1"), &json!("probe"), &json!(128))
    );
    assert_eq!(
        world.said(slot, json!({"do": "env"})).await,
        json!({"GIVEN": "1"}),
        "the node's environment stays outside"
    );
    let first = world.said(slot, json!({"do": "random"})).await;
    assert_ne!(first, world.said(slot, json!({"do": "random"})).await);
    // An instance of its own for each call.
    for _ in 0..3 {
        assert_eq!(world.said(slot, json!({"do": "count"})).await, 1);
    }
    let (failed, _) = world.call(slot, json!({"do": "fail", "message": "why"})).await;
    assert_eq!(
        (failed.outcome, failed.error_type.as_str(), failed.message.as_str()),
        (Outcome::Error, "Probe.Failed", "why")
    );
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_gets_at_no_file_no_socket_no_name() {
    let Some(world) = World::new(Flavour::Plain).await else { return };
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let closed = world.load(|_| {}).await;
    let all = world.load(|function| function.allow = vec!["*".to_owned()]).await;
    for event in [
        json!({"do": "read", "path": "/etc/passwd"}),
        json!({"do": "read", "path": "/var/wasm/1.code"}),
        json!({"do": "read", "path": "/proc/self/environ"}),
        json!({"do": "read", "path": "../../etc/passwd"}),
        json!({"do": "write", "path": "/tmp/x"}),
        json!({"do": "list", "path": "/"}),
        json!({"do": "connect", "address": address.to_string()}),
        json!({"do": "connect", "address": "169.254.169.254:80"}),
        json!({"do": "connect", "address": "1.1.1.1:53"}),
        json!({"do": "bind", "address": "127.0.0.1:0"}),
        json!({"do": "resolve", "name": "localhost"}),
        json!({"do": "get", "authority": address.to_string(), "path": "/"}),
    ] {
        for slot in [closed, all] {
            let said = world.said(slot, event.clone()).await;
            assert!(said["error"].is_string(), "{event}: {said}");
        }
    }
    let denied = world.said(closed, json!({"do": "get", "authority": "example.com", "path": "/"})).await;
    assert!(denied["error"].as_str().unwrap().contains("HttpRequestDenied"), "{denied}");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nobody came");
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_call_is_found_by_the_next() {
    let Some(world) = World::new(Flavour::Plain).await else { return };
    let secret = "xq-7319-not-to-be-seen";
    let own =
        |function: &mut Function| (function.memory_mib, function.env) = (256, vec![("OWN".into(), secret.into())]);
    let writer = world.load(own).await;
    let other = world.load(|function| function.memory_mib = 256).await;
    let reusing = world.load(|function| (function.memory_mib, function.reuse) = (256, Some(100))).await;
    for mib in [1, 64] {
        // More than once, so that memory of the pool is surely used again; some calls of all kinds at once.
        for _ in 0..3 {
            let smears: Vec<Answer> =
                (0..4).map(|_| world.start(writer, &json!({"do": "smear", "secret": secret, "mib": mib}))).collect();
            for answer in smears {
                assert_eq!(ended(answer).await.unwrap().0.outcome, Outcome::Success);
            }
            // Cut off where it stands, full of it.
            let timeout = Duration::from_millis(300);
            let event = Bytes::from(json!({"do": "smear", "secret": secret, "mib": 250}).to_string());
            let cut = world.host.call(Request { slot: writer, timeout, event, ..Request::default() }).unwrap();
            assert_ne!(ended(cut).await.unwrap().0.outcome, Outcome::NotRun);
            for slot in [writer, other, reusing] {
                let event = json!({"do": "seek", "secret": secret, "mib": 64});
                assert_eq!(world.said(slot, event).await, 0, "memory of slot {slot}");
            }
        }
    }
    assert_eq!(
        world.said(other, json!({"do": "env"})).await,
        json!({"GIVEN": "1"}),
        "the other's variables stay its own"
    );
    // Where reuse is asked for, a function finds what it left itself: so the search does find things.
    assert_eq!(world.said(reusing, json!({"do": "smear", "secret": secret, "mib": 1})).await, "smeared");
    assert!(world.said(reusing, json!({"do": "seek", "secret": secret, "mib": 1})).await.as_u64().unwrap() > 0);
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quick_function_that_turns_slow_holds_up_nobody() {
    let Some(world) = World::new(Flavour::Plain).await else { return };
    let (turning, other) = (world.load(|_| {}).await, world.load(|_| {}).await);
    let timeout = Duration::from_millis(500);
    for _ in 0..3 {
        for slot in [turning, other] {
            assert_eq!(world.said(slot, json!({"do": "count"})).await, 1);
        }
        let event = Bytes::from(json!({"do": "loop"}).to_string());
        let call = || world.host.call(Request { slot: turning, timeout, event: event.clone(), ..Request::default() });
        let looping: Vec<Answer> = (0..4).map(|_| call().unwrap()).collect();
        for slot in [turning, other] {
            assert_eq!(world.said(slot, json!({"do": "count"})).await, 1);
        }
        for answer in looping {
            assert_eq!(ended(answer).await.unwrap().0.outcome, Outcome::TimedOut);
        }
    }
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_go_wrong_fail_alone() {
    let Some(world) = World::new(Flavour::Plain).await else { return };
    let slot = world.load(|_| {}).await;
    let cases = [
        (json!({"do": "trap"}), Outcome::Trapped, "Runtime.Trap", "unreachable"),
        (json!({"do": "panic", "message": "oh"}), Outcome::Trapped, "Runtime.Trap", "unreachable"),
        (json!({"do": "recurse"}), Outcome::Trapped, "Runtime.Trap", ""),
        (json!({"do": "exit", "code": 3}), Outcome::Trapped, "Runtime.ExitError", "exit status"),
        (json!({"do": "exit", "code": 0}), Outcome::Trapped, "Runtime.ExitError", "without providing a reason"),
        (json!({"do": "grow", "mib": 256}), Outcome::OutOfMemory, "Runtime.OutOfMemory", ""),
        (json!({"do": "large", "bytes": 7_000_000}), Outcome::TooLarge, "", ""),
    ];
    for (event, outcome, error_type, message) in cases {
        let (done, _) = world.call(slot, event.clone()).await;
        assert_eq!((done.outcome, done.error_type.as_str()), (outcome, error_type), "{event}: {}", done.message);
        assert!(done.message.contains(message), "{event}: {}", done.message);
        assert_eq!(world.said(slot, json!({"do": "count"})).await, 1, "the next call is none the worse");
    }
    let (_, log) = world.call(slot, json!({"do": "panic", "message": "oh"})).await;
    assert!(log.contains("oh"), "{log}");
    let (grown, _) = world.call(slot, json!({"do": "grow", "mib": 64})).await;
    assert_eq!(grown.outcome, Outcome::Success);
    assert!((64 << 20..128 << 20).contains(&grown.memory_bytes), "{}", grown.memory_bytes);
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_loops_end_with_their_time_and_hold_up_nobody() {
    let Some(world) = World::new(Flavour::Plain).await else { return };
    let slot = world.load(|_| {}).await;
    let timeout = Duration::from_millis(500);
    let event = Bytes::from(json!({"do": "loop"}).to_string());
    // More of them than there are processors.
    let looping: Vec<Answer> = (0..8)
        .map(|_| world.host.call(Request { slot, timeout, event: event.clone(), ..Request::default() }).unwrap())
        .collect();
    assert_eq!(world.said(slot, json!({"do": "count"})).await, 1);
    for answer in looping {
        assert_eq!(ended(answer).await.unwrap().0.outcome, Outcome::TimedOut);
    }
    let sleep = Bytes::from(json!({"do": "sleep", "ms": 60_000}).to_string());
    let sleeping = world.host.call(Request { slot, timeout, event: sleep, ..Request::default() }).unwrap();
    assert_eq!(ended(sleeping).await.unwrap().0.outcome, Outcome::TimedOut);
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_comes_whole_however_much_it_is() {
    let Some(world) = World::new(Flavour::Plain).await else { return };
    let slot = world.load(|_| {}).await;
    let (_, log) = world.call(slot, json!({"do": "print", "lines": 3, "text": "a"})).await;
    assert_eq!(log, "0 a\n1 a\n2 a\nto standard error\n");
    let (done, log) = world.call(slot, json!({"do": "print", "lines": 20_000, "text": "x".repeat(100)})).await;
    assert_eq!(done.outcome, Outcome::Success);
    assert_eq!(log.lines().count(), 20_001);
    // A flood that nobody reads makes the guest wait, and time ends it.
    let event = Bytes::from(json!({"do": "print", "lines": 1_000_000, "text": "x".repeat(100)}).to_string());
    let timeout = Duration::from_millis(500);
    let mut unread = world.host.call(Request { slot, timeout, event, ..Request::default() }).unwrap();
    assert_eq!(world.said(slot, json!({"do": "count"})).await, 1);
    while let Some(event) = tokio::time::timeout(PATIENCE, unread.next()).await.unwrap() {
        if let Event::Done(done) = event {
            assert_ne!(done.outcome, Outcome::NotRun);
            break;
        }
    }
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_used_again_where_that_is_asked_for() {
    let Some(world) = World::new(Flavour::Plain).await else { return };
    let slot = world.load(|function| function.reuse = Some(3)).await;
    for expected in [1, 2, 3, 1, 2] {
        assert_eq!(world.said(slot, json!({"do": "count"})).await, expected);
    }
    // One that trapped is never seen again.
    world.call(slot, json!({"do": "trap"})).await;
    assert_eq!(world.said(slot, json!({"do": "count"})).await, 1);
    world.host.unload(slot);
    let (done, _) = world.call(slot, json!({"do": "count"})).await;
    assert_eq!(done.outcome, Outcome::NotRun);
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fuel_runs_out() {
    let Some(world) = World::new(Flavour::Fuel).await else { return };
    let slot = world.load(|function| (function.flavour, function.fuel) = (Flavour::Fuel, Some(50_000_000))).await;
    assert_eq!(world.said(slot, json!({"do": "count"})).await, 1);
    let (done, _) = world.call(slot, json!({"do": "loop"})).await;
    assert_eq!((done.outcome, done.error_type.as_str()), (Outcome::OutOfFuel, "Runtime.OutOfFuel"));
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_fail_with_their_host_process_and_nothing_is_left() {
    let Some(world) = World::new(Flavour::Plain).await else { return };
    let slot = world.load(|_| {}).await;
    assert_eq!(world.said(slot, json!({"do": "count"})).await, 1);
    let sleeping = world.start(slot, &json!({"do": "sleep", "ms": 60_000}));
    world.host.kill().await;
    assert!(ended(sleeping).await.is_none());
    assert_eq!(world.host.ended().await, ExitStatus::Signal(9));
    assert!(world.host.is_ended());
    let refused = world.host.call(Request { slot, ..Request::default() });
    assert!(refused.is_err(), "it takes no more calls");
    let parent = world.bench.directory.path().join("hosts");
    world.host.stop().await;
    drop(world.host);
    assert_eq!(entries(&parent), 0);
}

fn entries(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_is_not_what_was_compiled_is_not_run() {
    let Some(world) = World::new(Flavour::Plain).await else { return };
    let mut code = std::fs::read(&world.code).unwrap();
    let middle = code.len() / 2;
    code[middle] ^= 1;
    std::fs::write(&world.code, code).unwrap();
    let slot = world.load(|_| {}).await;
    let (done, _) = world.call(slot, json!({"do": "count"})).await;
    assert_eq!(done.outcome, Outcome::NotRun);
    assert!(done.message.contains("not what was compiled"), "{}", done.message);
    world.host.stop().await;
}

/// A section of a component or module.
fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id][..], &leb(content.len()), content].concat()
}

fn leb(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if value == 0 {
            // Also right as a signed number: the sixth bit of the last byte is clear.
            if low & 0x40 != 0 {
                bytes.extend([low | 0x80, 0]);
            } else {
                bytes.push(low);
            }
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

const HEADER: &[u8] = b"\0asm\x0d\0\x01\0";

/// Each type is a pair of the one before: two to the power of `depth` in all.
fn laughs(depth: usize) -> Vec<u8> {
    let mut types = leb(depth);
    types.extend([0x6f, 2, 0x7d, 0x7d]);
    for index in 0..depth - 1 {
        types.extend([&[0x6f, 2][..], &leb(index), &leb(index)].concat());
    }
    [HEADER, &section(7, &types)].concat()
}

/// Components in components.
fn nested(depth: usize) -> Vec<u8> {
    (0..depth).fold(HEADER.to_vec(), |inner, _| [HEADER, &section(4, &inner)].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_modules_are_refused_with_a_reason_and_hurt_nobody() {
    let Some(bench) = cell() else { return };
    let cut = PROBE.get(..PROBE.len() / 2).unwrap();
    let modules: [(&str, &[u8]); 7] = [
        ("nothing", b""),
        ("text", b"#!/bin/sh"),
        ("a core module", b"\0asm\x01\0\0\0"),
        ("cut off", cut),
        ("empty", HEADER),
        ("types that double", &laughs(80)),
        ("deep", &nested(2_000)),
    ];
    for (name, module) in modules {
        match compile(&bench, module, Flavour::Plain).await {
            Err(CompileError::Refused { reason }) => assert!(!reason.is_empty(), "{name}"),
            other => panic!("{name}: {other:?}"),
        }
        assert!(!bench.directory.path().join("code").exists(), "{name}: nothing is left");
    }
    assert!(compile(&bench, PROBE, Flavour::Plain).await.is_ok());
}

#[tokio::test]
async fn a_host_that_was_killed_unseen_takes_no_function() {
    let Some(world) = World::of(Flavour::default(), 1_023).await else { return };
    // Told by its memory, which no other test's has.
    let pids = crate::support::commands(&["/var/wasm", "1023"]);
    assert!(!pids.is_empty());
    world.host.kill().await;
    // Without a turn for the task that would see its socket close.
    let begun = std::time::Instant::now();
    while pids.iter().any(|&pid| crate::support::alive(pid)) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{pids:?} are alive");
        std::thread::yield_now();
    }
    let function = Function { code: world.code.clone(), sha256: world.compiled.sha256.clone(), ..Function::default() };
    let loaded = world.host.load(function).await;
    assert!(matches!(loaded, Err(Error::Ended)), "{loaded:?}");
    assert!(world.host.is_ended());
}
