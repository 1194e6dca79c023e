"""Deadlines: what is learned from calls, and what events say of theirs."""

import pytest
from conftest import Node, binary

from test_events import messages, queue, wait_until
from test_executions import call, lambent

CALLEE = "def handler(event, context):\n    return {'got': event}\n"

PYTHON = """
import lambent
def handler(event, context):
    call = lambent.start(event["callee"], {})
    named = lambent.start(event["callee"], {}, site="naïve 名")
    return [call.result(), named.result()]
"""

NODE = """
const lambent = require('lambent');
exports.handler = async ({ callee }) => {
    const call = await lambent.start(callee, {});
    const named = await lambent.start(callee, {}, { site: 'naïve 名' });
    return [await call.result(), await named.result()];
};
"""


def learned(node, function):
    return lambent(node, "calls", function)


@pytest.mark.parametrize("runtime", ["python", "node"])
def test_what_is_learned_is_shown_by_place_in_the_code(node, runtime):
    callee = node.create({"app.py": CALLEE})
    code, name = (PYTHON, "app.py:4") if runtime == "python" else (NODE, "app.js:4")
    caller = node.create({name.split(":")[0]: code}, runtime=None if runtime == "python" else node.nodejs, Timeout=30)
    for _ in range(8):
        response, answer = node.invoke(caller, {"callee": callee})
        assert "FunctionError" not in response, answer
    used = lambda: [known for known in learned(node, caller) if "site" in known and known["is_used"]]  # noqa: E731
    needs = wait_until(lambda: len(found := used()) == 2 and found)
    assert sorted(need["site"] for need in needs) == sorted([name, "naïve 名"])
    assert all(need["callee"].endswith(f":function:{callee}") and need["count"] == 8 for need in needs)
    (duration,) = learned(node, callee)
    assert duration["count"] == 16 and duration["version"] == "$LATEST" and duration["expected_ms"] > 0


@pytest.fixture(scope="module")
def strict_node(tmp_path_factory):
    """A node where whatever can wait does."""
    if binary() is None:
        pytest.skip("no lambent binary: build it, or name it in LAMBENT_BIN")
    node = Node(tmp_path_factory.mktemp("deadlines") / "data", "--set", "calls.hold_back_from=0")
    yield node
    node.forget()
    assert node.stop() == 0, node.log_path.read_text()[-4000:]


def test_an_event_with_time_to_spare_waits_and_one_without_does_not(strict_node):
    node = strict_node
    function, results = node.create({"app.py": CALLEE}), node.name("results")
    config = {"OnSuccess": {"Destination": queue(results)}}
    node.client("lambda").put_function_event_invoke_config(FunctionName=function, DestinationConfig=config)
    for _ in range(8):
        node.invoke(function, 0)
    wait_until(lambda: any(known["is_used"] for known in learned(node, function)))
    for payload, deadline in ((1, {"X-Lambent-Deadline-Ms": "3600000"}), (2, {}), (3, {"X-Lambent-Deadline-Ms": "1500"})):
        response, _ = call(node, function, payload, {"X-Amz-Invocation-Type": "Event", **deadline})
        assert response.status_code == 202, response.text
    ran = wait_until(lambda: len(found := messages(node, results)) == 2 and found)
    assert [record["responsePayload"]["got"] for record in ran] == [2, 3]
    (held,) = lambent(node, "events", "list", "--function", function)
    assert held["latest_start"] > held["due_at"]
    lambent(node, "events", "drop", str(held["id"]))


def test_deadlines_that_make_no_sense_are_refused(node):
    function = node.create({"app.py": CALLEE})
    event = {"X-Amz-Invocation-Type": "Event"}
    for value in ("soon", "-1", "21600001", ""):
        response, _ = call(node, function, 1, {**event, "X-Lambent-Deadline-Ms": value})
        message = response.json()["message"]
        assert response.status_code == 400 and f'"{value}"' in message and "up to 21600000" in message, message
    response, _ = call(node, function, 1, {"X-Lambent-Deadline-Ms": "1000"})
    assert response.status_code == 400 and "is for events" in response.json()["message"]
