"""Functions that call functions: with the ordinary SDKs, against the node that they run on."""

import base64
import re
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
from conftest import ROOT, Node, binary

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


@pytest.fixture(scope="module")
def small_node(tmp_path_factory):
    """A node whose account may run two invocations at once."""
    if binary() is None:
        pytest.skip("no lambent binary: build it, or name it in LAMBENT_BIN")
    node = Node(tmp_path_factory.mktemp("calls") / "data", "--set", "fleet.concurrency=2")
    yield node
    node.forget()
    assert node.stop() == 0, node.log_path.read_text()[-4000:]


HELPED = """
import asyncio, json, lambent, os, urllib.request

def handler(event, context):
    return globals()[event.pop("do")](**event)

def fan_out(callee, n):
    calls = [lambent.start(callee, {"n": i}) for i in range(n)]
    first = lambent.wait_any(calls)
    everything = lambent.wait_all(calls)
    assert 1 <= len(first) <= len(everything) == n
    assert calls[0].done() and calls[0].result() == calls[0].result()
    return [call.result()["got"]["n"] for call in calls]

def gather(callee, n):
    async def work():
        return await asyncio.gather(*[lambent.start(callee, {"n": i}) for i in range(n)])
    return [answer["got"]["n"] for answer in asyncio.run(work())]

def errors(failing):
    found = []
    for act in (
        lambda: lambent.start(failing).result(),
        lambda: lambent.start("nobody-knows-it"),
        lambda: lambent.Call("00000000-0000-0000-0000-000000000000").result(),
        lambda: lambent.Call("no-id").result(),
        lambda: lambent.start(failing, "x" * 6_300_000),
        lambda: lambent.start(failing, site="x" * 300),
    ):
        try:
            act()
        except lambent.FunctionError as error:
            found.append(error.error_type)
        except lambent.CallError as error:
            found.append([error.code, error.status])
    return found

def once(callee):
    call = lambent.start(callee, 1)
    call.result()
    try:
        return lambent.Call(call.id).result()
    except lambent.CallError as error:
        return error.code

def late(slow):
    call = lambent.start(slow)
    try:
        call.result(timeout=0)
    except lambent.NotDone:
        call.forget()
        return "not done"

def chain(name, depth):
    if depth == 0:
        return ["end"]
    return [depth] + lambent.start(name, {"do": "chain", "name": name, "depth": depth - 1}).result()
"""

FAILING = "def handler(event, context):\n    raise KeyError('x')\n"
SLOW = "import time\ndef handler(event, context):\n    time.sleep(0.5)\n"


def _helped(node):
    return node.create({"app.py": HELPED}, Timeout=60)


def test_the_helper_module_starts_calls_and_waits_for_them(node):
    caller, callee = _helped(node), node.create({"app.py": CALLEE})
    for how in ("fan_out", "gather"):
        response, answer = node.invoke(caller, {"do": how, "callee": callee, "n": 12})
        assert "FunctionError" not in response, answer
        assert answer == list(range(12)), how
    assert node.invoke(caller, {"do": "once", "callee": callee})[1] == "CallNotFoundException"
    assert node.invoke(caller, {"do": "late", "slow": node.create({"app.py": SLOW})})[1] == "not done"


def test_the_helper_module_tells_errors_apart(node):
    failing = node.create({"app.py": FAILING})
    response, answer = node.invoke(_helped(node), {"do": "errors", "failing": failing})
    assert "FunctionError" not in response, answer
    assert answer == [
        "KeyError",
        ["ResourceNotFoundException", 404],
        ["CallNotFoundException", 404],
        ["CallNotFoundException", 404],
        ["RequestEntityTooLargeException", 413],
        ["InvalidParameterValueException", 400],
    ]


def test_who_waits_is_not_billed_for_it(node):
    caller = _helped(node)
    slow = node.create(
        {"app.py": "import time\ndef handler(event, context):\n    time.sleep(0.5)\n    return {'got': event}\n"}
    )
    payload = {"do": "fan_out", "callee": slow, "n": 2}
    node.invoke(caller, payload)
    response, _ = node.invoke(caller, payload, LogType="Tail")
    report = base64.b64decode(response["LogResult"]).decode().split("REPORT ")[1]
    told = {name: float(value) for name, value in re.findall(r"([\w ]*Duration): ([\d.]+) ms", report)}
    assert told["Waited Duration"] > 0
    assert told["Billed Duration"] <= told["Duration"] - told["Waited Duration"] + 1.01


def test_a_chain_deeper_than_the_concurrency_ends(small_node):
    chain = _helped(small_node)
    response, answer = small_node.invoke(chain, {"do": "chain", "name": chain, "depth": 10})
    assert "FunctionError" not in response, answer
    assert answer == [*range(10, 0, -1), "end"]


def test_more_calls_than_places_wait_for_one(small_node):
    callee = small_node.create({"app.py": CALLEE})
    response, answer = small_node.invoke(_helped(small_node), {"do": "fan_out", "callee": callee, "n": 8})
    assert "FunctionError" not in response, answer
    assert answer == list(range(8))


JS_HELPED = """
const lambent = require('lambent');
exports.handler = async ({ callee, failing }) => {
    const calls = await Promise.all([1, 2, 3].map((n) => lambent.start(callee, { n })));
    const any = await lambent.waitAny(calls);
    const all = await lambent.waitAll(calls);
    const answers = await Promise.all(calls.map((call) => call.result()));
    const failed = await (await lambent.start(failing)).result().catch((error) => error);
    const nobody = await lambent.start('nobody-knows-it').catch((error) => error);
    return [any.length >= 1, all.length, answers.map((answer) => answer.got.n), failed.errorType, nobody.code];
};
"""


def test_the_helper_module_for_node(node):
    callee, failing = node.create({"app.py": CALLEE}), node.create({"app.py": FAILING})
    caller = node.create({"app.js": JS_HELPED}, runtime=node.nodejs, Timeout=30)
    response, answer = node.invoke(caller, {"callee": callee, "failing": failing})
    assert "FunctionError" not in response, answer
    assert answer == [True, 3, [1, 2, 3], "KeyError", "ResourceNotFoundException"]
