"""A node that ends, politely or not, and starts again on the same data."""

import threading
import time
import urllib.request

import pytest
from conftest import Node, binary

CODE = """
import time
def handler(event, context):
    time.sleep(event)
    return "done"
"""


@pytest.fixture
def start(tmp_path):
    """Starts a node on the test's own data; ends it with the test."""
    if binary() is None:
        pytest.skip("no lambent binary: build it, or name it in LAMBENT_BIN")
    nodes = []

    def run():
        nodes.append(Node(tmp_path / "data"))
        return nodes[-1]

    yield run
    for node in nodes:
        if node.process.poll() is None:
            node.kill()


def test_functions_survive_kill_9(start):
    node = start()
    name = node.create({"app.py": CODE})
    version = node.client("lambda").publish_version(FunctionName=name)["Version"]
    assert node.invoke(name, 0)[1] == "done"
    key = node.key
    node.kill()
    again = start()
    assert again.key["access_key_id"] == key["access_key_id"]
    assert again.invoke(name, 0)[1] == "done"
    assert again.invoke(name, 0, Qualifier=version)[1] == "done"
    assert again.stop() == 0


def test_a_running_call_ends_before_the_node(start):
    node = start()
    name = node.create({"app.py": CODE}, Timeout=30)
    node.invoke(name, 0)
    answers = []
    caller = threading.Thread(target=lambda: answers.append(node.invoke(name, 1.5)[1]))
    caller.start()
    wait_until(lambda: running_calls(node) > 0)
    assert node.stop() == 0
    caller.join(30)
    assert answers == ["done"]


def running_calls(node):
    """Calls that run now, from the node's own metrics."""
    with urllib.request.urlopen(node.endpoint + "/metrics", timeout=10) as response:
        text = response.read().decode()
    (line,) = [line for line in text.splitlines() if line.startswith('lambent_containers{state="busy"}')]
    return int(line.split()[-1])


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
