"""Tenant isolation: `TenancyConfig`, `X-Amz-Tenant-Id`, one container for one tenant."""

import json
import subprocess

import pytest
from conftest import ROLE, binary, plain, zip_of

from test_events import messages, queue, refused, wait_until
from test_executions import call, key

PER_TENANT = {"TenantIsolationMode": "PER_TENANT"}
CODE = {
    "app.py": """
import os
import uuid

mine = {"container": str(uuid.uuid4()), "seen": []}

def handler(event, context):
    mine["seen"].append(context.tenant_id)
    if event and "write" in event:
        with open("/tmp/kept", "a") as kept:
            kept.write(context.tenant_id + "\\n")
    kept = open("/tmp/kept").read().split() if os.path.exists("/tmp/kept") else []
    return {**mine, "kept": kept}
"""
}


@pytest.fixture
def isolating(node):
    return node.create(CODE, TenancyConfig=PER_TENANT)


def test_a_container_serves_one_tenant_only(node, isolating):
    lambda_ = node.client("lambda")
    assert lambda_.get_function_configuration(FunctionName=isolating)["TenancyConfig"] == PER_TENANT
    answers = [
        node.invoke(isolating, {"write": 1}, TenantId=tenant)[1] for tenant in ("ada", "bob@x.y", "ada", "bob@x.y")
    ]
    assert [answer["seen"] for answer in answers] == [["ada"], ["bob@x.y"], ["ada"] * 2, ["bob@x.y"] * 2]
    assert answers[0]["container"] == answers[2]["container"] != answers[1]["container"]
    assert answers[3]["kept"] == ["bob@x.y"] * 2
    # A published version isolates as well.
    version = lambda_.publish_version(FunctionName=isolating)
    assert version["TenancyConfig"] == PER_TENANT
    lambda_.get_waiter("published_version_active").wait(FunctionName=isolating, Qualifier=version["Version"])
    _, answer = node.invoke(isolating, TenantId="ada", Qualifier=version["Version"])
    assert answer["seen"] == ["ada"]


def test_an_update_keeps_the_isolation(node, isolating):
    lambda_ = node.client("lambda")
    assert lambda_.update_function_configuration(FunctionName=isolating, Timeout=7)["TenancyConfig"] == PER_TENANT
    lambda_.get_waiter("function_updated_v2").wait(FunctionName=isolating)
    assert node.invoke(isolating, TenantId="ada")[1]["seen"] == ["ada"]


def test_who_isolates_is_told_for_whom(node, isolating):
    lambda_ = node.client("lambda")
    ordinary = node.create({"app.py": "def handler(event, context):\n    return context.tenant_id\n"})
    assert refused(lambda_.invoke, FunctionName=isolating) == (
        "InvalidParameterValueException",
        400,
        "The invoked function is enabled with tenancy configuration. Add a valid tenant ID in your request and try again.",
    )
    for kind in ("RequestResponse", "Event"):
        assert refused(lambda_.invoke, FunctionName=ordinary, InvocationType=kind, TenantId="ada") == (
            "InvalidParameterValueException",
            400,
            "The invoked function is not enabled with tenancy configuration. Remove the tenant ID from your request and try "
            "again.",
        )
    assert (
        refused(lambda_.invoke, FunctionName=isolating, InvocationType="Event")[0] == "InvalidParameterValueException"
    )
    assert node.invoke(ordinary)[1] is None
    code, status, message = refused(lambda_.invoke, FunctionName=isolating, TenantId="no/way?")
    assert (code, status) == ("ValidationException", 400) and "'tenantId'" in message


def test_events_run_for_their_tenant(node, isolating):
    lambda_ = node.client("lambda")
    results = node.name("results")
    lambda_.put_function_event_invoke_config(
        FunctionName=isolating, DestinationConfig={"OnSuccess": {"Destination": queue(results)}}
    )
    for tenant in ("ada", "bob"):
        event = {"FunctionName": isolating, "InvocationType": "Event", "TenantId": tenant, "Payload": b"{}"}
        assert lambda_.invoke(**event)["StatusCode"] == 202
    records = wait_until(lambda: len(found := messages(node, results)) == 2 and found)
    assert sorted(record["responsePayload"]["seen"] for record in records) == [["ada"], ["bob"]]


def test_one_tenant_never_gets_what_is_on_record_for_another(node, isolating):
    def seen(tenant, headers):
        response, execution = call(node, isolating, {}, {"X-Amz-Tenant-Id": tenant, **headers})
        return response.json()["seen"], execution.split(";")[0]

    for headers in (key("one"), {"X-Lambent-Idempotency": "dependencies"}):
        answers = [seen(tenant, headers) for tenant in ("ada", "bob", "ada")]
        assert [execution for _, execution in answers] == ["ran", "ran", "reused"]
        assert answers[0][0][-1] == answers[2][0][-1] == "ada" and answers[1][0][-1] == "bob"


def test_what_does_not_go_together_is_refused(node, isolating):
    lambda_ = node.client("lambda")
    invalid = ("InvalidParameterValueException", 400)
    assert refused(lambda_.create_function_url_config, FunctionName=isolating, AuthType="NONE")[:2] == invalid
    version = lambda_.publish_version(FunctionName=isolating)["Version"]
    provisioned = {"FunctionName": isolating, "Qualifier": version, "ProvisionedConcurrentExecutions": 1}
    assert refused(lambda_.put_provisioned_concurrency_config, **provisioned)[:2] == invalid
    snap_start = {"ApplyOn": "PublishedVersions"}
    created = {"Runtime": node.python, "Role": ROLE, "Handler": "app.handler", "Code": {"ZipFile": zip_of(CODE)}}
    assert (
        refused(
            lambda_.create_function, FunctionName=node.name(), TenancyConfig=PER_TENANT, SnapStart=snap_start, **created
        )[:2]
        == invalid
    )
    assert refused(
        lambda_.create_function, FunctionName=node.name(), TenancyConfig={"TenantIsolationMode": "SOME"}, **created
    )[:2] == ("ValidationException", 400)


def test_the_command_line_names_a_tenant(node, isolating):
    called = [binary(), "invoke", isolating, "{}", "--tenant-id", "ada", "--endpoint", node.endpoint]
    ran = subprocess.run(called, env={**plain(), **node.environment()}, stdout=subprocess.PIPE, check=True)
    assert json.loads(ran.stdout)["seen"] == ["ada"]
