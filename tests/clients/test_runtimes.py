"""Differential tests: the same handlers under our runtimes and under AWS's own clients.

Each case runs a fresh process of either under the same fake Runtime API and compares everything that can be seen: what
was posted, how the process ended, log frames, standard output and error. `differences.py` lists what may differ.
"""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import fake_runtime_api
import pytest
from conftest import ROOT

import differences

HANDLERS = Path(__file__).parent / "handlers"
OURS_PYTHON = [sys.executable, "-s", "-u", str(ROOT / "runtimes/python/bootstrap.py")]


@dataclasses.dataclass
class Case:
    """A handler, the events it gets, and the circumstances."""

    handler: str
    events: list = dataclasses.field(default_factory=list)  # none: the runtime does not get as far
    headers: dict = dataclasses.field(default_factory=dict)
    environment: dict = dataclasses.field(default_factory=dict)
    telemetry: bool = True
    raw: bool = False


CLIENT_CONTEXT = {
    "Lambda-Runtime-Client-Context": json.dumps(
        {"custom": {"k": "v"}, "env": {"e": 1}, "client": {"app_title": "T"}, "w3c": {"traceparent": "00-1", "x": "y"}}
    ),
    "Lambda-Runtime-Cognito-Identity": json.dumps({"cognitoIdentityId": "me", "cognitoIdentityPoolId": "pool"}),
    "Lambda-Runtime-Aws-Tenant-Id": "blue",
}

