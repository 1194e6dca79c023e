"""The main road, through boto3: create, wait, invoke, update, publish, aliases, layers, URLs, streams, delete."""

import base64
import json

import botocore.exceptions
import pytest
from conftest import ROLE, fetch, zip_of

ECHO = {"app.py": "def handler(event, context):\n    return {'event': event, 'version': context.function_version}\n"}


def saying(text):
    return {"app.py": f"def handler(event, context):\n    return {text!r}\n"}


def fails_with(client, code, call, **parameters):
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(**parameters)
    assert caught.value.response["Error"]["Code"] == code, caught.value.response
    return caught.value.response


def test_create_answers_as_aws_does(node, lambda_):
    name = node.name()
    created = lambda_.create_function(
        FunctionName=name,
        Runtime=node.python,
        Role=ROLE,
        Handler="app.handler",
        Code={"ZipFile": zip_of(ECHO)},
        Description="d",
        Environment={"Variables": {"ONE": "1"}},
        Timeout=7,
        MemorySize=256,
    )
    node._created.append(name)
    assert created["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert created["State"] == "Pending" or created["State"] == "Active"
    assert created["FunctionArn"] == f"arn:aws:lambda:us-east-1:{node.key['account']}:function:{name}"
    lambda_.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.05})
    got = lambda_.get_function(FunctionName=name)
    configuration = got["Configuration"]
    assert (configuration["State"], configuration["LastUpdateStatus"]) == ("Active", "Successful")
    assert (configuration["Timeout"], configuration["MemorySize"]) == (7, 256)
    assert configuration["Environment"] == {"Variables": {"ONE": "1"}}
    assert configuration["CodeSha256"] == created["CodeSha256"]
    assert got["Code"]["RepositoryType"] == "S3"


def test_an_invocation_has_its_headers(node, lambda_):
    name = node.create(ECHO)
    response, answer = node.invoke(name, {"a": "é"})
    assert answer == {"event": {"a": "é"}, "version": "$LATEST"}
    assert response["ExecutedVersion"] == "$LATEST"
    assert response["ResponseMetadata"]["HTTPHeaders"]["content-type"] == "application/json"
    assert node.invoke(name)[1]["event"] is None
    assert lambda_.invoke(FunctionName=name)["Payload"].read() == b'{"event": {}, "version": "$LATEST"}'
    dry = lambda_.invoke(FunctionName=name, InvocationType="DryRun")
    assert dry["StatusCode"] == 204


def test_an_error_is_a_payload(node):
    name = node.create({"app.py": "def handler(event, context):\n    raise ValueError('no')\n"})
    response, answer = node.invoke(name)
    assert (response["StatusCode"], response["FunctionError"]) == (200, "Unhandled")
    assert (answer["errorType"], answer["errorMessage"]) == ("ValueError", "no")
    assert answer["requestId"] == response["ResponseMetadata"]["RequestId"]
    assert answer["stackTrace"] == ["  File \"/var/task/app.py\", line 2, in handler\n    raise ValueError('no')\n"]


def test_code_and_configuration_are_updated(node, lambda_):
    name = node.create(saying("one"))
    assert node.invoke(name)[1] == "one"
    updated = lambda_.update_function_code(FunctionName=name, ZipFile=zip_of(saying("two")))
    lambda_.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.05})
    assert node.invoke(name)[1] == "two"
    fails_with(
        lambda_,
        "PreconditionFailedException",
        lambda_.update_function_configuration,
        FunctionName=name,
        Timeout=9,
        RevisionId="00000000-0000-0000-0000-000000000000",
    )
    lambda_.update_function_configuration(FunctionName=name, Timeout=9, Environment={"Variables": {"TWO": "2"}})
    lambda_.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.05})
    configuration = lambda_.get_function_configuration(FunctionName=name)
    assert (configuration["Timeout"], configuration["CodeSha256"]) == (9, updated["CodeSha256"])


