"""Functions that call functions: with the ordinary SDKs, against the node that they run on."""

import shutil
from pathlib import Path

import boto3
import botocore
import dateutil
import jmespath
import pytest
import s3transfer
import six
import urllib3
from conftest import ROOT

CALLEE = "def handler(event, context):\n    return {'got': event}\n"

CALLER = """
import json, os, socket
import boto3

def handler(event, context):
    client = boto3.client("lambda")
    if "forbidden" in event:
        try:
            client.delete_function(FunctionName=event["forbidden"])
        except client.exceptions.ClientError as error:
            return error.response["Error"]
    if "token" in event:
        other = boto3.client("lambda", aws_access_key_id=os.environ["AWS_ACCESS_KEY_ID"], aws_session_token="x",
                             aws_secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"])
        try:
            other.invoke(FunctionName=event["token"])
        except other.exceptions.ClientError as error:
            return error.response["Error"]
    if "port" in event:
        for address in ("127.0.0.1", "192.0.0.1"):
            with socket.socket() as probe:
                probe.settimeout(2)
                assert probe.connect_ex((address, event["port"])) != 0, address
        return "out of reach"
    answer = client.invoke(FunctionName=event["call"], Payload=json.dumps(event.get("with")))
    return json.load(answer["Payload"])
"""

JS_CALLER = """
const { LambdaClient, InvokeCommand } = require('@aws-sdk/client-lambda');
const client = new LambdaClient();
exports.handler = async (event) => {
    const answer = await client.send(new InvokeCommand({ FunctionName: event.call, Payload: '{"from":"node"}' }));
    return JSON.parse(Buffer.from(answer.Payload).toString());
};
"""


def _bundled(code):
    """Files of a function with boto3 beside it, as its users package it; of the API models only Lambda's."""
    files = {"app.py": code, "six.py": Path(six.__file__).read_bytes()}
    for package in (boto3, botocore, dateutil, jmespath, s3transfer, urllib3):
        top = Path(package.__file__).parent
        for path in top.rglob("*"):
            name = path.relative_to(top.parent)
            in_data = "data" in name.parts and len(name.parts) > 3 and name.parts[2] not in ("lambda", "sts")
            if path.is_file() and path.suffix != ".pyc" and not in_data:
                files[str(name)] = path.read_bytes()
    return files


@pytest.fixture(scope="module")
def bundle():
    return _bundled(CALLER)


@pytest.mark.parametrize("network", ["internet", "none"])
def test_boto3_in_a_function_invokes_another(node, bundle, network):
    callee = node.create({"app.py": CALLEE})
    caller = node.create(bundle, Timeout=30, MemorySize=512, Tags={"lambent:network": network})
    response, answer = node.invoke(caller, {"call": callee, "with": {"n": 1}})
    assert "FunctionError" not in response, answer
    assert answer == {"got": {"n": 1}}

    _, error = node.invoke(caller, {"forbidden": callee})
    assert error["Code"] == "AccessDeniedException"
    assert "lambda:DeleteFunction because no identity-based policy allows" in error["Message"]
    _, error = node.invoke(caller, {"token": callee})
    assert error == {
        "Code": "UnrecognizedClientException",
        "Message": "The security token included in the request is invalid.",
    }
    port = int(node.endpoint.rsplit(":", 1)[1])
    assert node.invoke(caller, {"port": port})[1] == "out of reach"


def test_a_clone_of_a_snapshot_has_credentials_of_its_own(node):
    code = """
import json, os, urllib.request
def ask():
    with urllib.request.urlopen(os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"]) as answer:
        return json.load(answer)
first = ask()
def handler(event, context):
    return [sorted(name for name in os.environ if name.startswith("AWS_S")), first, ask()]
"""
    if shutil.which("python3.12") is None:
        pytest.skip("there is no python3.12, which is the least that has snapshots")
    name = node.create({"app.py": code}, runtime="python3.12", SnapStart={"ApplyOn": "PublishedVersions"})
    version = node.client("lambda").publish_version(FunctionName=name)["Version"]
    node.client("lambda").get_waiter("published_version_active").wait(FunctionName=name, Qualifier=version)
    response, answer = node.invoke(name, Qualifier=version)
    assert "FunctionError" not in response, answer
    names, first, own = answer
    assert names == []
    assert own["AccessKeyId"].startswith("ASIA") and own["AccessKeyId"] != first["AccessKeyId"]


def test_the_javascript_sdk_in_a_function_invokes_another(node):
    modules = ROOT / "target/node/sdk/node_modules"
    if not (modules / "@aws-sdk/client-lambda").is_dir() or shutil.which("node") is None:
        pytest.skip("the SDK is not there: tests/clients/setup sdk brings it")
    files = {"app.js": JS_CALLER}
    for path in modules.rglob("*"):
        if path.is_file() and path.suffix in (".js", ".cjs", ".json") and "dist-es" not in path.parts:
            files[str(path.relative_to(modules.parent))] = path.read_bytes()
    callee = node.create({"app.py": CALLEE})
    caller = node.create(files, runtime=node.nodejs, Timeout=30, MemorySize=512)
    response, answer = node.invoke(caller, {"call": callee})
    assert "FunctionError" not in response, answer
    assert answer == {"got": {"from": "node"}}
