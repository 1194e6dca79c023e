"""Logs: lines, events of several lines, formats, and AWS's clients that read them."""

import json
import subprocess
import sys
import threading
import time

import botocore.exceptions
import pytest
from conftest import TARGET, binary

CODE = """
import logging
logger = logging.getLogger("mine")
def handler(event, context):
    print("printed é")
    logger.warning("logged\\nin two lines")
    if event == "fail":
        raise ValueError("no")
"""


def events_of(logs, name, wanted):
    """The events of a function, once `wanted` is among them: logs are written behind the answer."""
    gate = threading.Event()
    for _ in range(200):
        try:
            found = logs.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
        except logs.exceptions.ResourceNotFoundException:
            found = []
        messages = [event["message"] for event in found]
        if any(wanted in message for message in messages):
            return messages
        gate.wait(0.05)
    raise AssertionError(f"{wanted!r} is not in {messages}")


def test_an_invocation_has_its_lines(node, logs):
    name = node.create({"app.py": CODE})
    response, _ = node.invoke(name, 1)
    request = response["ResponseMetadata"]["RequestId"]
    messages = events_of(logs, name, f"REPORT RequestId: {request}")
    messages = messages[messages.index(f"START RequestId: {request} Version: $LATEST\n") :]
    assert messages[1] == "printed é\n"
    assert messages[2].startswith("[WARNING]\t") and messages[2].endswith(f"\t{request}\tlogged\nin two lines\n")
    assert messages[3] == f"END RequestId: {request}\n"
    assert messages[4].startswith(f"REPORT RequestId: {request}\tDuration: ")


def test_an_error_is_one_event(node, logs):
    name = node.create({"app.py": CODE})
    node.invoke(name, "fail")
    messages = events_of(logs, name, "REPORT")
    (error,) = [message for message in messages if message.startswith("[ERROR] ValueError: no")]
    assert "Traceback (most recent call last):\n" in error
    assert 'File "/var/task/app.py", line 8, in handler' in error


def test_json_records(node, logs):
    name = node.create({"app.py": CODE}, LoggingConfig={"LogFormat": "JSON", "ApplicationLogLevel": "WARN"})
    response, _ = node.invoke(name, "fail")
    messages = events_of(logs, name, "platform.report")
    records = [json.loads(message) for message in messages if message.startswith("{")]
    types = [record["type"] for record in records if "type" in record]
    assert "platform.start" in types and "platform.report" in types
    logged = [record for record in records if record.get("level") == "WARNING"]
    assert logged[0]["message"] == "logged\nin two lines"
    assert logged[0]["requestId"] == response["ResponseMetadata"]["RequestId"]
    assert [record["errorType"] for record in records if record.get("level") == "ERROR"] == ["ValueError"]


def test_groups_and_streams_are_listed(node, logs):
    name = node.create({"app.py": CODE})
    node.invoke(name, 1)
    events_of(logs, name, "REPORT")
    groups = logs.describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{name}")["logGroups"]
    assert [group["logGroupName"] for group in groups] == [f"/aws/lambda/{name}"]
    streams = logs.describe_log_streams(logGroupName=f"/aws/lambda/{name}")["logStreams"]
    assert len(streams) == 1 and "[$LATEST]" in streams[0]["logStreamName"]
    got = logs.get_log_events(
        logGroupName=f"/aws/lambda/{name}", logStreamName=streams[0]["logStreamName"], startFromHead=True
    )
    assert "printed é\n" in [event["message"] for event in got["events"]]


