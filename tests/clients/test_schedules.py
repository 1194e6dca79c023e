"""EventBridge Scheduler's API: schedules of functions, their groups, and what runs."""

import datetime
import json

import pytest
from botocore.exceptions import ClientError

from test_events import ACCOUNT, lambent, queue, wait_until

CODE = """
def handler(event, context):
    return {"event": event}
"""
ROLE = f"arn:aws:iam::{ACCOUNT}:role/scheduler"
OFF = {"Mode": "OFF"}


@pytest.fixture
def scheduler(node):
    client = node.client("scheduler")
    yield client
    for found in client.list_schedules()["Schedules"]:
        client.delete_schedule(Name=found["Name"], GroupName=found["GroupName"])


def target(name, **more):
    return {"Arn": f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{name}", "RoleArn": ROLE, **more}


def refused(code, call, **arguments):
    with pytest.raises(ClientError) as error:
        call(**arguments)
    assert error.value.response["Error"]["Code"] == code, error.value
    return error.value.response


def test_a_schedule_is_made_read_changed_listed_and_deleted(node, scheduler):
    tomorrow = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0) + datetime.timedelta(days=1)
    wanted = {
        "Name": "daily",
        "ScheduleExpression": "cron(0 8 ? * MON-FRI *)",
        "ScheduleExpressionTimezone": "Europe/Berlin",
        "StartDate": tomorrow,
        "Description": "every morning",
        "FlexibleTimeWindow": {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 5},
        "Target": target("f", Input='{"a": 1}', RetryPolicy={"MaximumRetryAttempts": 3}),
    }
    arn = scheduler.create_schedule(**wanted, ClientToken="once")["ScheduleArn"]
    assert arn == f"arn:aws:scheduler:us-east-1:{ACCOUNT}:schedule/default/daily"
    assert scheduler.create_schedule(**wanted, ClientToken="once")["ScheduleArn"] == arn
    response = refused("ConflictException", scheduler.create_schedule, **wanted)
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 409 and response["Message"]
    found = scheduler.get_schedule(Name="daily")
    assert found["StartDate"] == tomorrow and found["State"] == "ENABLED" and found["GroupName"] == "default"
    assert found["Target"]["RetryPolicy"] == {"MaximumRetryAttempts": 3, "MaximumEventAgeInSeconds": 86400}
    assert {name: found[name] for name in ("ScheduleExpression", "Description", "FlexibleTimeWindow")} == {
        name: wanted[name] for name in ("ScheduleExpression", "Description", "FlexibleTimeWindow")
    }
    scheduler.update_schedule(
        Name="daily", ScheduleExpression="rate(1 day)", State="DISABLED", FlexibleTimeWindow=OFF, Target=target("f")
    )
    changed = scheduler.get_schedule(Name="daily")
    assert changed["CreationDate"] == found["CreationDate"] <= changed["LastModificationDate"]
    assert "Description" not in changed and changed["ScheduleExpressionTimezone"] == "UTC"
    assert [one["Name"] for one in scheduler.list_schedules(State="DISABLED")["Schedules"]] == ["daily"]
    assert scheduler.list_schedules(State="ENABLED")["Schedules"] == []
    scheduler.delete_schedule(Name="daily")
    refused("ResourceNotFoundException", scheduler.get_schedule, Name="daily")
    refused("ResourceNotFoundException", scheduler.delete_schedule, Name="daily")


@pytest.mark.parametrize(
    "wrong",
    [
        {"ScheduleExpression": "cron(* * * * * *)"},
        {"ScheduleExpression": "rate(0 minutes)"},
        {"ScheduleExpressionTimezone": "Mars/Olympus"},
        {"FlexibleTimeWindow": {"Mode": "FLEXIBLE"}},
        {"Target": target("f", Input="{")},
        {"Name": "no spaces"},
    ],
)
def test_what_makes_no_sense_is_refused(scheduler, wrong):
    wanted = {"Name": "x", "ScheduleExpression": "rate(1 day)", "FlexibleTimeWindow": OFF, "Target": target("f")}
    refused("ValidationException", scheduler.create_schedule, **{**wanted, **wrong})


