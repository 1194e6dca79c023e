"""Dependencies that code reports, rows of auxiliary services, and idempotency on function URLs."""

import json
import re
import sqlite3
import threading

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
from conftest import Node, fetch

from test_executions import Resource as Resources
from test_executions import call, key, lambent, resource
from test_urls import open_url

PYTHON = """
import uuid, lambent

def handler(event, context):
    try:
        recorded = lambent.depends_on(*event["names"])
    except lambent.CallError as error:
        return {"code": error.code, "status": error.status, "message": str(error), "run": str(uuid.uuid4())}
    return {"recorded": recorded, "run": str(uuid.uuid4())}
"""

NODE = """
const lambent = require('lambent');
const { randomUUID } = require('node:crypto');

exports.handler = async (event) => {
    try {
        return { recorded: await lambent.dependsOn(...event.names), run: randomUUID() };
    } catch (error) {
        return { code: error.code, status: error.status, message: error.message, run: randomUUID() };
    }
};
"""

# Without the module: what the local API itself answers.
PLAIN = """
import json, os, urllib.error, urllib.request, uuid

def handler(event, context):
    url = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/lambent/2026-11-24/dependencies"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, event["body"].encode())) as answer:
            told = json.load(answer)
    except urllib.error.HTTPError as error:
        told = {"status": error.code, "type": error.headers["x-amzn-errortype"], **json.load(error)}
    return {"told": told, "run": str(uuid.uuid4())}
"""

ROWS = """
import uuid, lambent

def handler(event, context):
    name = lambent.rows("shop", "SELECT price FROM items WHERE id = ? AND name = ?", event["id"], "it's {1}?")
    return {"recorded": lambent.depends_on(name), "run": str(uuid.uuid4())}
"""


def depending(node, name, *on):
    arguments = [argument for each in on for argument in ("--on", each)]
    lambent(node, "executions", "configure", name, "--mode", "dependencies", *arguments)


def functions(node):
    yield node.create({"app.py": PYTHON})
    yield node.create({"app.js": NODE}, runtime=node.nodejs)


def outcome(node, name, payload):
    response, execution = call(node, name, payload)
    return response.json(), execution


def test_code_reports_what_it_depends_on(tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    with resource() as port:
        settings = ["--set", f'executions.files=["{files}"]', "--set", f'executions.hosts=["127.0.0.1:{port}"]']
        node = Node(tmp_path / "node", *settings)
        try:
            for name in functions(node):
                model = files / name
                model.write_text("one")
                depending(node, name, "function:none")
                names = [f"http://127.0.0.1:{port}/a", f"file://{model}", "function:none"]
                first, execution = outcome(node, name, {"names": names})
                assert first["recorded"] is True
                assert outcome(node, name, {"names": names}) == (first, f"reused; record={execution[12:]}; age=0")
                why = lambent(node, "executions", "why", execution.split("record=")[1])
                origins = {each["name"]: each["origin"] for each in why["dependencies"]}
                assert origins == {
                    "code and configuration": "own",
                    "function:none": "declared",
                    names[0]: "reported",
                    names[1]: "reported",
                }
                assert outcome(node, name, {"names": []})[0]["run"] != first["run"]
                model.write_text("two")
                second, execution = outcome(node, name, {"names": names})
                assert execution.startswith("ran; ")
                assert outcome(node, name, {"names": names})[0] == second
                Resources.etag = f'"of {name}"'
                assert outcome(node, name, {"names": names})[1].startswith("ran; ")
                assert outcome(node, name, {"names": names})[1].startswith("reused; ")
                # A node that begins again knows them too.
            node.stop()
            node = Node(tmp_path / "node", *settings)
            assert outcome(node, name, {"names": names})[1].startswith("reused; ")
            model.write_text("three")
            assert outcome(node, name, {"names": names})[1].startswith("ran; ")
        finally:
            node.stop()


def test_what_is_reported_wrongly_or_for_nothing(node):
    for name in functions(node):
        answer = outcome(node, name, {"names": ["https://example.com/"]})[0]
        assert answer["recorded"] is False
        depending(node, name)
        for names, code in [
            (["nonsense"], "InvalidParameterValueException"),
            (["s3://" + "b" * 3000 + "/k"], "InvalidParameterValueException"),
            ([f"file:///{number}" for number in range(65)], "TooManyDependenciesException"),
        ]:
            answer, execution = outcome(node, name, {"names": names})
            assert (answer["code"], answer["status"]) == (code, 400), answer
            assert execution.startswith("ran; ")
            execution = outcome(node, name, {"names": names})[1]
            assert execution.startswith("ran; ")
            why = lambent(node, "executions", "why", execution.split("record=")[1])
            assert why["because"] == "a report of dependencies by its code was refused"
        # Where nothing may be looked at: no error, and no reuse.
        closed = ["file:///etc/passwd", "http://169.254.169.254/", "rows:shop/SELECT 1"]
        for _ in range(2):
            answer, execution = outcome(node, name, {"names": closed})
            assert answer["recorded"] is True
            assert execution.startswith("ran; ")


def test_the_local_api_tells_what_is_wrong(node):
    name = node.create({"app.py": PLAIN})
    depending(node, name)
    for body, status in [("{}", 400), ("[1]", 400), ("no JSON", 400), ("[" + " " * 300_000 + "]", 413)]:
        told = outcome(node, name, {"body": body})[0]["told"]
        assert told["status"] == status, told
    told = outcome(node, name, {"body": '["file:///etc/passwd"]'})[0]["told"]
    problem = "it is in none of the directories that executions.files names"
    assert told == {"recorded": True, "unchecked": [{"name": "file:///etc/passwd", "problem": problem}]}
    assert outcome(node, name, {"body": "[]"})[0]["told"] == {"recorded": True, "unchecked": []}


def test_functions_without_a_network_have_nothing_fetched_for_them(tmp_path):
    with resource() as port:
        node = Node(tmp_path / "node", "--set", f'executions.hosts=["127.0.0.1:{port}"]')
        try:
            name = node.create({"app.py": PLAIN}, Tags={"lambent:network": "none"})
            url = f"http://127.0.0.1:{port}/"
            depending(node, name, url)
            told = outcome(node, name, {"body": json.dumps([url])})[0]["told"]
            assert told == {"recorded": True, "unchecked": []}, "its owner has declared it"
            told = outcome(node, name, {"body": json.dumps([url + "?secret"])})[0]["told"]
            assert [each["problem"] for each in told["unchecked"]] == [
                "the function has no network, so the node does not go there for its code"
            ]
        finally:
            node.stop()


@pytest.fixture
def shop(tmp_path):
    """A node with a database beside it, and the way to change that."""
    database = tmp_path / "shop.db"
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, price REAL)")
    connection.execute("INSERT INTO items VALUES (1, ?, 2.5), (2, 'ink', 7)", ["it's {1}?"])
    connection.commit()

    def change(sql, *values):
        connection.execute(sql, values)
        connection.commit()

    settings = {"kind": "sqlite", "path": str(database)}
    config = tmp_path / "lambent.toml"
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    config.write_text("\n".join(["[services.shop]", *lines, "[services.others]", *lines, 'functions = ["another"]']))
    node = Node(tmp_path / "node", "--config", str(config))
    yield node, change
    connection.close()
    assert node.stop() == 0


