"""Asynchronous invocation: events, their configuration, retries, destinations, dead letters, and what a crash leaves."""

import contextlib
import hashlib
import http.server
import json
import random
import subprocess
import sys
import threading
import time

import boto3
import pytest
from botocore.exceptions import ClientError, HTTPClientError
from conftest import Node, binary, plain
from moto.server import ThreadedMotoServer

CODE = """
import time
def handler(event, context):
    print("ran", context.aws_request_id)
    time.sleep(event.get("sleep", 0))
    if event.get("fail"):
        raise ValueError("boom")
    return {"got": event.get("n")}
"""
ACCOUNT = "000000000000"
FAST = ["--set", "events.retry_delay=50ms", "--set", "events.local_urls=true"]


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


def lambent(node, *arguments):
    """Runs a client command of Lambent's own and returns what it prints as JSON."""
    command = [binary(), "--json", *arguments, "--data-dir", str(node.data_dir)]
    done = subprocess.run(command, env=plain(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def queue(name):
    return f"arn:aws:lambent:us-east-1:{ACCOUNT}:queue/{name}"


def messages(node, name):
    """Content of a built-in queue, parsed."""
    found = lambent(node, "dead-letters", "list", "--queue", name)
    shown = (lambent(node, "dead-letters", "show", str(event["id"])) for event in found)
    return [json.loads(event["payload"]) for event in shown]


def send(client, name, payload, **parameters):
    response = client.invoke(FunctionName=name, InvocationType="Event", Payload=json.dumps(payload), **parameters)
    assert response["StatusCode"] == 202 and response["Payload"].read() == b""
    return response["ResponseMetadata"]["RequestId"]


@pytest.fixture(scope="module")
def aws():
    """A real implementation of SQS, and a client for it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def running(tmp_path_factory, aws):
    if binary() is None:
        pytest.skip("no lambent binary: build it, or name it in LAMBENT_BIN")
    keys = ["--set", "aws.access_key_id=testing", "--set", "aws.secret_access_key=testing"]
    node = Node(tmp_path_factory.mktemp("events") / "data", *FAST, "--aws-endpoint", aws, *keys)
    yield node
    assert node.stop() == 0, node.log_path.read_text()[-4000:]


@pytest.fixture
def node(running):
    yield running
    running.forget()


@pytest.fixture
def client(node):
    return node.client("lambda")


def refused(call, **parameters):
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    error = caught.value.response
    return error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"], error["Error"]["Message"]


def test_an_event_runs_and_its_record_is_as_aws_writes_it(node, client):
    name = node.create({"app.py": CODE})
    results = node.name("results")
    config = {"OnSuccess": {"Destination": queue(results)}}
    client.put_function_event_invoke_config(FunctionName=name, DestinationConfig=config)
    request = send(client, name, {"n": 1})
    (record,) = wait_until(lambda: messages(node, results))
    timestamp = record.pop("timestamp")
    assert len(timestamp) == 24 and timestamp.endswith("Z")
    assert record == {
        "version": "1.0",
        "requestContext": {
            "requestId": request,
            "functionArn": f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{name}:$LATEST",
            "condition": "Success",
            "approximateInvokeCount": 1,
        },
        "requestPayload": {"n": 1},
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST"},
        "responsePayload": {"got": 1},
    }
    assert lambent(node, "events", "list", "--function", name) == []


def test_a_failing_event_is_tried_three_times_and_kept_with_its_reason(node, client):
    name = node.create({"app.py": CODE})
    request = send(client, name, {"fail": True})
    (letter,) = wait_until(lambda: lambent(node, "dead-letters", "list", "--function", name))
    assert (letter["request_id"], letter["attempts"], letter["failures"]) == (request, 3, 3)
    assert letter["reason"] == "RetriesExhausted: boom"
    shown = lambent(node, "dead-letters", "show", request)
    assert json.loads(shown["payload"]) == {"fail": True}
    assert lambent(node, "dead-letters", "retry", request) == {"retried": 1}
    (letter,) = wait_until(lambda: lambent(node, "dead-letters", "list", "--function", name))
    assert letter["attempts"] == 6
    assert lambent(node, "dead-letters", "drop", str(letter["id"])) == {"dropped": 1}
    assert lambent(node, "dead-letters", "purge", "--function", name) == {"dropped": 0}


def test_what_is_no_event_is_refused_in_awss_words(node, client):
    name = node.create({"app.py": CODE})
    most = 1024 * 1024
    assert client.invoke(FunctionName=name, InvocationType="Event", Payload=b'"' + b"x" * (most - 2) + b'"')
    code, status, text = refused(
        client.invoke, FunctionName=name, InvocationType="Event", Payload=b'"' + b"x" * (most - 1) + b'"'
    )
    assert (code, status) == ("RequestEntityTooLargeException", 413)
    assert text == "1048577 byte payload is too large for the Event invocation type (limit 1048576 bytes)"
    code, status, _ = refused(client.invoke, FunctionName=name, InvocationType="Event", Payload=b"{")
    assert (code, status) == ("InvalidRequestContentException", 400)
    code, status, _ = refused(client.invoke, FunctionName="nobody", InvocationType="Event", Payload=b"{}")
    assert (code, status) == ("ResourceNotFoundException", 404)


def test_invoke_async(node, client):
    name = node.create({"app.py": CODE})
    results = node.name("results")
    config = {"OnSuccess": {"Destination": queue(results)}}
    client.put_function_event_invoke_config(FunctionName=name, DestinationConfig=config)
    assert client.invoke_async(FunctionName=name, InvokeArgs=b'{"n": 2}')["Status"] == 202
    assert wait_until(lambda: messages(node, results))[0]["responsePayload"] == {"got": 2}


def test_the_command_line_sends_events(node, client, tmp_path):
    name = node.create({"app.py": CODE})
    command = [sys.executable, "-m", "awscli", "lambda", "invoke", "--function-name", name]
    command += ["--invocation-type", "Event", "--payload", '{"fail": true}', str(tmp_path / "out")]
    done = subprocess.run(command, env=node.environment(), capture_output=True, text=True, timeout=120)
    assert json.loads(done.stdout) == {"StatusCode": 202}, done.stderr
    wait_until(lambda: lambent(node, "dead-letters", "list", "--function", name))


def test_event_invoke_configs_live_as_on_aws(node, client):
    name = node.create({"app.py": CODE})
    arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{name}"
    missing = ("ResourceNotFoundException", 404, f"The function {arn}:$LATEST doesn't have an EventInvokeConfig")
    assert refused(client.get_function_event_invoke_config, FunctionName=name) == missing
    assert refused(client.update_function_event_invoke_config, FunctionName=name, MaximumRetryAttempts=1) == missing
    assert refused(client.delete_function_event_invoke_config, FunctionName=name) == missing
    put = client.put_function_event_invoke_config(FunctionName=name, MaximumRetryAttempts=1)
    assert (put["FunctionArn"], put["MaximumRetryAttempts"]) == (arn + ":$LATEST", 1)
    assert put["DestinationConfig"] == {"OnSuccess": {}, "OnFailure": {}} and "MaximumEventAgeInSeconds" not in put
    updated = client.update_function_event_invoke_config(FunctionName=name, MaximumEventAgeInSeconds=60)
    assert (updated["MaximumRetryAttempts"], updated["MaximumEventAgeInSeconds"]) == (1, 60)
    version = client.publish_version(FunctionName=name)["Version"]
    destination = {"OnFailure": {"Destination": f"arn:aws:sqs:us-east-1:{ACCOUNT}:q"}}
    client.put_function_event_invoke_config(FunctionName=name, Qualifier=version, DestinationConfig=destination)
    listed = client.list_function_event_invoke_configs(FunctionName=name)["FunctionEventInvokeConfigs"]
    assert [config["FunctionArn"] for config in listed] == [arn + ":$LATEST", f"{arn}:{version}"]
    assert listed[1]["DestinationConfig"]["OnFailure"] == destination["OnFailure"]
    client.put_function_event_invoke_config(FunctionName=name, MaximumEventAgeInSeconds=100)
    got = client.get_function_event_invoke_config(FunctionName=name)
    assert got["MaximumEventAgeInSeconds"] == 100 and "MaximumRetryAttempts" not in got, "put replaces"
    client.delete_function_event_invoke_config(FunctionName=name)
    assert refused(client.get_function_event_invoke_config, FunctionName=name) == missing


def test_event_invoke_configs_that_cannot_be_are_refused(node, client):
    name, put = node.create({"app.py": CODE}), client.put_function_event_invoke_config
    arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:"
    invalid = ("InvalidParameterValueException", 400)
    assert refused(put, FunctionName=name) == (
        *invalid,
        "You must specify at least one of error handling or destination setting.",
    )
    absent = ("ResourceNotFoundException", 404, "The function doesn't exist.")
    assert refused(put, FunctionName="nobody", MaximumRetryAttempts=0) == absent
    assert refused(put, FunctionName=name, Qualifier="nowhere", MaximumRetryAttempts=0) == absent

    def to(destination):
        return refused(put, FunctionName=name, DestinationConfig={"OnSuccess": {"Destination": destination}})

    assert to(arn + name) == (*invalid, "You can't specify the function as a destination for itself.")
    assert to(arn + "nobody") == (*invalid, f"The destination ARN {arn}nobody is invalid.")
    table = f"arn:aws:dynamodb:us-east-1:{ACCOUNT}:table/x"
    assert to(table)[2] == (
        "The provided destination config DestinationConfig(onSuccess=OnSuccess(destination="
        f"{table}), onFailure=null) is invalid."
    )
    assert to(f"arn:aws:sns:us-east-1:{ACCOUNT}:topic")[:2] == ("NotImplementedException", 501)


def test_outcomes_go_to_a_real_sqs(node, client, aws):
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    sqs = boto3.client("sqs", endpoint_url=aws, region_name="us-east-1", **keys)
    made = {kind: sqs.create_queue(QueueName=node.name(kind))["QueueUrl"] for kind in ("ok", "no", "dead")}

    def arn(kind):
        asked = sqs.get_queue_attributes(QueueUrl=made[kind], AttributeNames=["QueueArn"])
        return asked["Attributes"]["QueueArn"]

    def receive(kind):
        asked = {"WaitTimeSeconds": 1, "MessageAttributeNames": ["All"]}
        return sqs.receive_message(QueueUrl=made[kind], **asked).get("Messages")

    name = node.create({"app.py": CODE}, DeadLetterConfig={"TargetArn": arn("dead")})
    config = {"OnSuccess": {"Destination": arn("ok")}, "OnFailure": {"Destination": arn("no")}}
    client.put_function_event_invoke_config(FunctionName=name, MaximumRetryAttempts=1, DestinationConfig=config)
    send(client, name, {"n": 3})
    (message,) = wait_until(lambda: receive("ok"))
    assert json.loads(message["Body"])["responsePayload"] == {"got": 3}
    request = send(client, name, {"fail": True})
    (message,) = wait_until(lambda: receive("no"))
    record = json.loads(message["Body"])
    assert record["requestContext"]["condition"] == "RetriesExhausted"
    assert record["requestContext"]["approximateInvokeCount"] == 2
    assert record["responseContext"]["functionError"] == "Unhandled"
    assert record["responsePayload"]["errorMessage"] == "boom"
    (message,) = wait_until(lambda: receive("dead"))
    assert json.loads(message["Body"]) == {"fail": True}
    attributes = {key: value["StringValue"] for key, value in message["MessageAttributes"].items()}
    assert attributes == {"RequestID": request, "ErrorCode": "200", "ErrorMessage": "boom"}


def test_a_destination_that_is_not_there_leaves_the_record_in_the_dead_letters(node, client):
    name = node.create({"app.py": CODE})
    config = {"OnSuccess": {"Destination": f"arn:aws:sqs:us-east-1:{ACCOUNT}:none-such"}}
    client.put_function_event_invoke_config(FunctionName=name, DestinationConfig=config)
    request = send(client, name, {"n": 4})

    def buried():
        found = lambent(node, "dead-letters", "list")
        return [event for event in found if event["request_id"] == request]

    (letter,) = wait_until(buried)
    assert "could not be delivered to arn:aws:sqs" in letter["reason"] and "400" in letter["reason"]
    assert lambent(node, "dead-letters", "drop", request) == {"dropped": 1}


def test_outcomes_go_to_an_http_url(node, client):
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            # The first time the receiver is unwell.
            seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(503 if len(seen) == 1 else 204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    name = node.create({"app.py": CODE})
    url = f"arn:aws:lambent:us-east-1:{ACCOUNT}:url/http://127.0.0.1:{server.server_port}/hook"
    config = {"OnSuccess": {"Destination": url}}
    client.put_function_event_invoke_config(FunctionName=name, DestinationConfig=config)
    send(client, name, {"n": 5})
    wait_until(lambda: len(seen) == 2)
    assert seen[0] == seen[1] and seen[0]["responsePayload"] == {"got": 5}
    server.shutdown()
    server.server_close()


def test_functions_that_call_each_other_without_end_are_stopped(node, client):
    first, second = node.create({"app.py": CODE}), node.create({"app.py": CODE})
    arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:"
    for name, other in ((first, second), (second, first)):
        config = {"OnSuccess": {"Destination": arn + other}}
        client.put_function_event_invoke_config(FunctionName=name, DestinationConfig=config)
    send(client, first, {"n": 6})
    (letter,) = wait_until(lambda: lambent(node, "dead-letters", "list", "--function", first))
    assert "recursive loop" in letter["reason"] and letter["failures"] == 0
    shown = json.loads(lambent(node, "dead-letters", "show", str(letter["id"]))["payload"])
    depth = 0
    while "requestPayload" in shown:
        shown, depth = shown["requestPayload"], depth + 1
    assert depth == 32, "sixteen times each"


def test_a_synchronous_call_adds_to_the_chain_that_it_is_part_of(node, client):
    name = node.create({"app.py": CODE})
    arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{name}"
    hashed = hashlib.sha256(arn.encode()).hexdigest()[:8]

    def call(lineage):
        def add(request, **_):
            request.headers["X-Amzn-Trace-Id"] = f"Root=1-5759e988-bd862e3fe1be46a994272793{lineage}"

        client.meta.events.register("before-sign.lambda.Invoke", add)
        try:
            return client.invoke(FunctionName=name, Payload=json.dumps({"n": 1}))
        finally:
            client.meta.events.unregister("before-sign.lambda.Invoke", add)

    passed = call(f";Lineage=1:{hashed}:3")["ResponseMetadata"]["HTTPHeaders"]["x-amzn-trace-id"]
    assert passed.endswith(f"Lineage=1:{hashed}:4")
    with pytest.raises(client.exceptions.RecursiveInvocationException, match="recursive loop"):
        call(f";Lineage=1:{hashed}:15")
    client.put_function_recursion_config(FunctionName=name, RecursiveLoop="Allow")
    assert call(f";Lineage=1:{hashed}:15")["StatusCode"] == 200
    assert "Lineage" not in call("")["ResponseMetadata"]["HTTPHeaders"]["x-amzn-trace-id"]


def test_a_function_that_is_turned_off_gets_no_events(node, client):
    name = node.create({"app.py": CODE}, DeadLetterConfig={"TargetArn": queue("off")})
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    send(client, name, {"n": 7})
    (letter,) = wait_until(lambda: lambent(node, "dead-letters", "list", "--queue", "off"))
    assert {key: value for key, _, value in letter["attributes"]}["ErrorCode"] == "429"


def test_throttled_events_wait_and_run(node, client):
    name = node.create({"app.py": CODE})
    results = node.name("results")
    config = {"OnSuccess": {"Destination": queue(results)}}
    client.put_function_event_invoke_config(FunctionName=name, DestinationConfig=config)
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    for n in range(4):
        send(client, name, {"n": n, "sleep": 0.2})
    found = wait_until(lambda: len(messages(node, results)) == 4 and messages(node, results))
    assert sorted(record["responsePayload"]["got"] for record in found) == [0, 1, 2, 3]
    assert {record["requestContext"]["approximateInvokeCount"] for record in found} == {1}


@pytest.fixture
def start(tmp_path):
    """Starts a node on the test's own data; ends it with the test."""
    if binary() is None:
        pytest.skip("no lambent binary: build it, or name it in LAMBENT_BIN")
    nodes = []

    def run():
        nodes.append(Node(tmp_path / "data", *FAST))
        return nodes[-1]

    yield run
    for node in nodes:
        if node.process.poll() is None:
            node.kill()


def function_with_results(node):
    name = node.create({"app.py": CODE}, Timeout=60)
    config = {"OnSuccess": {"Destination": queue("results")}}
    node.client("lambda").put_function_event_invoke_config(FunctionName=name, DestinationConfig=config)
    return name


def test_an_event_that_ran_when_the_node_was_killed_runs_again(start):
    node = start()
    name = function_with_results(node)
    request = send(node.client("lambda"), name, {"n": 8, "sleep": 1.5})
    wait_until(lambda: [e for e in lambent(node, "events", "list") if e["state"] == "running"])
    node.kill()
    again = start()
    (record,) = wait_until(lambda: messages(again, "results"))
    assert record["requestContext"]["requestId"] == request
    (message,) = lambent(again, "dead-letters", "list", "--queue", "results")
    assert message["request_id"] == request


def test_an_event_that_had_not_begun_when_the_node_was_killed_runs(start):
    node = start()
    name = function_with_results(node)
    client = node.client("lambda")
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)

    def block():
        with contextlib.suppress(HTTPClientError):  # the node is killed meanwhile
            node.invoke(name, {"sleep": 30})

    blocker = threading.Thread(target=block)
    blocker.start()
    wait_until(lambda: node.client("logs").describe_log_groups()["logGroups"])
    request = send(client, name, {"n": 9})
    node.kill()
    blocker.join()
    again = start()
    (record,) = wait_until(lambda: messages(again, "results"))
    assert (record["requestContext"]["requestId"], record["responsePayload"]) == (request, {"got": 9})


def test_kills_at_any_moment_lose_nothing_and_leave_one_record_each(start):
    rolls = random.Random(4)
    node = start()
    name = function_with_results(node)
    accepted = set()
    for _ in range(3):
        client, told = node.client("lambda"), []

        def flood(client=client, told=told):
            try:
                while True:
                    told.append(send(client, name, {"n": 0}))
            except HTTPClientError:  # the node is gone
                return

        sender = threading.Thread(target=flood)
        sender.start()
        most = rolls.randrange(20, 60)
        wait_until(lambda told=told, most=most: len(told) >= most)
        node.kill()
        sender.join()
        accepted.update(told)
        node = start()
    wait_until(lambda: lambent(node, "events", "list") == [], 120)
    records = [message["request_id"] for message in lambent(node, "dead-letters", "list", "--queue", "results")]
    assert accepted <= set(records), "lost"
    assert len(records) == len(set(records)), "a run and its record are one commit"
    assert lambent(node, "dead-letters", "list") == []
