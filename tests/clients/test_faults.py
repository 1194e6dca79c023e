"""What goes wrong in functions, and that the next call is clean."""

import json
import re

import botocore.exceptions
import pytest

MIB = 1024 * 1024

FAULTY = """
import ctypes, os, signal, sys, time
broken = False
def handler(event, context):
    global broken
    if broken: return "the container of a failed call"
    kind = event.get("kind")
    broken = kind in ("exit", "sys.exit", "segfault", "kill", "sleep", "deaf", "memory", "fork")
    if kind == "exit": os._exit(event["status"])
    if kind == "sys.exit": sys.exit(event["status"])
    if kind == "segfault": ctypes.string_at(0)
    if kind == "kill": os.kill(os.getpid(), signal.SIGKILL)
    if kind == "sleep": time.sleep(event["seconds"])
    if kind == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(event["seconds"])
    if kind == "memory":
        hog = []
        while True: hog.append(bytearray(16 * 1024 * 1024))
    if kind == "much": return "x" * event["bytes"]
    if kind == "flood":
        for _ in range(event["lines"]): print("x" * 1000)
    if kind == "disk":
        with open("/tmp/big", "wb") as big:
            for _ in range(event["mib"]): big.write(bytes(1024 * 1024))
    if kind == "fork":
        for _ in range(100000): os.fork() or time.sleep(60)
    return "clean"
"""


@pytest.fixture
def faulty(node):
    return node.create({"app.py": FAULTY}, Timeout=10, MemorySize=128)


def assert_exit(node, name, event, message):
    response, answer = node.invoke(name, event)
    request = response["ResponseMetadata"]["RequestId"]
    assert (response["StatusCode"], response["FunctionError"]) == (200, "Unhandled")
    assert answer == {"errorType": "Runtime.ExitError", "errorMessage": f"RequestId: {request} Error: {message}"}
    assert node.invoke(name, {})[1] == "clean"


def test_a_process_that_exits(node, faulty):
    assert_exit(node, faulty, {"kind": "exit", "status": 3}, "Runtime exited with error: exit status 3")
    assert_exit(node, faulty, {"kind": "sys.exit", "status": 4}, "Runtime exited with error: exit status 4")
    assert_exit(node, faulty, {"kind": "exit", "status": 0}, "Runtime exited without providing a reason")


def test_a_process_that_is_killed(node, faulty):
    assert_exit(node, faulty, {"kind": "kill"}, "Runtime exited with error: signal: killed")
    response, answer = node.invoke(faulty, {"kind": "segfault"})
    assert answer["errorType"] == "Runtime.ExitError"
    assert "Runtime exited with error: signal: segmentation fault" in answer["errorMessage"]


@pytest.mark.parametrize("kind", ["sleep", "deaf"])
def test_a_time_out(node, kind):
    name = node.create({"app.py": FAULTY}, Timeout=1)
    response, answer = node.invoke(name, {"kind": kind, "seconds": 30})
    request = response["ResponseMetadata"]["RequestId"]
    assert response["FunctionError"] == "Unhandled"
    assert answer == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": f"RequestId: {request} Error: Task timed out after 1.00 seconds",
    }
    assert node.invoke(name, {})[1] == "clean"


def test_out_of_memory(node, faulty):
    response, answer = node.invoke(faulty, {"kind": "memory"})
    assert response["FunctionError"] == "Unhandled"
    assert answer["errorType"] in ("Runtime.OutOfMemory", "MemoryError")
    assert node.invoke(faulty, {})[0].get("FunctionError") is None


def test_large_payloads(node, faulty):
    response, answer = node.invoke(faulty, {"kind": "much", "bytes": 5 * MIB})
    assert len(answer) == 5 * MIB
    response, answer = node.invoke(faulty, {"kind": "echo", "padding": "x" * (5 * MIB)})
    assert answer == "clean"


