//! Functions that call functions.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::node::{Node, json, lambent, succeed};

/// Calls itself with one less until there is none left, and waits for each.
const CHAIN: &str = r#"#!/bin/sh
api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"
calls="http://$AWS_LAMBDA_RUNTIME_API/lambent/2026-11-24/calls"
headers=$(mktemp)
while true; do
    depth=$(curl -s --fail -D "$headers" "$api/next") || exit 1
    id=$(sed -n 's/^lambda-runtime-aws-request-id: *\([^[:space:]]*\).*/\1/Ip' "$headers")
    answer=0
    if [ "$depth" -gt 0 ]; then
        call=$(curl -s -d $((depth - 1)) "$calls?function=$AWS_LAMBDA_FUNCTION_NAME" | sed 's/.*"id":"\([^"]*\)".*/\1/')
        answer=$(($(curl -s "$calls/$call?blocked=true") + 1))
    fi
    curl -s -d "$answer" "$api/$id/response" > /dev/null
done
"#;

fn chain(settings: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let (data, code) = (dir.path().join("data"), dir.path().join("chain"));
    std::fs::create_dir_all(&code).unwrap();
    std::fs::write(code.join("bootstrap"), CHAIN).unwrap();
    std::fs::set_permissions(code.join("bootstrap"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let node = Node::start(&data, &settings);
    let on_node = |arguments: &[&str]| {
        let mut command = lambent();
        command.args(arguments).arg("--data-dir").arg(&data);
        command
    };
    succeed(on_node(&["deploy", "--timeout", "60"]).arg(&code));
    assert_eq!(succeed(&mut on_node(&["invoke", "chain", "--payload", "10"])).trim(), "10");
    node.stop();
}

#[test]
fn a_chain_deeper_than_the_concurrency_ends() {
    chain(&["fleet.concurrency=2"]);
}

#[test]
fn a_chain_deeper_than_the_node_has_room_ends() {
    chain(&["fleet.concurrency=2", "fleet.containers=2", "fleet.memory_mib=300"]);
}

/// Writes down when it began with what, and answers with that. `C` takes until `A` has begun.
const CALLEE: &str = r#"#!/bin/sh
api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"
headers=$(mktemp)
while true; do
    event=$(curl -s --fail -D "$headers" "$api/next") || exit 1
    id=$(sed -n 's/^lambda-runtime-aws-request-id: *\([^[:space:]]*\).*/\1/Ip' "$headers")
    echo "$event $(date +%s%3N)" >> LOG
    if [ "$event" = '"C"' ]; then
        until grep -q '"A"' LOG; do sleep 0.05; done
    fi
    curl -s -d "$event" "$api/$id/response" > /dev/null
done
"#;

/// Starts two calls, the first with a deadline, and waits for what its event names, in that order. Answers when it began.
const CALLER: &str = r#"#!/bin/sh
api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"
calls="http://$AWS_LAMBDA_RUNTIME_API/lambent/2026-11-24/calls"
headers=$(mktemp)
begin() {
    curl -s -H "X-Lambent-Site: main:1" "$@" | sed 's/.*"id":"\([^"]*\)".*/\1/'
}
while true; do
    event=$(curl -s --fail -D "$headers" "$api/next" | tr -d '"') || exit 1
    id=$(sed -n 's/^lambda-runtime-aws-request-id: *\([^[:space:]]*\).*/\1/Ip' "$headers")
    at=$(date +%s%3N)
    case $event in
    urgent)
        a=$(begin -H "X-Lambent-Deadline-Ms: 600000" -d '"A"' "$calls?function=callee")
        b=$(begin -d '"B"' "$calls?function=callee")
        curl -s "$calls/$b" > /dev/null
        curl -s "$calls/$a" > /dev/null ;;
    unasked)
        a=$(begin -H "X-Lambent-Deadline-Ms: 5000" -d '"A"' "$calls?function=callee")
        c=$(begin -d '"C"' "$calls?function=callee")
        curl -s "$calls/$c" > /dev/null ;;
    esac
    curl -s -d "$at" "$api/$id/response" > /dev/null
done
"#;

/// On a node where calls that can wait always do.
#[test]
fn a_call_with_time_to_spare_starts_when_it_is_waited_for_or_must() {
    let dir = tempfile::tempdir().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    for (name, script) in [("callee", CALLEE), ("caller", CALLER)] {
        let (code, script) = (dir.path().join(name), script.replace("LOG", log.to_str().unwrap()));
        std::fs::create_dir_all(&code).unwrap();
        std::fs::write(code.join("bootstrap"), script).unwrap();
        std::fs::set_permissions(code.join("bootstrap"), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let flags = ["--set", "calls.hold_back_from=0", "--set", "calls.margin=100ms"];
    let node = Node::start(&data, &flags);
    let on_node = |arguments: &[&str]| {
        let mut command = lambent();
        command.args(arguments).arg("--data-dir").arg(&data);
        command
    };
    for name in ["callee", "caller"] {
        succeed(on_node(&["deploy", "--timeout", "60"]).arg(dir.path().join(name)));
    }
    // How long it takes must be known before anything can wait for it.
    for _ in 0..8 {
        succeed(&mut on_node(&["invoke", "callee", "--payload", "0"]));
    }
    let learned = |function: &str, what: fn(&Value) -> bool| loop {
        let known = json(&succeed(&mut on_node(&["calls", function, "--json"])));
        if let Some(found) = known.as_array().unwrap().iter().find(|known| what(known)) {
            return found.clone();
        }
        std::thread::yield_now();
    };
    let duration = learned("callee", |known| known["is_used"] == true);
    let began = || -> Vec<(String, f64)> {
        let lines = std::fs::read_to_string(&log).unwrap();
        let each = lines.lines().filter_map(|line| line.split_once(' '));
        each.filter(|(event, _)| *event != "0").map(|(event, at)| (event.to_owned(), at.parse().unwrap())).collect()
    };

    // It has ten minutes and its caller one: without being waited for it would never have started.
    succeed(&mut on_node(&["invoke", "caller", "--payload", "\"urgent\""]));
    let order: Vec<String> = began().into_iter().map(|(event, _)| event).collect();
    assert_eq!(order, ["\"B\"", "\"A\""], "what was started first has waited");

    std::fs::write(&log, "").unwrap();
    let at: f64 = succeed(&mut on_node(&["invoke", "caller", "--payload", "\"unasked\""])).trim().parse().unwrap();
    let a = began().into_iter().find(|(event, _)| event == "\"A\"").unwrap().1;
    let latest = at + 5_000.0 - duration["expected_ms"].as_f64().unwrap() - 100.0;
    // What was learned meanwhile may have moved it a little.
    assert!(a >= latest - 500.0, "it began {} ms before it had to", latest - a);

    let need = learned("caller", |known| known["site"] == "main:1" && known["count"].as_u64() >= Some(4));
    assert!(need["callee"].as_str().unwrap().ends_with(":function:callee"));
    node.stop();
    // And after the end of the process.
    let node = Node::start(&data, &flags);
    assert_eq!(learned("caller", |known| known["site"] == "main:1")["count"], need["count"]);
    succeed(&mut on_node(&["functions", "delete", "caller"]));
    assert_eq!(succeed(&mut on_node(&["calls", "caller", "--json"])).trim(), "[]");
    node.stop();
}
