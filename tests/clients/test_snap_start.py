"""Starts from snapshots (`SnapStart`), as boto3 sees them."""

import base64
import concurrent.futures
import importlib.util
import json
import pathlib
import re

import botocore.exceptions
import pytest

SNAP_START = {"ApplyOn": "PublishedVersions"}
# What a function needs that brings boto3 along.
PACKAGES = ("boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six", "urllib3")

SOURCE = """
import os, random, time, uuid
import boto3
from snapshot_restore_py import register_after_restore, register_before_snapshot
client = boto3.client("s3", region_name="us-east-1", aws_access_key_id="id", aws_secret_access_key="key")
steps = []
register_before_snapshot(lambda: steps.append("before"))
register_after_restore(lambda: steps.append("after"))
with open("/tmp/of-init", "w") as file:
    file.write(uuid.uuid4().hex)
def handler(event, context):
    time.sleep(event.get("sleep", 0))
    with open("/tmp/of-init") as file:
        init = file.read()
    with open("/tmp/of-call", "a") as file:
        file.write("x")
    steps.append("call")
    return {
        "init": init,
        "calls": os.path.getsize("/tmp/of-call"),
        "steps": steps,
        "drawn": [random.random(), uuid.uuid4().hex],
        "kind": os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"],
        "url": client.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "key"}),
        "stream": context.log_stream_name,
    }
"""


def boto3_files():
    """The packages, as this interpreter has them."""
    files = {}
    for name in PACKAGES:
        origin = pathlib.Path(importlib.util.find_spec(name).origin)
        if origin.name != "__init__.py":
            files[origin.name] = origin.read_bytes()
            continue
        for path in origin.parent.rglob("*"):
            parts = path.relative_to(origin.parent).parts
            # Most of botocore is descriptions of services that are not used here.
            unused = name == "botocore" and parts[0] == "data" and len(parts) > 2 and parts[1] != "s3"
            if path.is_file() and path.suffix != ".pyc" and not unused:
                files["/".join((name, *parts))] = path.read_bytes()
    return files


@pytest.fixture
def runtime(node):
    """A Python that AWS has snapshots for."""
    for name in ("python3.13", "python3.12"):
        try:
            return node.create({"app.py": "def handler(event, context): return 1"}, runtime=name) and name
        except botocore.exceptions.ClientError:
            continue
    pytest.skip("this machine has no Python that AWS has snapshots for")


def publish(node, name):
    """The first version's configuration, once it is what it will be."""
    client = node.client("lambda")
    made = client.publish_version(FunctionName=name)
    assert made["State"] == "Pending" and made["SnapStart"]["ApplyOn"] == "PublishedVersions"
    waiter = client.get_waiter("published_version_active")
    waiter.wait(FunctionName=name, Qualifier=made["Version"], WaiterConfig={"Delay": 0.05, "MaxAttempts": 1200})
    return client.get_function_configuration(FunctionName=name, Qualifier=made["Version"])


def call(node, name, qualifier="1", **event):
    answer = node.client("lambda").invoke(
        FunctionName=name, Qualifier=qualifier, Payload=json.dumps(event), LogType="Tail"
    )
    payload = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, payload
    return payload, base64.b64decode(answer["LogResult"]).decode()


def test_clones_of_a_function_with_boto3(node, runtime):
    name = node.create(
        {**boto3_files(), "app.py": SOURCE}, runtime=runtime, SnapStart=SNAP_START, MemorySize=512, Timeout=30
    )
    configuration = publish(node, name)
    if configuration["SnapStart"]["OptimizationStatus"] == "Off":
        # A node without real cells has no clones, and says so.
        assert configuration["StateReason"].startswith("SnapStart is off for this version: ")
        assert call(node, name)[0]["kind"] == "on-demand"
        return
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: call(node, name, sleep=1), range(2))
    for answer, tail in (one, two):
        assert answer["kind"] == "snap-start"
        assert answer["steps"] == ["before", "after", "call"] and answer["calls"] == 1
        assert "X-Amz-" in answer["url"] or "Signature=" in answer["url"]
        assert re.search(r"REPORT .*\tRestore Duration: [\d.]+ ms\tBilled Restore Duration: \d+ ms", tail), tail
        assert "Init Duration" not in tail
    assert one[0]["init"] == two[0]["init"]
    assert one[0]["stream"] != two[0]["stream"]
    assert not set(map(str, one[0]["drawn"])) & set(map(str, two[0]["drawn"]))
    assert call(node, name, "$LATEST")[0]["kind"] == "on-demand"


def test_a_version_whose_init_fails_says_so(node, runtime):
    client = node.client("lambda")
    name = node.create({"app.py": "raise ValueError('no')"}, runtime=runtime, SnapStart=SNAP_START)
    with pytest.raises(botocore.exceptions.WaiterError):
        publish(node, name)
    failed = client.get_function_configuration(FunctionName=name, Qualifier="1")
    assert failed["State"] == "Failed" and "ValueError" in failed["StateReason"]


def test_what_cannot_be_cloned_runs_and_says_why(node, runtime):
    source = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    name = node.create(
        {"app.py": source + "def handler(event, context): return 1"}, runtime=runtime, SnapStart=SNAP_START
    )
    configuration = publish(node, name)
    assert configuration["SnapStart"]["OptimizationStatus"] == "Off"
    assert configuration["StateReason"].startswith("SnapStart is off for this version: ")
    assert call(node, name)[0] == 1


@pytest.mark.parametrize(
    "settings, text",
    [
        ({"EphemeralStorage": {"Size": 1024}}, "Ephemeral storage"),
        ({"Runtime": "nodejs20.x"}, "not supported for SnapStart"),
    ],
)
def test_restrictions_of_aws(node, runtime, settings, text):
    client = node.client("lambda")
    name = node.create({"app.py": "def handler(event, context): return 1"}, runtime=runtime, SnapStart=SNAP_START)
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        client.update_function_configuration(FunctionName=name, **settings)
    error = refused.value.response["Error"]
    assert error["Code"] == "InvalidParameterValueException"
    assert text in error["Message"] or "is not on this machine" in error["Message"]
    publish(node, name)
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        client.put_provisioned_concurrency_config(FunctionName=name, Qualifier="1", ProvisionedConcurrentExecutions=1)
    assert "SnapStart" in refused.value.response["Error"]["Message"]
