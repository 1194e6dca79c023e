"""The AWS command line against a node."""

import json
import subprocess
import sys

import pytest
from conftest import ROLE, zip_of

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