def test_versions_and_weighted_aliases(node, lambda_):
    name = node.create(ECHO)
    assert lambda_.publish_version(FunctionName=name)["Version"] == "1"
    lambda_.update_function_code(FunctionName=name, ZipFile=zip_of({**ECHO, "more.txt": "x"}))
    lambda_.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.05})
    assert lambda_.publish_version(FunctionName=name)["Version"] == "2"
    listed = lambda_.list_versions_by_function(FunctionName=name)["Versions"]
    assert [version["Version"] for version in listed] == ["$LATEST", "1", "2"]
    lambda_.create_alias(
        FunctionName=name,
        Name="live",
        FunctionVersion="1",
        RoutingConfig={"AdditionalVersionWeights": {"2": 0.5}},
    )
    seen = set()
    for _ in range(200):
        response, answer = node.invoke(name, Qualifier="live")
        assert response["ExecutedVersion"] == answer["version"]
        seen.add(answer["version"])
        if len(seen) == 2:
            break
    assert seen == {"1", "2"}
    lambda_.update_alias(FunctionName=name, Name="live", FunctionVersion="2", RoutingConfig={})
    assert node.invoke(f"{name}:live")[1]["version"] == "2"
    fails_with(lambda_, "ResourceNotFoundException", lambda_.invoke, FunctionName=name, Qualifier="none")


def test_layers_are_below_opt(node, lambda_):
    layer = lambda_.publish_layer_version(
        LayerName=node.name("layer"),
        Content={"ZipFile": zip_of({"python/shared.py": "WORD = 'from the layer'\n", "data.txt": "text"})},
        CompatibleRuntimes=[node.python],
    )
    code = """
import shared
def handler(event, context):
    return [shared.WORD, open("/opt/data.txt").read(), shared.__file__]
"""
    name = node.create({"app.py": code}, Layers=[layer["LayerVersionArn"]])
    assert node.invoke(name)[1] == ["from the layer", "text", "/opt/python/shared.py"]
    assert lambda_.get_function_configuration(FunctionName=name)["Layers"][0]["Arn"] == layer["LayerVersionArn"]


def test_the_environment_is_that_of_lambda(node):
    code = """
import os, sys
def handler(event, context):
    return {"env": dict(os.environ), "cwd": os.getcwd(), "argv": sys.argv, "path": sys.path}
"""
    name = node.create({"app.py": code}, Environment={"Variables": {"MINE": "é"}}, MemorySize=192)
    shown = node.invoke(name)[1]
    environment = shown["env"]
    assert shown["cwd"] == "/var/task" and shown["path"][0] == "/var/task"
    expected = {
        "MINE": "é",
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "192",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{node.python}",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "LAMBDA_TASK_ROOT": "/var/task",
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "_HANDLER": "app.handler",
        "TZ": ":UTC",
        "LANG": "en_US.UTF-8",
    }
    assert {variable: environment.get(variable) for variable in expected} == expected
    assert "_LAMBDA_TELEMETRY_LOG_FD" not in environment


def test_containers_are_kept_and_tmp_with_them(node):
    code = """
import os
calls = 0
def handler(event, context):
    global calls
    calls += 1
    with open("/tmp/kept", "a") as kept:
        kept.write("x")
    return [calls, os.path.getsize("/tmp/kept")]
"""
    name = node.create({"app.py": code})
    # A call that comes while the last one's container is not quite free may get another.
    answers = [node.invoke(name)[1] for _ in range(10)]
    assert all(calls == size for calls, size in answers)
    assert max(calls for calls, _ in answers) >= 5, answers


def test_client_context_and_log_tail(node):
    code = "def handler(event, context):\n    print('seen')\n    return context.client_context.custom\n"
    name = node.create({"app.py": code})
    context = base64.b64encode(json.dumps({"custom": {"k": "é"}}).encode()).decode()
    response, answer = node.invoke(name, ClientContext=context, LogType="Tail")
    assert answer == {"k": "é"}
    tail = base64.b64decode(response["LogResult"]).decode()
    request = response["ResponseMetadata"]["RequestId"]
    assert tail.index(f"START RequestId: {request} Version: $LATEST\n") < tail.index("seen\n")
    assert (
        tail.index("seen\n") < tail.index(f"END RequestId: {request}\n") < tail.index(f"REPORT RequestId: {request}\t")
    )
    for field in ("Duration: ", "Billed Duration: ", "Memory Size: 128 MB", "Max Memory Used: ", "Init Duration: "):
        assert field in tail


