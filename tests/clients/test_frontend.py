"""The front end over the wire: who gets in, what is refused and how, and the logs API with its real clients."""

import base64
import datetime
import hashlib
import json
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest

HELLO = """
def handler(event, context):
    for line in event.get("lines", []):
        print(line)
    return event
"""


def send(node, method, path, body=None, headers=None):
    """`(status, headers, body)` of a request as it is."""
    url = path if path.startswith("http") else node.endpoint + path
    request = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def signed(node, method, path, body=b"", service="lambda", at=None, key_id=None, secret=None, region=None, extra=None):
    """Headers of a request signed by botocore, at another time where `at` (seconds from now) is given."""
    credentials = botocore.credentials.Credentials(
        key_id or node.key["access_key_id"], secret or node.key["secret_access_key"]
    )
    request = botocore.awsrequest.AWSRequest(method, node.endpoint + path, data=body, headers=dict(extra or {}))
    signer = botocore.auth.SigV4Auth(credentials, service, region or node.key["region"])
    if at is None:
        signer.add_auth(request)
    else:
        moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=at)
        request.context["timestamp"] = moment.strftime("%Y%m%dT%H%M%SZ")
        signer._modify_request_before_signing(request)
        del request.headers["X-Amz-Date"]
        request.headers["X-Amz-Date"] = request.context["timestamp"]
        signer._inject_signature_to_request(
            request, signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
        )
    return dict(request.headers)


def refused(answer):
    status, headers, body = answer
    return status, headers["x-amzn-ErrorType"], json.loads(body).get("message")


FUNCTIONS = "/2015-03-31/functions/"


def test_a_stranger_gets_what_aws_would_answer(node):
    assert refused(send(node, "GET", FUNCTIONS)) == (
        403,
        "MissingAuthenticationTokenException",
        "Missing Authentication Token",
    )
    wrong_key = signed(node, "GET", FUNCTIONS, key_id="AKIANOBODYNOBODY0000")
    assert refused(send(node, "GET", FUNCTIONS, headers=wrong_key)) == (
        403,
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
    )
    wrong_secret = signed(node, "GET", FUNCTIONS, secret="wrong")
    status, code, message = refused(send(node, "GET", FUNCTIONS, headers=wrong_secret))
    assert (status, code) == (403, "InvalidSignatureException")
    assert message.startswith("The request signature we calculated does not match the signature you provided.")
    for seconds, start in [(-600, "Signature expired: "), (600, "Signature not yet current: ")]:
        old = signed(node, "GET", FUNCTIONS, at=seconds)
        status, code, message = refused(send(node, "GET", FUNCTIONS, headers=old))
        assert (status, code) == (403, "InvalidSignatureException")
        assert message.startswith(start)
    elsewhere = signed(node, "GET", FUNCTIONS, region="eu-west-3")
    _, code, message = refused(send(node, "GET", FUNCTIONS, headers=elsewhere))
    assert (code, message) == (
        "InvalidSignatureException",
        "Credential should be scoped to a valid region, not 'eu-west-3'.",
    )
    other_service = signed(node, "GET", FUNCTIONS, service="s3")
    assert "correct service: 'lambda'" in refused(send(node, "GET", FUNCTIONS, headers=other_service))[2]


def test_a_signed_body_cannot_be_exchanged(node):
    path = "/2015-03-31/functions/none/invocations"
    headers = signed(node, "POST", path, b'{"a":1}')
    assert refused(send(node, "POST", path, b'{"a":2}', headers))[1] == "InvalidSignatureException"
    digest = {"x-amz-content-sha256": hashlib.sha256(b'{"a":1}').hexdigest()}
    headers = signed(node, "POST", path, b'{"a":1}', extra=digest)
    assert refused(send(node, "POST", path, b'{"a":2}', headers))[1] == "InvalidSignatureException"
    assert send(node, "POST", path, b'{"a":1}', headers)[0] == 404


def test_presigned_requests_are_accepted(node):
    url = node.client("lambda").generate_presigned_url("list_functions", Params={"MaxItems": 1})
    status, _, body = send(node, "GET", url)
    assert status == 200
    assert "Functions" in json.loads(body)
    tampered = url.replace("MaxItems=1", "MaxItems=2")
    assert refused(send(node, "GET", tampered))[1] == "InvalidSignatureException"


def test_unknown_paths_and_oversized_bodies(node):
    path = "/2015-03-31/nothing"
    status, headers, _ = send(node, "GET", path, headers=signed(node, "GET", path))
    assert (status, headers["x-amzn-ErrorType"]) == (404, "UnknownOperationException")
    path = "/2015-03-31/functions/none/invocations"
    body = b'"' + b"x" * 6_291_456 + b'"'
    try:
        answer = send(node, "POST", path, body, signed(node, "POST", path, body))
    except (ConnectionError, urllib.error.URLError):
        return  # The node does not read what is too large, so the client may not live to read the answer.
    assert refused(answer)[:2] == (413, "RequestTooLargeException")


