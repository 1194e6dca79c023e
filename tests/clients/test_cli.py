"""The AWS command line against a node."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from conftest import EXAMPLES_TARGET, ROLE, TARGET, binary, plain, zip_of

CODE = "def handler(event, context):\n    print('seen')\n    return {'hello': event['name']}\n"


@pytest.fixture
def aws(node, tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "awscli", *arguments]
        done = subprocess.run(
            command, env=node.environment(), cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    return run


def test_the_road_of_the_readme(node, aws, tmp_path):
    name = node.name("cli")
    (tmp_path / "code.zip").write_bytes(zip_of({"app.py": CODE}))
    created = aws(
        *("lambda", "create-function", "--function-name", name, "--runtime", node.python, "--role", ROLE),
        *("--handler", "app.handler", "--zip-file", "fileb://code.zip"),
    )
    assert created["FunctionName"] == name
    aws("lambda", "wait", "function-active-v2", "--function-name", name)
    payload = ("--payload", '{"name": "Ada"}')
    answered = aws("lambda", "invoke", "--function-name", name, *payload, "--log-type", "Tail", "out.json")
    assert answered["StatusCode"] == 200 and answered["LogResult"]
    assert json.loads((tmp_path / "out.json").read_text()) == {"hello": "Ada"}
    listed = aws("lambda", "list-functions", "--query", f"Functions[?FunctionName=='{name}']")
    assert [function["FunctionName"] for function in listed] == [name]
    aws("lambda", "update-function-configuration", "--function-name", name, "--timeout", "5")
    aws("lambda", "wait", "function-updated-v2", "--function-name", name)
    assert aws("lambda", "publish-version", "--function-name", name)["Version"] == "1"
    aws("lambda", "create-alias", "--function-name", name, "--name", "live", "--function-version", "1")
    aws("lambda", "delete-function", "--function-name", name)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A demo that serves, and the commands with which it says how to go on."""
    directory = tmp_path_factory.mktemp("demo")
    addresses = ["--listen", "127.0.0.1:0", "--listen-urls", "127.0.0.1:0"]
    command = [binary(), "demo", "--calls", "2", "--data-dir", str(directory / "data"), *addresses]
    environment = {**plain(), "CARGO_TARGET_DIR": str(EXAMPLES_TARGET)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
        watchdog = threading.Timer(300, running.kill)
        watchdog.start()
        commands = []
        for line in running.stdout:
            if line.startswith("  ") and commands is not None:
                commands.append(line.strip())
            elif line.startswith("The node answers"):
                commands.clear()
            elif line.startswith("Without one"):
                break
        watchdog.cancel()
        yield commands
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0


@pytest.mark.parametrize("cli", ["venv/bin", "aws2/bin"])
def test_the_demo_says_how_to_go_on(demo, cli, tmp_path):
    if not (TARGET / cli / "aws").exists():
        pytest.skip(f"target/{cli}/aws is not there: tests/clients/setup brings it or says why not")
    path = f"{TARGET / cli}:{os.environ['PATH']}"
    environment = {**plain(), "PATH": path, "AWS_PAGER": "", "AWS_EC2_METADATA_DISABLED": "true"}
    assert len(demo) >= 4
    script = "set -euo pipefail\n" + "\n".join(demo)
    done = subprocess.run(
        ["bash", "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert '"Functions"' in done.stdout and "REPORT RequestId: " in done.stdout