def test_the_command_line_reads_them(node, logs):
    name = node.create({"app.py": CODE})
    node.invoke(name, 1)
    events_of(logs, name, "REPORT")
    command = [sys.executable, "-m", "awscli", "logs", "filter-log-events", "--log-group-name", f"/aws/lambda/{name}"]
    done = subprocess.run(
        [*command, "--interleaved"], env=node.environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    messages = [event["message"] for event in json.loads(done.stdout)["events"]]
    assert "printed é\n" in messages


def test_lambent_logs(node, logs):
    name = node.create({"app.py": CODE})
    node.invoke(name, "fail")
    events_of(logs, name, "REPORT")
    command = [binary(), "logs", name, "--endpoint", node.endpoint]
    done = subprocess.run(command, env=node.environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "printed é\n" in done.stdout and "[ERROR] ValueError: no\n" in done.stdout


def reads(command, environment, wanted):
    """Runs a command that follows a log until it has printed a line with `wanted`; returns what it printed until then."""
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    ) as running:
        watchdog = threading.Timer(60, running.kill)
        watchdog.start()
        lines = []
        for line in running.stdout:
            lines.append(line)
            if wanted in line:
                break
        watchdog.cancel()
        running.kill()
    assert any(wanted in line for line in lines), "".join(lines)
    return "".join(lines)


@pytest.fixture
def aws2():
    """Version 2 of the AWS command line."""
    program = TARGET / "aws2" / "bin" / "aws"
    if not program.exists():
        pytest.skip(
            "version 2 of the AWS command line is not there: tests/clients/setup aws2 brings it or says why not"
        )
    return str(program)


def test_version_2_of_the_command_line_tails_them(node, logs, aws2):
    name = node.create({"app.py": CODE})
    node.invoke(name, 1)
    events_of(logs, name, "REPORT")
    command = [aws2, "logs", "tail", f"/aws/lambda/{name}"]
    done = subprocess.run(command, env=node.environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert " printed é\n" in done.stdout and "[$LATEST]" in done.stdout
    assert "REPORT RequestId: " in reads([*command, "--follow", "--format", "short"], node.environment(), "REPORT")


@pytest.fixture
def sam():
    """The SAM command line."""
    return str(TARGET / "venv-sam" / "bin" / "sam")


def test_sam_reads_them(node, logs, sam):
    name = node.create({"app.py": CODE})
    node.invoke(name, 1)
    events_of(logs, name, "REPORT")
    command = [sam, "logs", "--cw-log-group", f"/aws/lambda/{name}"]
    done = subprocess.run(command, env=node.environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "printed é" in done.stdout and "REPORT RequestId: " in done.stdout
    reads([*command, "--tail"], {**node.environment(), "PYTHONUNBUFFERED": "1"}, "REPORT RequestId: ")


def test_sam_invokes(node, sam):
    name = node.create(
        {"app.py": "def handler(event, context):\n    print('seen')\n    return {'hello': event['name']}\n"}
    )
    arn = node.client("lambda").get_function_configuration(FunctionName=name)["FunctionArn"]
    command = [sam, "remote", "invoke", arn, "--event", '{"name": "Ada"}']
    done = subprocess.run(command, env=node.environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"hello": "Ada"}
    assert "seen\n" in done.stderr and "REPORT RequestId: " in done.stderr


def refused(call, **parameters):
    """The code and message of the error that a call must answer."""
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**parameters)
    return error.value.response["Error"]["Code"], error.value.response["Error"]["Message"]


def test_events_are_put(logs):
    group, stream = {"logGroupName": "/put"}, {"logGroupName": "/put", "logStreamName": "mine"}
    now = int(time.time() * 1000)
    events = [{"timestamp": now - 1, "message": "first"}, {"timestamp": now, "message": "second\nin two lines"}]
    no_group = ("ResourceNotFoundException", "The specified log group does not exist.")
    no_stream = ("ResourceNotFoundException", "The specified log stream does not exist.")
    assert refused(logs.create_log_stream, **stream) == no_group
    assert refused(logs.put_log_events, **stream, logEvents=events) == no_group
    logs.create_log_group(**group)
    assert refused(logs.put_log_events, **stream, logEvents=events) == no_stream
    assert refused(logs.delete_log_stream, **stream) == no_stream
    logs.create_log_stream(**stream)
    assert refused(logs.create_log_stream, **stream)[0] == "ResourceAlreadyExistsException"
    assert "rejectedLogEventsInfo" not in logs.put_log_events(**stream, logEvents=events)
    assert refused(logs.put_log_events, **stream, logEvents=events[::-1])[0] == "InvalidParameterException"
    late = [{"timestamp": now - 15 * 86_400_000, "message": "too old"}]
    assert logs.put_log_events(**stream, logEvents=late)["rejectedLogEventsInfo"] == {"tooOldLogEventEndIndex": 1}
    got = logs.get_log_events(**stream, startFromHead=True)["events"]
    assert [(event["timestamp"], event["message"]) for event in got] == [(e["timestamp"], e["message"]) for e in events]
    logs.delete_log_stream(**stream)
    assert logs.describe_log_streams(**group)["logStreams"] == []
    logs.delete_log_group(**group)


def test_a_live_tail_shows_what_comes(node, logs):
    name = node.create({"app.py": CODE})
    node.invoke(name, 1)
    events_of(logs, name, "REPORT")
    group = logs.describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{name}")["logGroups"][0]["logGroupArn"]
    # AWS has another host for this, `streaming-logs`; here there is one.
    tailing = node.client("logs", inject_host_prefix=False)
    unknown = {"logGroupIdentifiers": [group + "-not"]}
    assert refused(tailing.start_live_tail, **unknown)[0] == "ResourceNotFoundException"
    session = tailing.start_live_tail(logGroupIdentifiers=[group], logEventFilterPattern="printed")["responseStream"]
    events = iter(session)
    assert next(events)["sessionStart"]["logGroupIdentifiers"] == [group]
    assert next(events)["sessionUpdate"]["sessionResults"] == [], "what was there before is not shown"
    node.invoke(name, 1)
    shown = next(results for results in (event["sessionUpdate"]["sessionResults"] for event in events) if results)
    session.close()
    assert [event["message"] for event in shown] == ["printed é\n"]
    assert shown[0]["logGroupIdentifier"] == f"000000000000:/aws/lambda/{name}"
    assert "[$LATEST]" in shown[0]["logStreamName"]
