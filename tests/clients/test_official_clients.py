"""AWS's own runtime clients, unmodified, in Lambent's containers, beside our runtimes with the same handlers.

What `test_runtimes.py` compares under a fake Runtime API is compared here through the whole system, so that the real
one is proven as well: answers, error documents, what a process that ends is reported as, and the log.
"""

import base64
import importlib.metadata
import re
from pathlib import Path

import pytest
from conftest import ROOT

import differences

HANDLERS = Path(__file__).parent / "handlers"

# Handler and event. Each runs in a container of its own.
PYTHON = {
    "echo": ("good.echo", {"a": ["é", None]}),
    "context": ("good.shows_context", 1),
    "decimal": ("good.values", 10),
    "bytes": ("good.values", 12),
    "set": ("good.values", 22),
    "prints": ("good.prints", 1),
    "logs": ("good.logs", 1),
    "large-answer": ("good.answers_much", 5 * 1024 * 1024),
    "too-large-answer": ("good.answers_much", 7 * 1024 * 1024),
    "raises": ("bad.raises", 1),
    "recurses": ("bad.recurses", 1),
    "exits": ("bad.exits", 3),
    "exits-well": ("bad.exits", 0),
    "segfaults": ("bad.kills", 11),
    "is-killed": ("bad.kills", 9),
    "sleeps": ("more.sleeps", 60),
    "no-module": ("nowhere.handler", 1),
    "no-function": ("good.nothing", 1),
    "syntax-error": ("syntax.handler", 1),
    "fails-at-import": ("fails.handler", 1),
    "exits-at-import": ("quits.handler", 1),
}

NODE = {
    "echo": ("good.echo", {"a": ["é", None]}),
    "context": ("good.showsContext", 1),
    "logs": ("good.logs", 1),
    "large-answer": ("good.answersMuch", 5 * 1024 * 1024),
    "throws": ("bad.throws", 1),
    "exits": ("bad.exits", 3),
    "is-killed": ("bad.kills", 9),
    "no-module": ("nowhere.handler", 1),
    "no-function": ("good.nothing", 1),
    "fails-at-import": ("fails.handler", 1),
    "stream": ("streams.writes", 1),
    "stream-fails-before": ("streams.failsBefore", 1),
}


def files_of(folder):
    """The handlers of a language, as files of a package."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def observe(node, name, event):
    """What a caller sees of one invocation, without what differs in every call."""
    response, answer = node.invoke(name, event, LogType="Tail")
    request = response["ResponseMetadata"]["RequestId"]
    tail = base64.b64decode(response["LogResult"]).decode("utf-8", "replace").replace(request, "REQUEST")
    lines = [differences.normal(line) for line in tail.split("\n")]
    return {
        "status": response["StatusCode"],
        "error": response.get("FunctionError"),
        "answer": plain(answer, name, request),
        # The platform's own lines have times and sizes in them, and a tail of 4 KB begins anywhere.
        "log": sorted(
            line for line in lines[len(tail) >= 4000 :] if line and not re.match(r"START |END |REPORT |INIT_", line)
        ),
    }


def plain(answer, name, request):
    if isinstance(answer, dict):
        return {key: plain(value, name, request) for key, value in answer.items()}
    if isinstance(answer, list):
        return [line for line in (plain(value, name, request) for value in answer) if line != ""]
    if isinstance(answer, str):
        answer = re.sub(r"\[\$LATEST\][0-9a-f]{32}", "[$LATEST]STREAM", answer)
        return differences.normal(answer.replace(request, "REQUEST").replace(name, "NAME"))
    return answer


def awslambdaric():
    """The client and what it imports, as files of a package."""
    files = {}
    for distribution in ("awslambdaric", "simplejson", "snapshot-restore-py"):
        for file in importlib.metadata.files(distribution):
            if ".." not in file.parts and "__pycache__" not in file.parts:
                files[str(file)] = file.locate().read_bytes()
    return files


# A wrapper gets the runtime's command as its arguments, of which this one takes the interpreter. An interpreter that is
# not below /usr is visible in the containers of its own runtime only, so a `bootstrap` could not start it.
WRAPPER = '#!/bin/sh\nexec "$1" {} "$_HANDLER"\n'


def both(node, name, case, runtime, handlers, client, arguments):
    """What our runtime shows of a case, and what AWS's client shows."""
    handler, event = case
    ours = node.create(handlers, runtime=runtime, handler=handler, Timeout=5)
    theirs = node.create(
        {**handlers, **client, "wrapper": WRAPPER.format(arguments)},
        runtime=runtime,
        handler=handler,
        Timeout=5,
        Environment={"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/var/task/wrapper"}},
    )
    seen = observe(node, ours, event), observe(node, theirs, event)
    if name in differences.LOGS:
        logs = [each.pop("log") for each in seen]
        assert logs[0] != logs[1], f"no longer differs, so take it out of differences.py: {differences.LOGS[name]}"
    return seen


@pytest.mark.parametrize("case", PYTHON)
def test_awslambdaric(node, case):
    ours, theirs = both(
        node, case, PYTHON[case], node.python, files_of(HANDLERS / "python"), awslambdaric(), "-m awslambdaric"
    )
    assert ours == theirs


@pytest.mark.parametrize("case", NODE)
def test_aws_lambda_ric(node, case):
    package = ROOT / "target/node/ric-3/node_modules/aws-lambda-ric"
    native = package / "dist/rapid-client.node"
    if not native.is_file():
        pytest.skip("aws-lambda-ric is not there: tests/clients/setup ric-3 says what building it lacks")
    names = ("bin/index.mjs", "dist/index.mjs", "dist/rapid-client.node", "package.json")
    client = {f"client/{name}": (package / name).read_bytes() for name in names}
    ours, theirs = both(
        node, case, NODE[case], node.nodejs, files_of(HANDLERS / "node"), client, "/var/task/client/bin/index.mjs"
    )
    assert ours == theirs
