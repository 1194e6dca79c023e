//! Commands and their answers, good and bad.

use crate::node::{ANSWER, FAIL, Node, fail, json, lambent, shell_function, succeed};

#[test]
fn the_whole_way_of_a_function() {
    let dir = tempfile::tempdir().unwrap();
    let (data, code) = (dir.path().join("data"), dir.path().join("hello"));
    shell_function(&code, ANSWER);
    let node = Node::start(&data, &[]);
    let on_node = |arguments: &[&str]| {
        let mut command = lambent();
        command.args(arguments).arg("--data-dir").arg(&data);
        command
    };

    let said = succeed(on_node(&["deploy"]).arg(&code));
    assert!(said.starts_with("deployed arn:aws:lambda:us-east-1:000000000000:function:hello\n"), "{said}");
    assert_eq!(succeed(&mut on_node(&["invoke", "hello", "--payload", "{}"])).trim(), r#"{"ok":true}"#);
    assert_eq!(succeed(&mut on_node(&["invoke", "hello", "--stream", "{}"])).trim(), r#"{"ok":true}"#);
    let answer = json(&succeed(&mut on_node(&["invoke", "hello", "--log", "--json", "{}"])));
    assert_eq!(answer["payload"]["ok"], true);
    assert_eq!(answer["executed_version"], "$LATEST");
    assert!(answer["log"].as_str().unwrap().contains("REPORT RequestId: "), "{answer}");

    let listed = json(&succeed(&mut on_node(&["functions", "list", "--json"])));
    assert_eq!(listed[0]["FunctionName"], "hello");
    // A second deployment is an update.
    succeed(on_node(&["deploy", "--memory", "256"]).arg(&code));
    let shown = json(&succeed(&mut on_node(&["functions", "get", "hello"])));
    assert_eq!(shown["Configuration"]["MemorySize"], 256);

    // By environment instead of by data directory.
    let key = json(&succeed(&mut on_node(&["credentials", "--json"])));
    assert_eq!(key["endpoint"], node.endpoint);
    let mut invoke = lambent();
    invoke.args(["invoke", "hello", "{}", "--endpoint", &node.endpoint]);
    invoke.env("AWS_ACCESS_KEY_ID", key["access_key_id"].as_str().unwrap());
    invoke.env("AWS_SECRET_ACCESS_KEY", "wrong");
    let (code, said) = fail(&mut invoke);
    assert_eq!(code, 1);
    assert!(said.contains("InvalidSignatureException") && said.contains("lambent credentials"), "{said}");
    invoke.env("AWS_SECRET_ACCESS_KEY", key["secret_access_key"].as_str().unwrap());
    succeed(&mut invoke);

    assert_eq!(succeed(&mut on_node(&["functions", "delete", "hello"])).trim(), "deleted hello");
    let (code, said) = fail(&mut on_node(&["invoke", "hello", "{}"]));
    assert_eq!(code, 1);
    assert!(said.contains("ResourceNotFoundException (404): Function not found"), "{said}");
    node.stop();
}

#[test]
fn a_function_that_fails_has_its_own_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let (data, code) = (dir.path().join("data"), dir.path().join("broken"));
    shell_function(&code, FAIL);
    let node = Node::start(&data, &[]);
    succeed(lambent().arg("deploy").arg(&code).arg("--data-dir").arg(&data));
    let output = lambent().args(["invoke", "broken", "{}", "--data-dir"]).arg(&data).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(json(&String::from_utf8(output.stdout).unwrap())["errorMessage"], "no");
    node.stop();
}

#[test]
fn wrong_usage_and_wrong_configuration_are_told_apart_from_failure() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lambent.toml");
    std::fs::write(&file, "[api]\nlisen = '127.0.0.1:1'\n").unwrap();
    let (code, said) = fail(lambent().args(["config", "--config"]).arg(&file));
    assert_eq!(code, 2);
    assert!(said.contains(r#"unknown key "api.lisen""#) && said.contains(r#"did you mean "api.listen"?"#), "{said}");
    let (code, said) =
        fail(lambent().args(["config", "--set", "api.listen=0.0.0.0:1", "--set", "urls.listen=0.0.0.0:1"]));
    assert_eq!(code, 2);
    assert!(said.contains("give one another port"), "{said}");
    let (code, _) = fail(lambent().arg("dance"));
    assert_eq!(code, 2);
    let (code, said) = fail(lambent().args(["invoke", "x", "{}"]).env_remove("HOME"));
    assert_eq!(code, 2);
    assert!(said.contains("no access key"), "{said}");
    let (code, said) = fail(lambent().args(["functions", "--data-dir"]).arg(dir.path().join("nothing")));
    assert_eq!(code, 2);
    assert!(said.contains("lambent serve"), "{said}");
}

#[test]
fn what_is_in_force_is_printed_with_its_origin() {
    let shown =
        json(&succeed(lambent().args(["config", "--json", "--region", "here"]).env("LAMBENT_ACCOUNT", "123456789012")));
    assert_eq!(shown["region"], serde_json::json!({"value": "here", "origin": "flag"}));
    assert_eq!(shown["account"], serde_json::json!({"value": "123456789012", "origin": "$LAMBENT_ACCOUNT"}));
    assert_eq!(shown["api.listen"], serde_json::json!({"value": "127.0.0.1:9400", "origin": "default"}));
}

#[test]
fn a_key_can_be_had_before_the_node_has_run_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let key = |format: &str| succeed(lambent().args(["credentials", "--format", format, "--data-dir"]).arg(&data));
    let before = key("env");
    assert!(before.starts_with("export AWS_ACCESS_KEY_ID=AKIA"), "{before}");
    let node = Node::start(&data, &[]);
    let after = key("env");
    assert_eq!(before.lines().next(), after.lines().next());
    assert!(after.contains(&format!("export AWS_ENDPOINT_URL={}\n", node.endpoint)), "{after}");
    let profile = key("aws-config");
    assert!(profile.starts_with("[profile lambent]\naws_access_key_id = AKIA"), "{profile}");
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(data.join("node.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    node.stop();
}

#[test]
fn small_commands_answer() {
    assert_eq!(succeed(lambent().arg("version")).trim(), format!("lambent {}", env!("CARGO_PKG_VERSION")));
    assert!(succeed(lambent().args(["completions", "bash"])).contains("complete -F"));
    let dir = tempfile::tempdir().unwrap();
    let flags = ["doctor", "--json", "--listen", "127.0.0.1:0", "--sandbox", "sim", "--data-dir"];
    let findings = json(&succeed(lambent().args(flags).arg(dir.path())));
    let subjects: Vec<&str> =
        findings["findings"].as_array().unwrap().iter().filter_map(|f| f["subject"].as_str()).collect();
    assert!(subjects.ends_with(&["runtimes", "data_dir", "api.listen", "urls.listen"]), "{subjects:?}");
}