def test_groups_hold_schedules_and_have_tags(scheduler):
    arn = scheduler.create_schedule_group(Name="g-1", Tags=[{"Key": "team", "Value": "a"}])["ScheduleGroupArn"]
    refused("ConflictException", scheduler.create_schedule_group, Name="g-1")
    scheduler.tag_resource(ResourceArn=arn, Tags=[{"Key": "tier", "Value": "1"}])
    scheduler.untag_resource(ResourceArn=arn, TagKeys=["team"])
    assert scheduler.list_tags_for_resource(ResourceArn=arn)["Tags"] == [{"Key": "tier", "Value": "1"}]
    plan = {"ScheduleExpression": "rate(1 day)", "FlexibleTimeWindow": OFF, "State": "DISABLED", "Target": target("f")}
    refused("ResourceNotFoundException", scheduler.create_schedule, Name="s", GroupName="none", **plan)
    for n in range(5):
        scheduler.create_schedule(Name=f"s{n}", GroupName="g-1", **plan)
    scheduler.create_schedule(Name="s0", **plan)
    pages = scheduler.get_paginator("list_schedules").paginate(PaginationConfig={"PageSize": 2})
    names = [(one["GroupName"], one["Name"]) for page in pages for one in page["Schedules"]]
    assert names == [("default", "s0")] + [("g-1", f"s{n}") for n in range(5)]
    assert len(scheduler.list_schedules(GroupName="g-1", NamePrefix="s")["Schedules"]) == 5
    assert [one["Name"] for one in scheduler.list_schedule_groups()["ScheduleGroups"]] == ["default", "g-1"]
    scheduler.delete_schedule_group(Name="g-1")
    refused("ResourceNotFoundException", scheduler.get_schedule, Name="s1", GroupName="g-1")
    refused("ResourceNotFoundException", scheduler.get_schedule_group, Name="g-1")
    refused("ValidationException", scheduler.delete_schedule_group, Name="default")


def test_a_function_runs_at_its_time_with_its_input(node, lambda_, scheduler):
    name, results = node.create({"app.py": CODE}), node.name("results")
    config = {"OnSuccess": {"Destination": queue(results)}}
    lambda_.put_function_event_invoke_config(FunctionName=name, DestinationConfig=config)
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=2)
    time = soon.strftime("%Y-%m-%dT%H:%M:%S")
    scheduler.create_schedule(
        Name="once",
        ScheduleExpression=f"at({time})",
        FlexibleTimeWindow=OFF,
        ActionAfterCompletion="DELETE",
        Target=target(name, Input='{"at": "<aws.scheduler.scheduled-time>"}'),
    )
    (letter,) = wait_until(lambda: lambent(node, "dead-letters", "list", "--queue", results))
    record = json.loads(lambent(node, "dead-letters", "show", str(letter["id"]), "--queue", results)["payload"])
    assert record["requestPayload"] == {"at": f"{time}Z"}
    wait_until(lambda: scheduler.list_schedules()["Schedules"] == [])


def test_a_rate_begins_at_once_and_a_missing_function_goes_to_the_dead_letters(node, scheduler):
    arn = f"arn:aws:sqs:us-east-1:{ACCOUNT}:none"
    gone = target(node.name("gone"))
    scheduler.create_schedule(Name="r", ScheduleExpression="rate(1 day)", FlexibleTimeWindow=OFF, Target=gone)
    (letter,) = wait_until(lambda: lambent(node, "dead-letters", "list", "--function", gone["Arn"]))
    assert "does not exist" in letter["reason"]
    event = json.loads(lambent(node, "dead-letters", "show", str(letter["id"]))["payload"])
    assert event["source"] == "aws.scheduler" and event["resources"] == [scheduler.get_schedule(Name="r")["Arn"]]
    scheduler.update_schedule(
        Name="r",
        ScheduleExpression="rate(1 day)",
        FlexibleTimeWindow=OFF,
        Target={**gone, "DeadLetterConfig": {"Arn": arn}},
    )
    assert scheduler.get_schedule(Name="r")["Target"]["DeadLetterConfig"] == {"Arn": arn}


def test_the_command_line_puts_runs_and_deletes(node, lambda_):
    name, results = node.create({"app.py": CODE}), node.name("results")
    config = {"OnSuccess": {"Destination": queue(results)}}
    lambda_.put_function_event_invoke_config(FunctionName=name, DestinationConfig=config)
    lambent(node, "schedules", "put", "cli", "cron(0 0 1 1 ? *)", "--function", name, "--input", '{"n": 1}')
    lambent(node, "schedules", "put", "cli", "cron(0 0 2 1 ? *)", "--function", name)
    (found,) = lambent(node, "schedules", "list")
    assert found["Name"] == "cli" and found["Target"]["Arn"].endswith(name)
    shown = lambent(node, "schedules", "show", "cli")
    assert shown["Target"]["Input"] == '{"n": 1}' and shown["ScheduleExpression"] == "cron(0 0 2 1 ? *)"
    lambent(node, "schedules", "run", "cli")
    wait_until(lambda: lambent(node, "dead-letters", "list", "--queue", results))
    lambent(node, "schedules", "delete", "cli")
    assert lambent(node, "schedules", "list") == []
