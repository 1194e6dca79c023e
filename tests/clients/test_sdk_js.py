"""AWS's JavaScript SDK v3 against a node."""

import base64
import json
import shutil
import subprocess

import pytest
from conftest import ROOT, zip_of

SDK = ROOT / "target/node/sdk"
SCRIPT = ROOT / "tests/clients/sdk.mjs"

STREAMING = """
exports.handler = awslambda.streamifyResponse(async (event, stream) => {
    stream.write('one;');
    stream.end('two');
});
"""


def test_the_main_road(node):
    if not (SDK / "node_modules/@aws-sdk/client-lambda").is_dir() or shutil.which("node") is None:
        pytest.skip("the SDK is not there: tests/clients/setup sdk brings it")
    given = {
        "name": node.name("sdk"),
        "runtime": node.nodejs,
        "code": base64.b64encode(zip_of({"app.js": "exports.handler = async (e) => ({ hello: e.name })"})).decode(),
        "streaming": base64.b64encode(zip_of({"app.js": STREAMING})).decode(),
    }
    # The script is read from the folder that has the SDK, since modules are found from where a file lies.
    shutil.copy(SCRIPT, SDK / "sdk.mjs")
    done = subprocess.run(
        ["node", "sdk.mjs"],
        input=json.dumps(given),
        cwd=SDK,
        env=node.environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "created": "Active",
        "answer": {"hello": "Ada"},
        "executed": "1",
        "stream": "one;two",
        "completed": True,
        "gone": "ResourceNotFoundException",
    }