def test_an_answer_that_is_too_large(node, faulty):
    response, answer = node.invoke(faulty, {"kind": "much", "bytes": 7 * MIB})
    assert response["FunctionError"] == "Unhandled"
    assert answer["errorType"] == "Function.ResponseSizeTooLarge"
    assert re.fullmatch(
        r"Response payload size exceeded maximum allowed payload size \(6291556 bytes\)\.", answer["errorMessage"]
    )
    assert node.invoke(faulty, {})[0].get("FunctionError") is None


def test_an_event_that_is_too_large(node, faulty):
    lambda_ = node.client("lambda")
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        lambda_.invoke(FunctionName=faulty, Payload=json.dumps("x" * (6 * MIB)))
    assert caught.value.response["Error"]["Code"] == "RequestTooLargeException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413


def test_an_event_that_is_not_json(node, faulty):
    lambda_ = node.client("lambda")
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        lambda_.invoke(FunctionName=faulty, Payload=b"{")
    assert caught.value.response["Error"]["Code"] == "InvalidRequestContentException"
    assert caught.value.response["Error"]["Message"].startswith("Could not parse request body into json: ")


def test_a_flood_of_lines(node, faulty):
    assert node.invoke(faulty, {"kind": "flood", "lines": 20000})[1] == "clean"


def test_a_full_disk_is_the_functions_own(node, faulty):
    response, answer = node.invoke(faulty, {"kind": "disk", "mib": 600})
    assert (response["FunctionError"], answer["errorType"]) == ("Unhandled", "OSError")
    assert "No space left on device" in answer["errorMessage"]
    other = node.create({"app.py": FAULTY})
    assert node.invoke(other, {"kind": "disk", "mib": 10})[1] == "clean"


def test_a_fork_bomb_ends_with_its_container(node):
    name = node.create({"app.py": FAULTY}, Timeout=3)
    response, answer = node.invoke(name, {"kind": "fork"})
    assert response["FunctionError"] == "Unhandled"
    assert node.invoke(name, {})[1] == "clean"


@pytest.mark.parametrize(
    "code, handler, kind, message",
    [
        ("", "app.handler", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'app'"),
        ("", "nope.handler", "Runtime.ImportModuleError", "Unable to import module 'nope': No module named 'nope'"),
        ("def", "app.handler", "Runtime.UserCodeSyntaxError", "Syntax error in module 'app': invalid syntax"),
        ("1/0", "app.handler", "ZeroDivisionError", "division by zero"),
    ],
)
def test_a_failed_init(node, code, handler, kind, message):
    name = node.create({"app.py": code}, handler=handler)
    for _ in range(2):
        response, answer = node.invoke(name)
        assert (response["StatusCode"], response["FunctionError"]) == (200, "Unhandled")
        assert answer["errorType"] == kind
        assert answer["errorMessage"].startswith(message)


def test_an_init_that_exits(node):
    name = node.create({"app.py": "import sys; sys.exit(5)"})
    response, answer = node.invoke(name)
    assert answer["errorType"] == "Runtime.ExitError"
    assert "Runtime exited with error: exit status 5" in answer["errorMessage"]


def test_a_bootstrap_that_is_none(node):
    for files, error in (
        ({"readme": "nothing to run"}, "Runtime.InvalidEntrypoint"),
        ({"bootstrap": "#!/no/such/interpreter\n"}, "Runtime.InvalidEntrypoint"),
        ({"bootstrap": "#!/bin/sh\nexit 6\n"}, "Runtime.ExitError"),
    ):
        name = node.create(files, runtime="provided.al2023", handler="x")
        response, answer = node.invoke(name)
        assert (response["FunctionError"], answer["errorType"]) == ("Unhandled", error)


def test_a_wrapper_runs_with_the_runtime_as_its_arguments(node):
    wrapper = '#!/bin/sh\nexport WRAPPED="$#"\nexec "$@"\n'
    code = "import os\ndef handler(event, context):\n    return os.environ['WRAPPED']\n"
    files = {"app.py": code, "wrapper": wrapper}
    name = node.create(files, Environment={"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/var/task/wrapper"}})
    assert int(node.invoke(name)[1]) >= 2
