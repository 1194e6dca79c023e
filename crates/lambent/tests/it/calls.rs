//! Functions that call functions.

use std::os::unix::fs::PermissionsExt as _;

use crate::node::{Node, lambent, succeed};

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
