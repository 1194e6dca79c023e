"""Function URLs from the outside, and the network from the inside, on a real node."""

import http.client
import json
import socket
import urllib.parse

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
from conftest import fetch

PERMISSIONS = (
    {"Action": "lambda:InvokeFunctionUrl", "FunctionUrlAuthType": "NONE"},
    {"Action": "lambda:InvokeFunction", "InvokedViaFunctionUrl": True},
)

ANSWER_AS_ASKED = """
import base64, json, time
def handler(event, context):
    path = event["rawPath"]
    if path == "/event": return event
    if path == "/fail": raise ValueError("secret")
    if path == "/late": time.sleep(60)
    if path == "/text": return "Hello, world!"
    if path == "/nonsense": return {"statusCode": "?"}
    body = base64.b64decode(event["body"]) if event["isBase64Encoded"] else event["body"].encode()
    return {"statusCode": 200, "body": base64.b64encode(body[::-1]).decode(), "isBase64Encoded": True,
            "headers": {"content-type": "application/octet-stream"}}
"""


def open_url(lambda_, name, **config):
    """Makes a URL that everybody may call."""
    url = lambda_.create_function_url_config(FunctionName=name, AuthType="NONE", **config)["FunctionUrl"]
    for number, permission in enumerate(PERMISSIONS):
        lambda_.add_permission(FunctionName=name, StatementId=f"open-{number}", Principal="*", **permission)
    return url


def test_events_bodies_and_failures(node, lambda_):
    name = node.create({"app.py": ANSWER_AS_ASKED}, Timeout=2)
    url = open_url(lambda_, name)
    event = json.loads(fetch(url + "event?a=1&a=2", headers={"Cookie": "x=1; y=2"}).payload)
    assert event["version"] == "2.0"
    assert event["queryStringParameters"] == {"a": "1,2"}
    assert event["cookies"] == ["x=1", "y=2"]
    assert event["requestContext"]["http"]["sourceIp"] == "127.0.0.1"
    assert event["requestContext"]["domainName"] == urllib.parse.urlsplit(url).hostname
    binary = bytes(range(256)) * 64
    reversed_ = fetch(url, "POST", binary, {"Content-Type": "application/octet-stream"})
    assert reversed_.payload == binary[::-1]
    assert fetch(url + "text").payload == b'"Hello, world!"'
    for path in ("fail", "late", "nonsense"):
        failed = fetch(url + path)
        assert (failed.status, failed.payload) == (502, b"Internal Server Error"), path


def test_the_path_form_needs_no_name(node, lambda_):
    url = open_url(lambda_, node.create({"app.py": ANSWER_AS_ASKED}))
    parts = urllib.parse.urlsplit(url)
    identity = parts.hostname.split(".")[0]
    connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=60)
    connection.request("GET", f"/_url/{identity}/event")
    event = json.loads(connection.getresponse().read())
    assert (event["rawPath"], event["requestContext"]["apiId"]) == ("/event", identity)


def test_a_switched_off_function_is_throttled(node, lambda_):
    name = node.create({"app.py": ANSWER_AS_ASKED})
    url = open_url(lambda_, name)
    lambda_.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    throttled = fetch(url + "text")
    assert (throttled.status, throttled.headers["x-amzn-ErrorType"]) == (429, "TooManyRequestsException")


def test_browsers_of_other_origins(node, lambda_):
    cors = {"AllowOrigins": ["https://a.example"], "AllowMethods": ["GET"], "MaxAge": 60}
    url = open_url(lambda_, node.create({"app.py": ANSWER_AS_ASKED}), Cors=cors)
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}
    preflight = fetch(url, "OPTIONS", headers=asked)
    assert (preflight.status, preflight.headers["access-control-allow-methods"]) == (200, "GET")
    assert fetch(url + "text", headers=asked).headers["access-control-allow-origin"] == "https://a.example"
    other = fetch(url + "text", headers={"Origin": "https://b.example"})
    assert (other.status, other.headers["access-control-allow-origin"]) == (200, None)


def test_signed_requests(node, lambda_):
    name = node.create({"app.py": ANSWER_AS_ASKED})
    url = lambda_.create_function_url_config(FunctionName=name, AuthType="AWS_IAM")["FunctionUrl"]
    credentials = botocore.credentials.Credentials(node.key["access_key_id"], node.key["secret_access_key"])
    body = b'{"k": 1}'
    request = botocore.awsrequest.AWSRequest("POST", url + "event?b=2&a=1", {"Content-Type": "text/plain"}, body)
    botocore.auth.SigV4Auth(credentials, "lambda", node.key["region"]).add_auth(request)
    answered = fetch(url + "event?b=2&a=1", "POST", body, dict(request.headers))
    assert answered.status == 200
    event = json.loads(answered.payload)
    assert event["requestContext"]["authorizer"]["iam"]["accessKey"] == node.key["access_key_id"]
    assert "authorization" not in event["headers"]
    tampered = fetch(url + "event?b=2&a=1", "POST", b'{"k": 2}', dict(request.headers))
    assert (tampered.status, tampered.headers["x-amzn-ErrorType"]) == (403, "InvalidSignatureException")


STREAM = """
exports.handler = awslambda.streamifyResponse(async (event, stream) => {
  const head = { statusCode: 207, headers: { "x-kind": "stream" }, cookies: ["a=b"] };
  stream = awslambda.HttpResponseStream.from(stream, head);
  stream.write("first\\n");
  await new Promise((resolve) => setTimeout(resolve, event.rawPath === "/slow" ? 30000 : 10));
  stream.end("second\\n");
});
"""


def test_streams(node, lambda_):
    # A slow one ends by its time-out: it goes on when its caller has left, and the node does not stop before its calls do.
    name = node.create({"app.js": STREAM}, runtime=node.nodejs, Timeout=12)
    url = open_url(lambda_, name, InvokeMode="RESPONSE_STREAM")
    whole = fetch(url)
    assert (whole.status, whole.headers["x-kind"], whole.headers["set-cookie"]) == (207, "stream", "a=b")
    assert whole.payload == b"first\nsecond\n"
    # The first piece is there long before the last.
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=10)
    connection.request("GET", "/slow", headers={"Host": parts.netloc})
    assert connection.getresponse().readline() == b"first\n"
    connection.close()


REACH = """
import socket
def handler(event, context):
    found = {}
    for host, port in event:
        try:
            socket.create_connection((host, port), 10).close()
            found[host] = "reached"
        except OSError as error:
            found[host] = type(error).__name__
    return found
"""


@pytest.fixture
def listener():
    """A service of this host, on all its addresses."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield server


def test_functions_do_not_reach_this_host(node, listener):
    port = listener.getsockname()[1]
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    probe.connect(("198.51.100.1", 9))
    addresses = ["127.0.0.1", "169.254.169.254", "192.0.0.1", "192.0.0.2", probe.getsockname()[0]]
    _, found = node.invoke(node.create({"app.py": REACH}, Timeout=60), [[address, port] for address in addresses])
    assert found == dict.fromkeys(addresses, "ConnectionRefusedError")
    listener.settimeout(0)
    with pytest.raises(BlockingIOError):
        listener.accept()
