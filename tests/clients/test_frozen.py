"""Callers that are frozen while they wait for the functions they have called, in real cells."""

import glob
import json
import os
import signal
import subprocess
import threading
import time
import urllib.request
import uuid
from pathlib import Path

import pytest
from conftest import Node, binary, plain

CALLER = """
import lambent, os, threading

def handler(event, context):
    return globals()[event.pop("do")](**event)

def wait(callee, held, busy=None):
    if busy is not None:
        leave(busy)
    return lambent.start(callee, {"held": held}).result()

def leave(mark):
    # A process that is nobody's child any more, and busy for ever.
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 100)
            os.execv("/bin/sh", ["sh", "-c", "while :; do :; done", mark])
        os._exit(0)
    os.wait()

def wait_with_a_thread(callee, held):
    over = threading.Event()
    other = threading.Thread(target=over.wait)
    other.start()
    try:
        return wait(callee, held)
    finally:
        over.set()
        other.join()

def wait_with_a_child(callee, held):
    child = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {})
    try:
        return wait(callee, held)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)

def odd(callee):
    # Whatever it is told, but true and false.
    import http.client
    call = lambent.start(callee, {"held": ""})
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    connection.request("GET", f"/lambent/2026-11-24/calls/{call.id}?blocked=maybe")
    refused = connection.getresponse()
    return [refused.status, refused.getheader("x-amzn-errortype"), "blocked" in refused.read().decode(), call.result()]

def chain(name, depth):
    if depth == 0:
        return ["end"]
    return [depth] + lambent.start(name, {"do": "chain", "name": name, "depth": depth - 1}).result()
"""

# Answers when the process that it waits for has ended, which the test sees to from outside.
HELD = """
import subprocess

def handler(event, context):
    if event["held"]:
        subprocess.call(["sleep", event["held"]])
    return {"got": event}
"""

JS_CALLER = """
const lambent = require('lambent');
exports.handler = async ({ callee, held, blocked }) => (await lambent.start(callee, { held })).result({ blocked });
"""


def start_node(directory, *settings):
    if binary() is None:
        pytest.skip("no lambent binary: build it, or name it in LAMBENT_BIN")
    return Node(directory / "data", *[word for setting in settings for word in ("--set", setting)])


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    node = start_node(tmp_path_factory.mktemp("frozen"))
    yield node
    node.forget()
    assert node.stop() == 0, node.log_path.read_text()[-4000:]


def until(what, condition, within=60):
    deadline = time.monotonic() + within
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.01)


def states(node, function):
    """What the containers of a function are doing."""
    command = [binary(), "top", "--once", "--json", "--data-dir", str(node.data_dir)]
    shown = subprocess.run(command, env=plain(), stdout=subprocess.PIPE, check=True).stdout
    found = json.loads(shown)["fleet"]["containers"]
    return [container["state"] for container in found if function in container["function"].split(":")]


def metrics(node):
    with urllib.request.urlopen(node.endpoint + "/metrics", timeout=60) as answer:
        return answer.read().decode()


def mark():
    """A time to sleep for that names the sleeper."""
    return f"1000.{uuid.uuid4().int}"[:30]


def marked(text):
    """Processes of the host that bear this mark as an argument."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if text.encode() in arguments:
            found.append(int(path.parent.name))
    return found


def let_go(held):
    for pid in until("the function runs", lambda: marked(held)):
        os.kill(pid, signal.SIGKILL)


def cpu(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


def is_frozen(pid):
    """What the kernel says of the process's group, of whichever version the freezer is."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for mount in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/freezer"):
            events, state = Path(mount + path, "cgroup.events"), Path(mount + path, "freezer.state")
            if controllers == "" and events.is_file() and "frozen 1" in events.read_text():
                return True
            if controllers == "freezer" and state.is_file() and state.read_text() == "FROZEN\n":
                return True
    return False


class Invocation:
    """One that goes on meanwhile."""

    def __init__(self, node, function, payload):
        self._node, self._function, self._payload = node, function, payload
        self.answer = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        try:
            self.answer = self._node.invoke(self._function, self._payload)
        except Exception as error:
            self.answer = error

    def wait(self):
        self._thread.join(120)
        return self.answer


@pytest.fixture
def pair(node):
    return node.create({"app.py": CALLER}, Timeout=60), node.create({"app.py": HELD}, Timeout=60)


def freezes(node):
    found = subprocess.run(
        [binary(), "doctor", "--json", "--data-dir", str(node.data_dir), "--listen", "127.0.0.1:0"],
        env=plain(),
        stdout=subprocess.PIPE,
    )
    findings = json.loads(found.stdout)
    findings = findings.get("findings", findings) if isinstance(findings, dict) else findings
    return any(one["subject"] == "freezer" and one["verdict"] == "good" for one in findings)


@pytest.fixture(autouse=True)
def with_a_freezer(node):
    if not freezes(node):
        pytest.skip("this machine cannot freeze")


