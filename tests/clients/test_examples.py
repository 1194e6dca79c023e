"""The examples, deployed and called as their READMEs say."""

import json
import shutil
import subprocess

import pytest
from conftest import EXAMPLES_TARGET, ROOT, binary

EXAMPLES = ROOT / "examples"


def lambent(node, *arguments):
    done = subprocess.run([binary(), *arguments], env=node.environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def greet(node, example, *options, folder=None):
    name = node.name(example)
    node._created.append(name)
    lambent(node, "deploy", str(folder or EXAMPLES / example), "--name", name, "--endpoint", node.endpoint, *options)
    answer = json.loads(lambent(node, "invoke", name, '{"name": "Ada"}', "--endpoint", node.endpoint))
    assert (answer["message"], answer["function"]) == ("Hello, Ada!", name)
    return answer


def test_python(node):
    assert greet(node, "python-hello", "--runtime", node.python)["from"].startswith("Python 3.")


def test_node(node):
    assert greet(node, "node-hello", "--runtime", node.nodejs)["from"].startswith("Node.js ")


def test_shell(node):
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine, and containers have what the machine has")
    assert greet(node, "shell-hello")["from"] == "a shell"


def test_rust(node, tmp_path):
    # Built apart from Lambent's own workspace: it is somebody else's function.
    if shutil.which("cargo") is None:
        pytest.skip("no cargo on this machine")
    manifest = EXAMPLES / "rust-hello" / "Cargo.toml"
    command = ["cargo", "build", "--quiet", "--locked", "--release", "--manifest-path", str(manifest)]
    subprocess.run([*command, "--target-dir", str(EXAMPLES_TARGET)], check=True, timeout=600)
    shutil.copy(EXAMPLES_TARGET / "release" / "bootstrap", tmp_path)
    shutil.copy(EXAMPLES / "rust-hello" / "function.toml", tmp_path)
    assert greet(node, "rust-hello", folder=tmp_path)["from"] == "Rust"


def test_wasm(node):
    # The component lies beside its source.
    name = node.name("wasm-rust")
    node._created.append(name)
    deployed = lambent(node, "deploy", str(EXAMPLES / "wasm-rust"), "--name", name, "--endpoint", node.endpoint, "--json")
    assert json.loads(deployed)["function"]["Runtime"] == "provided.wasm"
    answer = json.loads(lambent(node, "invoke", name, '{"name": "Ada"}', "--endpoint", node.endpoint))
    assert (answer["statusCode"], answer["body"]) == (200, "Hello from /\n")


@pytest.mark.parametrize("example", ["wasm-js", "wasm-python"])
def test_wasm_of_an_interpreter(node, example):
    folder = ROOT / "target" / "functions" / example
    if not (folder / "function.wasm").is_file():
        pytest.skip("components with an interpreter in them are built by `cargo xtask functions --wasm`")
    name = node.name(example)
    node._created.append(name)
    lambent(node, "deploy", str(folder), "--name", name, "--endpoint", node.endpoint)
    for _ in range(2):
        answer = json.loads(lambent(node, "invoke", name, '{"name": "Ada"}', "--endpoint", node.endpoint))
        assert answer["hello"] == "Ada" and answer["request"]
