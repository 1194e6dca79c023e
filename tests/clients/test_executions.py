"""Idempotent executions: keys, dependencies, what is on record, and what a crash leaves of it."""

import contextlib
import http.server
import json
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import boto3
import botocore.awsrequest
import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from conftest import Node, binary, plain
from moto.server import ThreadedMotoServer

# Each run adds a line to its log; the answer is different every time.
CODE = """
import time, uuid
def handler(event, context):
    time.sleep(event.get("sleep", 0))
    if event.get("fail"):
        raise ValueError("boom")
    return {"run": str(uuid.uuid4())}
"""


def lambent(node, *arguments):
    """Runs a client command of Lambent's own and returns what it prints as JSON."""
    command = [binary(), "--json", *arguments, "--data-dir", str(node.data_dir)]
    done = subprocess.run(command, env=plain(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def call(node, name, payload, headers=None):
    """An invocation by bare HTTP, as boto3 has no way to send headers of one's own: the response and its `X-Lambent-Execution`."""
    url = f"{node.endpoint}/2015-03-31/functions/{name}/invocations"
    request = botocore.awsrequest.AWSRequest("POST", url, data=json.dumps(payload), headers=headers or {})
    credentials = Credentials(node.key["access_key_id"], node.key["secret_access_key"])
    SigV4Auth(credentials, "lambda", node.key["region"]).add_auth(request)
    response = requests.post(url, data=request.body, headers=dict(request.headers), timeout=60)
    return response, response.headers.get("x-lambent-execution")


def key(text):
    return {"X-Lambent-Idempotency-Key": text}


@pytest.fixture
def function(node):
    return node.create({"app.py": CODE})


def test_off_is_the_default(node, function):
    first, execution = call(node, function, {})
    assert execution is None
    assert call(node, function, {})[0].json() != first.json()
    assert lambent(node, "executions", "configure", function)["mode"] == "off"


def test_a_key_runs_once(node, function):
    first, execution = call(node, function, {"a": 1}, key("one"))
    kind, record = execution.split("; record=")
    assert kind == "ran"
    again, execution = call(node, function, {"a": 1}, key("one"))
    assert again.json() == first.json()
    assert execution.startswith(f"reused; record={record}; age=")
    assert again.headers["x-amzn-requestid"] != first.headers["x-amzn-requestid"]
    assert call(node, function, {"a": 1}, key("two"))[0].json() != first.json()
    shown = lambent(node, "executions", "show", record)
    assert (shown["state"], shown["key"], json.loads(shown["answer"])) == ("finished", "one", first.json())
    assert lambent(node, "executions", "drop", record) == {"dropped": 1}
    assert call(node, function, {"a": 1}, key("one"))[0].json() != first.json()


def test_what_cannot_be_is_refused(node, function):
    call(node, function, {"a": 1}, key("one"))
    for payload, headers, code in [
        ({"a": 2}, key("one"), "IdempotentParameterMismatchException"),
        ({}, {"X-Lambent-Idempotency": "maybe"}, "InvalidParameterValueException"),
        ({}, {"X-Lambent-Idempotency": "key"}, "InvalidParameterValueException"),
        ({}, {"X-Lambent-Idempotency": "off", **key("one")}, "InvalidParameterValueException"),
        ({}, key("k" * 256), "InvalidParameterValueException"),
        ({}, {"X-Amz-Invocation-Type": "Event", **key("one")}, "InvalidParameterValueException"),
    ]:
        response, execution = call(node, function, payload, headers)
        assert (response.status_code, response.headers["x-amzn-errortype"], execution) == (400, code, None)
    command = [binary(), "executions", "configure", function, "--mode", "key", "--key", "not a path"]
    done = subprocess.run(
        [*command, "--data-dir", str(node.data_dir)], env=plain(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert '"not a path" is no JSONPath' in done.stderr


def test_the_key_is_taken_from_the_payload_for_boto3_and_for_events(node, function, lambda_):
    lambent(node, "executions", "configure", function, "--mode", "key", "--key", "$.order")
    answers = [node.invoke(function, {"order": 7})[1] for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert node.invoke(function, {"order": 8})[1] != answers[0]
    with pytest.raises(ClientError) as refused:
        node.invoke(function, {"order": 7, "amount": 1})
    assert refused.value.response["Error"]["Code"] == "IdempotentParameterMismatchException"
    off = {"X-Lambent-Idempotency": "off"}
    assert call(node, function, {"order": 7}, off)[0].json() != answers[0]


def test_concurrent_requests_share_a_run(node, function):
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(call, node, function, {"sleep": 1}, key("shared")) for _ in range(16)]
        answers = [each.result() for each in asked]
    assert len({response.text for response, _ in answers}) == 1
    assert sorted(execution.split(";")[0] for _, execution in answers) == ["ran"] + ["reused"] * 15


def test_failures_run_again_unless_asked(node, function):
    response, execution = call(node, function, {"fail": True}, key("fails"))
    assert response.headers["x-amz-function-error"] == "Unhandled"
    assert execution == "ran"
    assert call(node, function, {"fail": True}, key("fails"))[1] == "ran"
    lambent(node, "executions", "configure", function, "--mode", "off", "--reuse-errors")
    assert call(node, function, {"fail": True}, key("fails"))[1].startswith("ran; record=")
    response, execution = call(node, function, {"fail": True}, key("fails"))
    assert response.headers["x-amz-function-error"] == "Unhandled"
    assert execution.startswith("reused; ")


def test_a_new_version_of_the_code_runs(node, function, lambda_):
    lambent(node, "executions", "configure", function, "--mode", "dependencies", "--input", "$.a")
    first = node.invoke(function, {"a": 1, "b": 1})[1]
    assert node.invoke(function, {"a": 1, "b": 2})[1] == first
    assert node.invoke(function, {"a": 2})[1] != first
    lambda_.update_function_configuration(FunctionName=function, Description="new", MemorySize=256)
    lambda_.get_waiter("function_updated_v2").wait(FunctionName=function, WaiterConfig={"Delay": 0.1})
    second = node.invoke(function, {"a": 1})[1]
    assert second != first
    assert node.invoke(function, {"a": 1})[1] == second


class Resource(http.server.BaseHTTPRequestHandler):
    etag = '"1"'

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("ETag", type(self).etag)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def resource():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Resource)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def test_resources_files_and_functions_are_looked_at(tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    (files / "model").write_text("one")
    (tmp_path / "secret").write_text("outside")
    (files / "link").symlink_to(tmp_path / "secret")
    with resource() as port, contextlib.ExitStack() as cleanup:
        settings = ["--set", f'executions.files=["{files}"]', "--set", f'executions.hosts=["127.0.0.1:{port}"]']
        node = Node(tmp_path / "node", *settings)
        cleanup.callback(node.stop)
        other = node.create({"app.py": CODE})
        name = node.create({"app.py": CODE})
        on = [f"http://127.0.0.1:{port}/{{$.path}}", f"file://{files}/model", f"function:{other}"]
        arguments = [argument for each in on for argument in ("--on", each)]
        lambent(node, "executions", "configure", name, "--mode", "dependencies", *arguments)

        def ran():
            return call(node, name, {"path": "a"})[1]

        first = ran()
        assert first.startswith("ran; record=")
        assert ran().startswith("reused; ")
        Resource.etag = '"2"'
        why = lambent(node, "executions", "why", first.split("record=")[1])
        assert [each["name"] for each in why["dependencies"] if not each["is_unchanged"]] == [
            f"http://127.0.0.1:{port}/a"
        ]
        assert ran().startswith("ran; ")
        assert ran().startswith("reused; ")
        (files / "model").write_text("two")
        assert ran().startswith("ran; ")
        node.client("lambda").update_function_configuration(FunctionName=other, MemorySize=256)
        node.client("lambda").get_waiter("function_updated_v2").wait(FunctionName=other, WaiterConfig={"Delay": 0.1})
        assert ran().startswith("ran; ")
        assert ran().startswith("reused; ")

        # What may not be looked at: the function runs, and why says so without a word of what is there.
        for closed in [
            "http://127.0.0.1:1/",
            "http://169.254.169.254/latest/meta-data/",
            "http://localhost/",
            "http://[::ffff:127.0.0.1]/",
            f"file://{tmp_path}/secret",
            f"file://{files}/link",
            f"file://{files}/../secret",
            "file:///proc/self/environ",
        ]:
            lambent(node, "executions", "configure", name, "--mode", "dependencies", "--on", closed)
            assert ran().startswith("ran; ")
            execution = ran()
            assert execution.startswith("ran; ")
            reason = lambent(node, "executions", "why", execution.split("record=")[1])
            assert reason["is_reusable"] is False
            assert [each["current"] for each in reason["dependencies"][1:]] == [None]


def test_records_are_the_accounts_own_and_go_by_function(node, function):
    call(node, function, {}, key("mine"))
    listed = lambent(node, "executions", "list", "--function", function)
    assert [record["key"] for record in listed] == ["mine"]
    assert lambent(node, "executions", "drop", "--function", function) == {"dropped": 1}
    assert lambent(node, "executions", "list", "--function", function) == []


def test_an_answer_survives_a_crash_and_a_run_that_did_not_end_runs_again(tmp_path):
    node = Node(tmp_path / "node")
    try:
        name = node.create({"app.py": CODE})
        first = call(node, name, {}, key("done"))[0].json()
        with ThreadPoolExecutor(1) as pool:
            broken = pool.submit(call, node, name, {"sleep": 2}, key("broken"))
            while not any(record["key"] == "broken" for record in lambent(node, "executions", "list")):
                pass
            node.kill()
            with pytest.raises(requests.ConnectionError):
                broken.result()
    finally:
        node.kill()
    node = Node(tmp_path / "node")
    try:
        again, execution = call(node, name, {}, key("done"))
        assert (again.json(), execution.split(";")[0]) == (first, "reused")
        assert call(node, name, {"sleep": 2}, key("broken"))[1].startswith("ran; ")
        records = lambent(node, "executions", "list", "--function", name)
        assert [(record["key"], record["state"], record["turns"]) for record in records] == [
            ("done", "finished", 1),
            ("broken", "finished", 2),
        ]
    finally:
        node.stop()


def test_a_function_of_the_same_name_has_nothing_to_do_with_a_deleted_one(node, function, lambda_):
    lambent(node, "executions", "configure", function, "--mode", "key", "--key", "$")
    first = call(node, function, {}, key("same"))[0].json()
    lambda_.delete_function(FunctionName=function)
    node.create({"app.py": CODE}, FunctionName=function)
    assert lambent(node, "executions", "configure", function)["mode"] == "off"
    assert call(node, function, {}, key("same"))[0].json() != first


def test_objects_are_looked_at(tmp_path):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    own = {"aws_access_key_id": "AKID", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    s3 = boto3.client("s3", endpoint_url=endpoint, **own)
    s3.create_bucket(Bucket="pictures")
    s3.put_object(Bucket="pictures", Key="a/b.png", Body=b"one")
    keys = ["--set", "aws.access_key_id=AKID", "--set", "aws.secret_access_key=secret"]
    node = Node(tmp_path / "node", "--aws-endpoint", endpoint, *keys)
    try:
        name = node.create({"app.py": CODE})
        resource = "s3://pictures/{$.image}"
        lambent(node, "executions", "configure", name, "--mode", "dependencies", "--on", resource)

        def ran(image):
            return call(node, name, {"image": image})[1].split(";")[0]

        assert [ran("a/b.png"), ran("a/b.png"), ran("none"), ran("none")] == ["ran", "reused", "ran", "reused"]
        s3.put_object(Bucket="pictures", Key="a/b.png", Body=b"two")
        s3.put_object(Bucket="pictures", Key="none", Body=b"there")
        assert [ran("a/b.png"), ran("none"), ran("a/b.png"), ran("none")] == ["ran", "ran", "reused", "reused"]
        s3.delete_object(Bucket="pictures", Key="none")
        assert [ran("none"), ran("none")] == ["ran", "reused"]
        server.stop()
        assert [ran("a/b.png"), ran("a/b.png")] == ["ran", "ran"]
    finally:
        node.stop()