PYTHON = {
    "echo": Case("good.echo", [None, 1, "é", {"a": [1, {"b": None}]}, [], True, 1.0, "x" * 100000]),
    "values": Case("good.values", list(range(32))),
    "values-escaped": Case("good.values", [2, 13, 16], environment={"AWS_EXECUTION_ENV": "AWS_Lambda_python3.11"}),
    "huge-answer": Case("good.answers_much", [7 * 1024 * 1024, 1]),
    "huge-event": Case("good.counts", ["x" * (6 * 1024 * 1024 - 2), 1]),
    "keeps-its-state": Case("good.counts", [1, 2, 3]),
    "context": Case("good.shows_context", [1]),
    "context-of-a-mobile-client": Case("good.shows_context", [1], headers=CLIENT_CONTEXT),
    "context-without-trace": Case("good.shows_context", [1], headers={"Lambda-Runtime-Trace-Id": None}),
    "environment": Case("good.shows_environment", [1]),
    "environment-without-channel": Case("good.shows_environment", [1], telemetry=False),
    "environment-with-level": Case("good.shows_environment", [1], environment={"AWS_LAMBDA_LOG_LEVEL": "TRACE"}),
    "prints": Case("good.prints", [1]),
    "prints-without-channel": Case("good.prints", [1], telemetry=False),
    "prints-with-json": Case("good.prints", [1], environment={"AWS_LAMBDA_LOG_FORMAT": "JSON"}),
    "logs-text": Case("good.logs", [1]),
    "logs-text-without-channel": Case("good.logs", [1], telemetry=False),
    "logs-text-debug": Case("good.logs", [1], environment={"AWS_LAMBDA_LOG_LEVEL": "DEBUG"}),
    "logs-text-error": Case("good.logs", [1], environment={"AWS_LAMBDA_LOG_LEVEL": "ERROR"}),
    "logs-json": Case("good.logs", [1], headers=CLIENT_CONTEXT, environment={"AWS_LAMBDA_LOG_FORMAT": "JSON"}),
    "logs-json-without-channel": Case("good.logs", [1], telemetry=False, environment={"AWS_LAMBDA_LOG_FORMAT": "json"}),
    "logs-json-trace": Case(
        "good.logs", [1], environment={"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "TRACE"}
    ),
    "raises": Case("bad.raises", [1, 2]),
    "raises-json": Case("bad.raises", [1], environment={"AWS_LAMBDA_LOG_FORMAT": "JSON"}),
    "raises-without-channel": Case("bad.raises_with_lines", [1], telemetry=False),
    "raises-without-message": Case("bad.raises_without_message", [1]),
    "raises-with-lines": Case("bad.raises_with_lines", [1]),
    "raises-from": Case("bad.raises_from", [1]),
    "raises-in-a-library": Case("bad.raises_in_a_library", [1]),
    "raises-in-a-thread": Case("bad.raises_in_a_thread", [1]),
    "recurses": Case("bad.recurses", [1]),
    "exits": Case("bad.exits", [3]),
    "exits-well": Case("bad.exits", [0]),
    "exits-with-words": Case("bad.exits", ["words"]),
    "exits-at-once": Case("bad.exits_at_once", [4]),
    "is-interrupted": Case("bad.interrupts", [1]),
    "segfaults": Case("bad.kills", [11]),
    "is-killed": Case("bad.kills", [9]),
    "coroutine": Case("bad.is_a_coroutine", [1]),
    "logs-nonsense": Case("bad.logs_nonsense", [1]),
    "takes-one": Case("bad.takes_one", [1]),
    "not-a-function": Case("bad.not_a_function", [1]),
    "in-a-package": Case("package.inner.handler", [1]),
    "in-a-folder": Case("package/inner.handler", [1]),
    "text-event": Case("good.values", [b"plain"], raw=True, headers={"Content-Type": "text/plain"}),
    "decimal-key": Case("more.decimal_key", [1]),
    "lone-surrogate": Case("more.surrogate", [1]),
    "unprintable-error": Case("more.unprintable", [1]),
    "too-deep": Case("more.deep", [1]),
    "not-json": Case("good.echo", [b"{\n"], raw=True),
    "bad-client-context": Case("good.echo", [1], headers={"Lambda-Runtime-Client-Context": "{"}),
    "client-context-of-no-object": Case("good.echo", [1], headers={"Lambda-Runtime-Client-Context": "[1]"}),
    "no-dot": Case("handler"),
    "no-module": Case("nowhere.handler"),
    "no-function": Case("good.nothing"),
    "built-in-module": Case("sys.exit"),
    "syntax-error": Case("syntax.handler"),
    "syntax-error-json": Case("syntax.handler", environment={"AWS_LAMBDA_LOG_FORMAT": "JSON"}),
    "import-error": Case("imports.handler"),
    "import-error-of-a-name": Case("names.handler"),
    "fails-at-import-beyond-latin-1": Case("fails_accented.handler"),
    "fails-at-import": Case("fails.handler"),
    "exits-at-import": Case("quits.handler"),
    "empty-handler": Case(""),
}


def observe(command, case, task_root):
    """Everything there is to see of a case."""
    environment = {"PYTHONDONTWRITEBYTECODE": "1", **case.environment}
    seen = {"outcomes": []}
    with fake_runtime_api.running(command, task_root, case.handler, case.telemetry, **environment) as runtime:
        for event in case.events:
            outcome = (
                runtime.invoke(raw=event, headers=case.headers)
                if case.raw
                else runtime.invoke(event, None, case.headers)
            )
            seen["outcomes"].append(shown(outcome))
            if outcome.kind == "exit":
                break
        else:
            if case.events:
                runtime.settle(len(case.events))
        if not case.events:
            outcome = runtime.outcome()
            seen["outcomes"].append(shown(outcome))
            seen["exit"] = runtime.exit_status()
    seen["frames"] = [(hex(kind), normal_line(text)) for kind, text in runtime.frames()]
    seen["stdout"] = sorted(filter(None, map(normal_line, runtime.stdout.split("\n"))), key=str)
    seen["stderr"] = differences.normal(runtime.stderr)
    return seen


def shown(outcome):
    body = differences.normal(outcome.body.decode("utf-8", "replace"))
    if outcome.kind in ("error", "init-error"):
        body = json.loads(outcome.body)
        for name, value in body.items():
            if isinstance(value, list):  # a stack trace
                body[name] = [line for line in map(differences.normal, value) if line]
            else:
                body[name] = differences.normal(value)
    return {
        "kind": outcome.kind,
        "type": outcome.headers.get("content-type") if outcome.kind == "response" else None,
        "body": body,
        "exit": outcome.exit_status,
    }


def normal_line(line):
    """A log line; the order of names in a JSON line is not compared."""
    line = differences.normal(line)
    try:
        return json.loads(line)
    except ValueError:
        return line


def compare(ours, theirs, reason):
    if reason is None:
        assert ours == theirs
    else:
        assert ours != theirs, f"no longer differs, so take it out of differences.py: {reason}"


@pytest.mark.parametrize("name", PYTHON)
def test_python(name):
    case = PYTHON[name]
    case.environment.setdefault("AWS_EXECUTION_ENV", "AWS_Lambda_python3.12")
    theirs = observe([sys.executable, "-m", "awslambdaric", case.handler], case, HANDLERS / "python")
    ours = observe(OURS_PYTHON, case, HANDLERS / "python")
    compare(ours, theirs, differences.PYTHON.get(name))


# --- Node.js ----------------------------------------------------------------------------------------------------------

OURS_NODE = str(ROOT / "runtimes/node/bootstrap.cjs")
INSTALLED = ROOT / "target/node"

NODE = {
    "echo": Case("good.echo", [None, 1, "é", {"a": [1]}, [], "x" * 100000]),
    "values": Case("good.values", list(range(15))),
    "huge-answer": Case("good.answersMuch", [7 * 1024 * 1024, 1]),
    "huge-event": Case("good.counts", ["x" * (6 * 1024 * 1024 - 2), 1]),
    "keeps-its-state": Case("good.counts", [1, 2, 3]),
    "context": Case("good.showsContext", [1]),
    "context-of-a-mobile-client": Case("good.showsContext", [1], headers=CLIENT_CONTEXT),
    "context-without-trace": Case("good.showsContext", [1], headers={"Lambda-Runtime-Trace-Id": None}),
    "environment": Case("good.showsEnvironment", [1]),
    "prints": Case("good.prints", [1]),
    "logs-text": Case("good.logs", [1]),
    "logs-text-without-channel": Case("good.logs", [1], telemetry=False),
    "logs-text-warn": Case("good.logs", [1], environment={"AWS_LAMBDA_LOG_LEVEL": "WARN"}),
    "logs-json": Case("good.logs", [1], environment={"AWS_LAMBDA_LOG_FORMAT": "JSON"}),
    "logs-json-of-a-tenant": Case(
        "good.logs", [1], headers=CLIENT_CONTEXT, environment={"AWS_LAMBDA_LOG_FORMAT": "JSON"}
    ),
    "logs-json-without-channel": Case("good.logs", [1], telemetry=False, environment={"AWS_LAMBDA_LOG_FORMAT": "JSON"}),
    "throws": Case("bad.throws", [1, 2]),
    "throws-json": Case("bad.throws", [1], environment={"AWS_LAMBDA_LOG_FORMAT": "JSON"}),
    "throws-at-once": Case("bad.throwsAtOnce", [1]),
    "throws-a-value": Case("bad.throwsAValue", [2, 3, 4]),
    "throws-nothing": Case("bad.throwsAValue", [0, 1]),
    "throws-what-cannot-be-text": Case("bad.throwsAValue", [5]),
    "throws-with-delete": Case("bad.throwsWithDelete", [1]),
    "throws-cause": Case("bad.throwsCause", [1]),
    "cannot-be-json": Case("bad.cannotBeJson", [0, 1]),
    "recurses": Case("bad.recurses", [1]),
    "exits": Case("bad.exits", [3]),
    "exits-well": Case("bad.exits", [0]),
    "is-killed": Case("bad.kills", [9]),
    "never-settles": Case("bad.neverSettles", [1]),
    "throws-later": Case("bad.throwsLater", [1]),
    "rejects-aside": Case("bad.rejectsAside", [1]),
    "esm": Case("esm.handler", [1]),
    "esm-typed": Case("typed/index.handler", [1]),
    "cjs-nested": Case("nested/index.handler", [1]),
    "cjs-deep": Case("nested/index.deep.er.handler", [1]),
    "cjs-whole": Case("nested/default.handler", [1]),
    "stream": Case("streams.writes", [1, 2]),
    "stream-empty": Case("streams.ends", [1, 2]),
    "stream-pipeline": Case("streams.pipes", [1, 2]),
    "stream-http": Case("streams.http", [1, 2]),
    "stream-fails-before": Case("streams.failsBefore", [1, 2]),
    "stream-fails-between": Case("streams.failsBetween", [1, 2]),
    "stream-fails-after": Case("streams.failsAfter", [1, 2]),
    "stream-not-async": Case("streams.isNotAsync", [1]),
    "stream-returns": Case("streams.returns", [1, 2]),
    "stream-type-too-late": Case("streams.typeTooLate", [1]),
    "stream-high-water-mark": Case("streams.highWaterMark", [1]),
    "no-dot": Case("handler"),
    "up-and-away": Case("../x.handler"),
    "no-module": Case("nowhere.handler"),
    "no-function": Case("good.nothing"),
    "not-a-function": Case("bad.notAFunction"),
    "syntax-error": Case("syntax.handler"),
    "import-error": Case("imports.handler"),
    "import-error-esm": Case("imports_esm.handler"),
    "fails-at-import": Case("fails.handler"),
    "fails-at-import-json": Case("fails.handler", environment={"AWS_LAMBDA_LOG_FORMAT": "JSON"}),
    "exits-at-import": Case("quits.handler"),
    "empty-event": Case("good.echo", [b""], raw=True),
}

# From Node.js 24 on.
NODE_NEW = {
    "synchronous": Case("good.synchronous", [1]),
    "invoke-store": Case("good.store", [1]),
    "esm-default": Case("esm.other", [1]),
    "callback": Case("callbacks.answers"),
}

# Up to Node.js 22.
NODE_OLD = {
    "synchronous": Case("callbacks.returnsAValue", [1]),
    "callback": Case("callbacks.answers", [1, 2]),
    "callback-fails": Case("callbacks.fails", [0, 1, 2]),
    "callback-twice": Case("callbacks.answersTwice", [1, 2]),
    "callback-waits": Case("callbacks.waits", [1, 2]),
    "callback-does-not-wait": Case("callbacks.doesNotWait", [1, 2]),
    "callback-later": Case("callbacks.answersLater", [1, 2]),
    "says-nothing": Case("callbacks.saysNothing", [1, 2]),
    "context-succeed": Case("callbacks.succeeds", [1, 2]),
    "context-done": Case("callbacks.done", [0, 1]),
    "context-fail": Case("callbacks.failsWithNothing", [1]),
    "callback-cannot-be-json": Case("callbacks.cannotBeJson", [1]),
    "callback-throws": Case("callbacks.throws", [1]),
}


def node_program(major):
    """A Node.js of this major version; the test is skipped, with the reason, where there is none."""
    installed = INSTALLED / f"interpreters/node_modules/node{major}/bin/node"
    if installed.is_file():
        return str(installed)
    program = shutil.which("node")
    if program and subprocess.check_output([program, "--version"], text=True).startswith(f"v{major}."):
        return program
    pytest.skip(f"no Node.js {major}: tests/clients/setup brings it")


def official_client(version, entry):
    package = INSTALLED / version / "node_modules/aws-lambda-ric"
    if not any(package.rglob("rapid-client.node")):
        pytest.skip(f"aws-lambda-ric is not there: tests/clients/setup {version} says what building it lacks")
    return str(package / entry)


def differ_node(name, case, major, client):
    task_root = HANDLERS / "node"
    node = node_program(major)
    case.environment.setdefault("AWS_EXECUTION_ENV", f"AWS_Lambda_nodejs{major}.x")
    theirs = observe([node, *client, case.handler], case, task_root)
    ours = observe([node, OURS_NODE], case, task_root)
    if ours["outcomes"][0]["kind"] == "init-error":
        # AWS's clients throw the error once more after they logged and reported it, and Node.js prints it.
        ours["stderr"] = theirs["stderr"] = None
    compare(ours, theirs, differences.NODE.get(f"{name}-{major}") or differences.NODE.get(name))


@pytest.mark.parametrize("name", [*NODE, *NODE_NEW])
def test_node_24(name):
    differ_node(name, {**NODE, **NODE_NEW}[name], 24, [official_client("ric-4", "index.mjs")])


@pytest.mark.parametrize("name", [*NODE, *NODE_OLD])
def test_node_20(name):
    differ_node(name, {**NODE, **NODE_OLD}[name], 20, [official_client("ric-3", "bin/index.mjs")])
