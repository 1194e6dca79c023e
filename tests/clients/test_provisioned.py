"""Provisioned concurrency, as boto3 sees it."""

import json
import time

import botocore.exceptions
import pytest

SOURCE = """
import os, time
LOADED = time.time()
def handler(event, context):
    time.sleep(event.get("sleep", 0))
    return {
        "kind": os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"],
        "loaded": LOADED,
        "version": context.function_version,
        "stream": context.log_stream_name,
    }
"""
WAIT_SECONDS = 60


def provisioned(client, name, qualifier, status="READY"):
    """The configuration, once it has this status."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        found = client.get_provisioned_concurrency_config(FunctionName=name, Qualifier=qualifier)
        if found["Status"] == status:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def put(client, name, qualifier, count):
    return client.put_provisioned_concurrency_config(
        FunctionName=name, Qualifier=qualifier, ProvisionedConcurrentExecutions=count
    )


def call(client, name, qualifier, event=None):
    answer = client.invoke(FunctionName=name, Qualifier=qualifier, Payload=json.dumps(event or {}))
    assert "FunctionError" not in answer
    return json.loads(answer["Payload"].read())


@pytest.fixture
def published(node):
    """A function with a published version."""
    name = node.create({"app.py": SOURCE})
    node.client("lambda").publish_version(FunctionName=name)
    return name


def test_containers_are_initialised_ahead_and_kept(node, published):
    client = node.client("lambda")
    made = put(client, published, "1", 2)
    assert made["Status"] == "IN_PROGRESS"
    assert made["RequestedProvisionedConcurrentExecutions"] == 2
    ready = provisioned(client, published, "1")
    assert ready["AllocatedProvisionedConcurrentExecutions"] == 2
    assert ready["AvailableProvisionedConcurrentExecutions"] == 2
    before = time.time()
    answer = call(client, published, "1")
    assert answer["kind"] == "provisioned-concurrency"
    assert answer["loaded"] < before
    assert call(client, published, "$LATEST")["kind"] == "on-demand"
    listed = client.list_provisioned_concurrency_configs(FunctionName=published)["ProvisionedConcurrencyConfigs"]
    assert [(config["FunctionArn"].rsplit(":", 1)[1], config["Status"]) for config in listed] == [("1", "READY")]
    client.delete_provisioned_concurrency_config(FunctionName=published, Qualifier="1")
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        client.get_provisioned_concurrency_config(FunctionName=published, Qualifier="1")
    assert refused.value.response["Error"]["Code"] == "ProvisionedConcurrencyConfigNotFoundException"


def test_an_alias_that_moves_takes_its_containers_along(node, published):
    client = node.client("lambda")
    client.create_alias(FunctionName=published, Name="live", FunctionVersion="1")
    put(client, published, "live", 1)
    provisioned(client, published, "live")
    client.update_function_configuration(FunctionName=published, Timeout=9)
    client.get_waiter("function_updated_v2").wait(FunctionName=published)
    client.publish_version(FunctionName=published)
    client.update_alias(FunctionName=published, Name="live", FunctionVersion="2")
    provisioned(client, published, "live")
    answer = call(client, published, "live")
    assert (answer["version"], answer["kind"]) == ("2", "provisioned-concurrency")


def test_a_function_that_does_not_start_says_so(node):
    client = node.client("lambda")
    name = node.create({"app.py": "raise RuntimeError('no')"})
    client.publish_version(FunctionName=name)
    put(client, name, "1", 1)
    failed = provisioned(client, name, "1", "FAILED")
    assert failed["StatusReason"] == "FUNCTION_ERROR_INIT_FAILURE"
    assert failed["AvailableProvisionedConcurrentExecutions"] == 0


@pytest.mark.parametrize(
    "count, text", [(901, "decreases account's UnreservedConcurrentExecution"), (1001, "is greater")]
)
def test_more_than_the_account_has_is_refused(node, published, count, text):
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        put(node.client("lambda"), published, "1", count)
    error = refused.value.response["Error"]
    assert error["Code"] == "InvalidParameterValueException"
    assert error["Message"].startswith("Specified ConcurrentExecutions for function") and text in error["Message"]