def test_who_waits_is_frozen_until_the_answer_is_there(node, pair):
    caller, callee = pair
    held, busy = mark(), mark()
    invocation = Invocation(node, caller, {"do": "wait", "callee": callee, "held": held, "busy": busy})
    try:
        until("it is frozen", lambda: "frozen" in states(node, caller))
        (pid,) = marked(busy)
        assert is_frozen(pid)
        before, own = cpu(pid), time.process_time()
        while time.process_time() < own + 0.2:
            pass
        assert cpu(pid) <= before + 1
        assert "lambent_frozen_containers 1" in metrics(node)
        until("its memory is reclaimed", lambda: "lambent_reclaimed_bytes_total" in metrics(node))
        let_go(held)
        response, answer = invocation.wait()
        assert "FunctionError" not in response and answer == {"got": {"held": held}}
        assert not is_frozen(pid)
        assert "lambent_frozen_containers 0" in metrics(node) and "lambent_thaw_seconds_count 1" in metrics(node)
        until("it goes on", lambda: cpu(pid) > before + 5)
    finally:
        for pid in marked(busy) + marked(held):
            os.kill(pid, signal.SIGKILL)


def test_who_does_something_else_is_not_frozen(node, pair):
    caller, callee = pair
    working = [node.create({"app.py": CALLER}, Timeout=60) for _ in range(2)]
    marks = [mark() for _ in range(3)]
    runs = [
        Invocation(node, working[0], {"do": "wait_with_a_thread", "callee": callee, "held": marks[0]}),
        Invocation(node, working[1], {"do": "wait_with_a_child", "callee": callee, "held": marks[1]}),
    ]
    until("both wait", lambda: all(marked(held) for held in marks[:2]))
    # Whoever begins to wait later, and does nothing else, is frozen before.
    runs.append(Invocation(node, caller, {"do": "wait", "callee": callee, "held": marks[2]}))
    until("it is frozen", lambda: states(node, caller) == ["frozen"])
    assert [states(node, one) for one in working] == [["busy"], ["busy"]]
    for held, run in zip(marks, runs, strict=True):
        let_go(held)
        response, answer = run.wait()
        assert "FunctionError" not in response and answer == {"got": {"held": held}}


def test_what_is_no_answer_to_the_question_is_refused(node, pair):
    caller, callee = pair
    _, answer = node.invoke(caller, {"do": "odd", "callee": callee})
    assert answer == [400, "InvalidParameterValueException", True, {"got": {"held": ""}}]


def test_a_time_out_ends_the_frozen(node, pair):
    _, callee = pair
    caller = node.create({"app.py": CALLER}, Timeout=3)
    held, busy = mark(), mark()
    invocation = Invocation(node, caller, {"do": "wait", "callee": callee, "held": held, "busy": busy})
    until("it is frozen", lambda: "frozen" in states(node, caller))
    response, answer = invocation.wait()
    assert response["FunctionError"] == "Unhandled"
    assert answer["errorMessage"].endswith("Task timed out after 3.00 seconds")
    until("nothing of it is left", lambda: not marked(busy))
    let_go(held)
    response, answer = node.invoke(caller, {"do": "wait", "callee": callee, "held": ""})
    assert "FunctionError" not in response and answer == {"got": {"held": ""}}


def test_node_functions_are_frozen_where_they_say_so(node, pair):
    _, callee = pair
    marks = [mark(), mark()]
    callers = [node.create({"app.js": JS_CALLER}, runtime=node.nodejs, Timeout=60) for _ in marks]
    silent = Invocation(node, callers[0], {"callee": callee, "held": marks[0], "blocked": False})
    until("it waits", lambda: marked(marks[0]))
    saying = Invocation(node, callers[1], {"callee": callee, "held": marks[1], "blocked": True})
    until("it is frozen", lambda: states(node, callers[1]) == ["frozen"])
    assert states(node, callers[0]) == ["busy"]
    for held, run in zip(marks, (silent, saying), strict=True):
        let_go(held)
        response, answer = run.wait()
        assert "FunctionError" not in response and answer == {"got": {"held": held}}


def test_a_chain_deeper_than_the_node_has_room_ends(tmp_path):
    node = start_node(tmp_path, "fleet.containers=2", "fleet.memory_mib=300")
    try:
        chain = node.create({"app.py": CALLER}, Timeout=60)
        response, answer = node.invoke(chain, {"do": "chain", "name": chain, "depth": 12})
        assert "FunctionError" not in response, answer
        assert answer == [*range(12, 0, -1), "end"]
    finally:
        node.forget()
        assert node.stop() == 0, node.log_path.read_text()[-4000:]


def test_kill_9_of_the_node_leaves_nothing_of_the_frozen(tmp_path):
    node = start_node(tmp_path)
    caller, callee = node.create({"app.py": CALLER}, Timeout=60), node.create({"app.py": HELD}, Timeout=60)
    held, busy = mark(), mark()
    invocation = Invocation(node, caller, {"do": "wait", "callee": callee, "held": held, "busy": busy})
    until("it is frozen", lambda: "frozen" in states(node, caller))
    pid = node.process.pid
    assert glob.glob(f"/sys/fs/cgroup/**/lambent-{pid}-*", recursive=True)
    node.kill()
    assert isinstance(invocation.wait(), Exception)
    node = start_node(tmp_path)
    try:
        until("nothing of it is left", lambda: not marked(busy) and not marked(held))
        assert not glob.glob(f"/sys/fs/cgroup/**/lambent-{pid}-*", recursive=True)
        response, answer = node.invoke(caller, {"do": "wait", "callee": callee, "held": ""})
        assert "FunctionError" not in response and answer == {"got": {"held": ""}}
    finally:
        node.client("lambda").delete_function(FunctionName=caller)
        node.client("lambda").delete_function(FunctionName=callee)
        assert node.stop() == 0, node.log_path.read_text()[-4000:]
