//! A node as a process, on the simulated sandbox unless told otherwise, and commands run against it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use serde_json::Value;

/// The binary under test, without the caller's settings.
pub fn lambent() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lambent"));
    for (name, _) in std::env::vars() {
        if (name.starts_with("LAMBENT_") && !name.starts_with("LAMBENT_TEST_")) || name.starts_with("AWS_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Runs a command that must succeed; its standard output.
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must fail; its exit code and standard error.
pub fn fail(command: &mut Command) -> (i32, String) {
    let Output { status, stderr, .. } = command.output().unwrap();
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

/// A running `lambent serve`.
pub struct Node {
    child: Child,
    /// Its base URL.
    pub endpoint: String,
}

impl Node {
    /// Starts a node on `data` and waits until it answers.
    pub fn start(data: &Path, flags: &[&str]) -> Self {
        let mut command = lambent();
        command.args(["serve", "--sandbox", "sim", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data).args(flags);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert!(matches!(words.as_slice(), ["ready", _, "in", _, "ms"]), "{line:?}");
        let endpoint = words[1].to_owned();
        Self { child, endpoint }
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Asks it to end, and waits.
    pub fn stop(self) {
        self.signal("TERM");
        assert!(self.wait().success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A function of one shell script: a whole custom runtime, which needs `curl`.
pub fn shell_function(dir: &Path, answer: &str) {
    use std::os::unix::fs::PermissionsExt;
    let script = format!(
        "#!/bin/sh
api=\"http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation\"
headers=$(mktemp)
while true; do
    curl -s --fail -D \"$headers\" \"$api/next\" > /dev/null || exit 1
    id=$(sed -n 's/^lambda-runtime-aws-request-id: *\\([^[:space:]]*\\).*/\\1/Ip' \"$headers\")
    {answer}
done
"
    );
    std::fs::create_dir_all(dir).unwrap();
    let bootstrap = dir.join("bootstrap");
    std::fs::write(&bootstrap, script).unwrap();
    std::fs::set_permissions(&bootstrap, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Answers every event with this JSON.
pub const ANSWER: &str = r#"echo answering; curl -s -d '{"ok":true}' "$api/$id/response" > /dev/null"#;
/// Fails every event.
pub const FAIL: &str = r#"curl -s -d '{"errorMessage":"no","errorType":"No"}' "$api/$id/error" > /dev/null"#;

/// What a `--json` command printed.
pub fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}