def test_rows_of_a_service_are_looked_at(shop):
    node, change = shop
    name = node.create({"app.py": "import uuid\ndef handler(event, context): return str(uuid.uuid4())"})
    depending(node, name, "rows:shop/SELECT price FROM items WHERE id = {$.id}")

    def ran(id):
        return outcome(node, name, {"id": id})[1].split(";")[0]

    assert [ran(1), ran(1), ran(2), ran(2), ran(9), ran(9)] == ["ran", "reused"] * 3
    change("UPDATE items SET price = 3 WHERE id = 1")
    assert [ran(1), ran(2), ran(9), ran(1)] == ["ran", "reused", "reused", "reused"]
    change("INSERT INTO items VALUES (9, 'nib', 1)")
    assert [ran(9), ran(9)] == ["ran", "reused"]
    # A value is a value, whatever it says.
    hostile = "1 OR 1=1; DROP TABLE items"
    assert [ran(hostile), ran(hostile)] == ["ran", "reused"]
    change("UPDATE items SET price = 4 WHERE id = 1")
    assert ran(hostile) == "reused"
    execution = outcome(node, name, {"id": 1})[1]
    why = lambent(node, "executions", "why", execution.split("record=")[1])
    named = why["dependencies"][1]
    assert (named["name"], named["recorded"]["by"]) == ("rows:shop/SELECT price FROM items WHERE id = {1}", "digest")

    for wrong, problem in [
        ("rows:shop/DELETE FROM items", "the query is refused: it does not only read"),
        ("rows:shop/ATTACH '/etc/passwd' AS other", "the query is refused: it does not only read"),
        ("rows:shop/SELECT nmae FROM items", "the query is refused: no such column: nmae"),
        ("rows:none/SELECT 1", "there is no service none"),
        ("rows:others/SELECT 1", f"{name} may not use the service others"),
        (
            "rows:shop/WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
            "the result has more than 10000 rows",
        ),
    ]:
        depending(node, name, wrong)
        for _ in range(2):
            execution = outcome(node, name, {})[1]
            assert execution.startswith("ran; ")
        why = lambent(node, "executions", "why", execution.split("record=")[1])
        assert why["dependencies"][1]["problem"].startswith(problem), why


def test_code_reports_rows(shop):
    node, change = shop
    name = node.create({"app.py": ROWS})
    depending(node, name)
    first, execution = outcome(node, name, {"id": 1})
    assert first["recorded"] is True
    assert outcome(node, name, {"id": 1})[0] == first
    change("UPDATE items SET price = 3 WHERE id = 2")
    assert outcome(node, name, {"id": 1})[0] == first
    change("UPDATE items SET price = 3 WHERE id = 1")
    assert outcome(node, name, {"id": 1})[0] != first