def test_payloads_and_contexts_that_cannot_be_read(node, lambda_):
    name = node.create({"app.py": HELLO})
    for payload, said in [(b"xyz", "Unrecognized token 'xyz'"), (b'{"a":', "Unexpected end-of-input")]:
        with pytest.raises(lambda_.exceptions.InvalidRequestContentException) as refusal:
            lambda_.invoke(FunctionName=name, Payload=payload)
        message = refusal.value.response["Error"]["Message"]
        assert message.startswith(f"Could not parse request body into json: Could not parse payload into json: {said}")
    with pytest.raises(lambda_.exceptions.InvalidRequestContentException):
        lambda_.invoke(FunctionName=name, ClientContext="no base64!")
    response = lambda_.invoke(FunctionName=name)
    assert json.loads(response["Payload"].read()) == {}
    assert "X-Amzn-Trace-Id".lower() in response["ResponseMetadata"]["HTTPHeaders"]
    context = base64.b64encode(b'{"client":{}}').decode()
    assert lambda_.invoke(FunctionName=name, ClientContext=context)["StatusCode"] == 200
    assert lambda_.invoke(FunctionName=name, InvocationType="DryRun")["StatusCode"] == 204


def test_a_response_stream_is_framed_as_aws_frames_it(node, lambda_):
    name = node.create({"app.py": HELLO})
    answer = lambda_.invoke_with_response_stream(FunctionName=name, Payload=b'{"a": 1}', LogType="Tail")
    assert answer["ExecutedVersion"] == "$LATEST"
    events = list(answer["EventStream"])
    chunks = b"".join(event["PayloadChunk"]["Payload"] for event in events if "PayloadChunk" in event)
    assert json.loads(chunks) == {"a": 1}
    assert "ErrorCode" not in events[-1]["InvokeComplete"]
    assert b"REPORT RequestId" in base64.b64decode(events[-1]["InvokeComplete"]["LogResult"])


def test_who_am_i(node):
    identity = node.client("sts").get_caller_identity()
    assert identity["Account"] == "000000000000"
    assert identity["Arn"] == "arn:aws:iam::000000000000:root"


def wait_for_events(logs, group, pattern, count):
    """Events of a group, once there are so many: logs are stored in batches."""
    deadline = datetime.datetime.now() + datetime.timedelta(seconds=30)
    while datetime.datetime.now() < deadline:
        try:
            events = logs.filter_log_events(logGroupName=group, filterPattern=pattern)["events"]
        except logs.exceptions.ResourceNotFoundException:
            continue
        if len(events) >= count:
            return events
    raise AssertionError(f"no {count} events of {pattern!r}")


def test_logs_are_read_forwards_backwards_and_by_filter(node, logs):
    name = node.create({"app.py": HELLO})
    group = f"/aws/lambda/{name}"
    lines = [f"line {number}" for number in range(10)] + [json.dumps({"level": "ERROR", "ms": 7})]
    node.invoke(name, {"lines": lines})
    assert len(wait_for_events(logs, group, "line", 10)) == 10
    assert [event["message"].strip() for event in wait_for_events(logs, group, '"line 3"', 1)] == ["line 3"]
    assert len(wait_for_events(logs, group, '{ $.level = "ERROR" && $.ms > 5 }', 1)) == 1
    described = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"][0]
    assert described["logGroupName"] == group
    stream = logs.describe_log_streams(logGroupName=group)["logStreams"][0]["logStreamName"]
    everything = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True)["events"]

    forwards, token = [], {}
    while True:
        page = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True, limit=4, **token)
        if page["nextForwardToken"] == token.get("nextToken"):
            break
        forwards += page["events"]
        token = {"nextToken": page["nextForwardToken"]}
    assert forwards == everything

    backwards, token = [], {}
    while True:
        page = logs.get_log_events(logGroupName=group, logStreamName=stream, limit=4, **token)
        if page["nextBackwardToken"] == token.get("nextToken"):
            break
        backwards = page["events"] + backwards
        token = {"nextToken": page["nextBackwardToken"]}
    assert backwards == everything

    pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group, PaginationConfig={"PageSize": 3})
    assert [event["message"] for page in pages for event in page["events"]] == [e["message"] for e in everything]


def test_retention_and_groups_are_managed(node, logs):
    group = node.name("/test/group")
    logs.create_log_group(logGroupName=group)
    with pytest.raises(logs.exceptions.ResourceAlreadyExistsException):
        logs.create_log_group(logGroupName=group)
    logs.put_retention_policy(logGroupName=group, retentionInDays=7)
    assert logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"][0]["retentionInDays"] == 7
    with pytest.raises(logs.exceptions.InvalidParameterException):
        logs.put_retention_policy(logGroupName=group, retentionInDays=8)
    logs.delete_retention_policy(logGroupName=group)
    assert "retentionInDays" not in logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"][0]
    logs.delete_log_group(logGroupName=group)
    with pytest.raises(logs.exceptions.ResourceNotFoundException):
        logs.delete_log_group(logGroupName=group)
    with pytest.raises(logs.exceptions.InvalidParameterException) as refusal:
        logs.filter_log_events(logGroupName="a b")
    assert refusal.value.response["Error"]["Message"].startswith("1 validation error detected: Value 'a b' at 'logGroupName'")


def test_the_command_line_reads_logs(node, logs):
    name = node.create({"app.py": HELLO})
    group = f"/aws/lambda/{name}"
    node.invoke(name, {"lines": ["a line to find"]})
    wait_for_events(logs, group, "find", 1)
    aws = Path(sys.executable).with_name("aws")
    # What `aws logs tail` of the second command line sends; the first, which PyPI has, knows no `tail`.
    command = [str(aws), "logs", "filter-log-events", "--log-group-name", group, "--start-time", "1", "--interleaved"]
    shown = subprocess.run(
        command, check=False, env=node.environment(), capture_output=True, text=True, timeout=120
    )
    assert shown.returncode == 0, shown.stderr
    assert "a line to find" in [event["message"].strip() for event in json.loads(shown.stdout)["events"]]