def test_streams_arrive_as_they_are_written(node, lambda_):
    code = """
exports.handler = awslambda.streamifyResponse(async (event, stream) => {
    for (let i = 0; i < event.count; i += 1) {
        stream.write(`part ${i};`);
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
    if (event.fail) throw new RangeError('half way');
    stream.end('end');
});
"""
    name = node.create({"app.js": code}, runtime=node.nodejs)
    answer = lambda_.invoke_with_response_stream(FunctionName=name, Payload=json.dumps({"count": 3}))
    assert answer["StatusCode"] == 200
    events = list(answer["EventStream"])
    text = b"".join(event["PayloadChunk"]["Payload"] for event in events if "PayloadChunk" in event)
    assert text == b"part 0;part 1;part 2;end"
    assert "InvokeComplete" in events[-1] and "ErrorCode" not in events[-1]["InvokeComplete"]
    failed = lambda_.invoke_with_response_stream(FunctionName=name, Payload=json.dumps({"count": 1, "fail": True}))
    complete = list(failed["EventStream"])[-1]["InvokeComplete"]
    assert complete["ErrorCode"] == "RangeError"
    assert "half way" in complete["ErrorDetails"]
    assert lambda_.invoke(FunctionName=name, Payload=json.dumps({"count": 1}))["Payload"].read() == b"part 0;end"


def test_a_function_has_a_url(node, lambda_):
    code = """
import base64
def handler(event, context):
    http = event["requestContext"]["http"]
    body = base64.b64encode((http["path"] + "?" + event["rawQueryString"]).encode()).decode()
    headers = {"x-method": http["method"]}
    return {"statusCode": 201, "headers": headers, "cookies": ["a=b"], "body": body, "isBase64Encoded": True}
"""
    name = node.create({"app.py": code})
    made = lambda_.create_function_url_config(FunctionName=name, AuthType="NONE")
    lambda_.add_permission(
        FunctionName=name,
        StatementId="open",
        Action="lambda:InvokeFunctionUrl",
        Principal="*",
        FunctionUrlAuthType="NONE",
    )
    # Since October 2025 a URL needs this one too.
    lambda_.add_permission(
        FunctionName=name,
        StatementId="open-by-url",
        Action="lambda:InvokeFunction",
        Principal="*",
        InvokedViaFunctionUrl=True,
    )
    response = fetch(made["FunctionUrl"] + "some/path?q=%20x")
    assert response.status == 201
    assert (response.headers["x-method"], response.headers["set-cookie"]) == ("GET", "a=b")
    assert response.payload == b"/some/path?q=%20x"
    lambda_.delete_function_url_config(FunctionName=name)
    assert fetch(made["FunctionUrl"]).status in (403, 404)


def test_a_url_with_iam_refuses_strangers(node, lambda_):
    name = node.create(ECHO)
    made = lambda_.create_function_url_config(FunctionName=name, AuthType="AWS_IAM")
    refused = fetch(made["FunctionUrl"])
    assert (refused.status, json.loads(refused.payload)) == (403, {"Message": "Forbidden"})


def test_a_deleted_function_is_gone(node, lambda_):
    name = node.create(ECHO)
    assert node.invoke(name)[0]["StatusCode"] == 200
    assert lambda_.delete_function(FunctionName=name)["ResponseMetadata"]["HTTPStatusCode"] == 204
    gone = fails_with(lambda_, "ResourceNotFoundException", lambda_.invoke, FunctionName=name)
    assert gone["ResponseMetadata"]["HTTPStatusCode"] == 404
    assert (
        gone["Error"]["Message"]
        == f"Function not found: arn:aws:lambda:us-east-1:{node.key['account']}:function:{name}"
    )


def test_strangers_are_refused(node):
    import boto3

    stranger = boto3.client(
        "lambda",
        endpoint_url=node.endpoint,
        region_name="us-east-1",
        aws_access_key_id=node.key["access_key_id"],
        aws_secret_access_key="wrong",
    )
    fails_with(stranger, "InvalidSignatureException", stranger.list_functions)


def test_calls_run_side_by_side(node, lambda_):
    from concurrent.futures import ThreadPoolExecutor

    code = """
import os, time
def handler(event, context):
    # Everybody waits until the others have come: with fewer than four at once this is a time-out.
    time.sleep(0.5)
    return os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
"""
    name = node.create({"app.py": code}, Timeout=30)
    with ThreadPoolExecutor(4) as pool:
        streams = list(pool.map(lambda _: node.invoke(name)[1], range(4)))
    assert len(set(streams)) == 4


def test_reserved_concurrency_throttles(node, lambda_):
    name = node.create(ECHO)
    lambda_.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    throttled = fails_with(lambda_, "TooManyRequestsException", lambda_.invoke, FunctionName=name)
    assert throttled["ResponseMetadata"]["HTTPStatusCode"] == 429
    assert throttled["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    lambda_.delete_function_concurrency(FunctionName=name)
    assert node.invoke(name)[0]["StatusCode"] == 200