URL = """
import uuid
def handler(event, context):
    headers = {"content-type": "text/plain"}
    if event["rawPath"] == "/fail": raise ValueError("boom")
    return {"statusCode": 201, "headers": headers, "body": str(uuid.uuid4())}
"""


def test_function_urls_take_the_headers(node, lambda_):
    name = node.create({"app.py": URL})
    url = lambda_.create_function_url_config(FunctionName=name, AuthType="AWS_IAM")["FunctionUrl"]
    credentials = botocore.credentials.Credentials(node.key["access_key_id"], node.key["secret_access_key"])

    def signed(path, headers, body=b""):
        request = botocore.awsrequest.AWSRequest("POST", url + path, headers, body)
        botocore.auth.SigV4Auth(credentials, "lambda", node.key["region"]).add_auth(request)
        return fetch(url + path, "POST", body, dict(request.headers))

    first = signed("a", key("one"))
    assert first.status == 201
    assert re.fullmatch(r"ran; record=\d+", first.headers["x-lambent-execution"])
    again = signed("a", key("one"))
    assert (again.payload, again.status, again.headers["content-type"]) == (first.payload, 201, "text/plain")
    assert again.headers["x-lambent-execution"].startswith("reused; record=")
    other = signed("b", key("one"))
    assert (other.status, other.headers["x-amzn-errortype"]) == (400, "IdempotentParameterMismatchException")
    assert json.loads(other.payload)["Type"] == "User"
    wrong = signed("a", {"X-Lambent-Idempotency": "maybe"})
    assert (wrong.status, wrong.headers["x-amzn-errortype"]) == (400, "InvalidParameterValueException")
    assert signed("a", {}).headers["x-lambent-execution"] is None
    assert [signed("fail", key("fails")).status for _ in range(2)] == [502, 502]

    depending(node, name)
    first = signed("a", {}, b"1")
    assert signed("a", {}, b"1").payload == first.payload
    assert signed("a", {}, b"2").payload != first.payload
    assert signed("a", {"X-Lambent-Idempotency": "off"}, b"1").payload != first.payload


def test_strangers_at_an_open_url_weaken_nothing(node, lambda_):
    name = node.create({"app.py": URL})
    url = open_url(lambda_, name)
    off = {"X-Lambent-Idempotency": "off"}

    def refused(headers):
        answer = fetch(url, headers=headers)
        return (answer.status, answer.headers["x-amzn-errortype"]) == (403, "AccessDeniedException")

    assert refused(key("one"))
    lambent(node, "executions", "configure", name, "--mode", "key")
    first = fetch(url, headers=key("one"))
    assert fetch(url, headers=key("one")).payload == first.payload
    assert refused(off)
    settings = ["--mode", "key", "--key", "$.headers['x-order']", "--input", "$.body"]
    lambent(node, "executions", "configure", name, *settings)
    first = fetch(url, headers={"X-Order": "7"})
    assert fetch(url, headers={"X-Order": "7", "User-Agent": "other"}).payload == first.payload
    assert refused({"X-Order": "7", **key("mine")})
    depending(node, name)
    first = fetch(url)
    assert fetch(url).payload == first.payload
    assert refused(off) and refused(key("mine"))


STREAM = """
exports.handler = awslambda.streamifyResponse(async (event, stream) => {
    stream = awslambda.HttpResponseStream.from(stream, { statusCode: 203, headers: { 'x-own': 'kept' } });
    stream.write('begun ');
    stream.write(String(Math.random()));
    stream.end();
});
"""


def test_a_streamed_answer_is_kept_whole(node, lambda_):
    name = node.create({"app.js": STREAM}, runtime=node.nodejs)
    url = open_url(lambda_, name, InvokeMode="RESPONSE_STREAM")
    depending(node, name)
    first = fetch(url)
    assert (first.status, first.headers["x-own"], first.payload[:6]) == (203, "kept", b"begun ")
    assert first.headers["x-lambent-execution"].startswith("ran; record=")
    again = fetch(url)
    assert (again.status, again.headers["x-own"], again.payload) == (203, "kept", first.payload)
    assert again.headers["x-lambent-execution"].startswith("reused; record=")


def test_concurrent_runs_keep_their_reports_apart(node):
    name = node.create({"app.py": PYTHON})
    depending(node, name)
    answers = {}

    def ask(number):
        answers[number] = outcome(node, name, {"names": [f"function:none-{number}"]})

    threads = [threading.Thread(target=ask, args=[number]) for number in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for number, (answer, execution) in answers.items():
        assert answer["recorded"] is True
        why = lambent(node, "executions", "why", execution.split("record=")[1])
        assert [each["name"] for each in why["dependencies"][1:]] == [f"function:none-{number}"]
