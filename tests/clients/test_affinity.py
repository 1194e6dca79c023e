"""Affinity: calls with one value of the function's routing parameter go to one container; what that saves; what it survives."""

import json
import random
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from conftest import Node, binary, fetch, plain

from test_events import messages, queue, wait_until
from test_executions import call, lambent

# A container that tells who it is, and which of its values it has seen before.
CODE = """
import os, signal, time, uuid
ME, seen = str(uuid.uuid4()), []
def handler(event, context):
    if isinstance(event, dict) and event.get("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(event.get("sleep", 0) if isinstance(event, dict) else 0)
    seen.append(1)
    return {"container": ME, "calls": len(seen)}
"""

# As a model server does: as many models as fit, the least recently used goes first. Loading writes every page, as reading a file would, and
# takes its time: a call waits for its value's container as long as a hit saves, also on a machine that has other things to do.
MODELS = """
import collections, time
models = collections.OrderedDict()
def handler(event, context):
    key, size, most = event["key"], event["mib"] << 20, event["most"]
    hit = key in models
    if hit:
        models.move_to_end(key)
    else:
        while len(models) >= most:
            models.popitem(last=False)
        model = bytearray(size)
        for at in range(0, size, 4096):
            model[at] = 1
        models[key] = model
        time.sleep(0.1)
    return {"hit": hit, "value": models[key][0]}
"""
KEYS, CONTAINERS, THREADS = 100, 10, 10


@pytest.fixture
def function(node):
    return node.create({"app.py": CODE})


def affinity(response):
    return response.headers.get("x-lambent-affinity")


def refused(node, *arguments):
    """What a client command says that fails."""
    command = [binary(), *arguments, "--data-dir", str(node.data_dir)]
    done = subprocess.run(command, env=plain(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    return done.stderr


def test_the_setting_is_set_shown_and_removed(node, function):
    assert lambent(node, "affinity", "show", function) == {"by": None}
    assert affinity(call(node, function, {"user": 1})[0]) is None
    for by in ("header:x-user", "query:user", "$.user.id", "account", "address"):
        assert lambent(node, "affinity", "set", function, by) == {"by": by}
        assert lambent(node, "affinity", "show", function) == {"by": by}
    assert "no routing parameter" in refused(node, "affinity", "set", function, "user")
    assert '"$.a[" is no JSONPath' in refused(node, "affinity", "set", function, "$.a[")
    assert "307 bytes; 255 are the most" in refused(node, "affinity", "set", function, "header:" + "x" * 300)
    assert "Function not found" in refused(node, "affinity", "set", "nobody", "account")
    assert lambent(node, "affinity", "remove", function) == {"by": None}


def busy_elsewhere(node, function, count):
    """Makes so many containers, all idle."""
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(lambda _: node.invoke(function, {"sleep": 1}), range(count)))


def test_each_parameter_leads_to_its_container(node, function):
    busy_elsewhere(node, function, 3)

    def twice(headers=None, payload=None):
        answers = []
        for _ in range(3):
            # What came before made another container the most recently used.
            node.invoke(function)
            response, _ = call(node, function, payload or {}, headers)
            answers.append((affinity(response), response.json()["container"]))
        assert len({container for _, container in answers}) == 1
        return [found for found, _ in answers]

    first = ["miss", "hit", "hit"]
    assert twice({"X-Lambent-Affinity": "own"}) == first, "without any setting"
    lambent(node, "affinity", "set", function, "header:X-User")
    assert twice({"X-User": "ada"}) == first
    assert twice({"X-Lambent-Affinity": "ada"}) == ["hit"] * 3, "the same value by another way"
    assert twice({"X-User": "bob", "X-Lambent-Affinity": "ada"}) == ["hit"] * 3, "the request's own word counts"
    lambent(node, "affinity", "set", function, "$.user.id")
    assert twice(payload={"user": {"id": "eve"}}) == first
    assert affinity(call(node, function, {"user": 1})[0]) is None, "no value there"
    for by in ("account", "address"):
        lambent(node, "affinity", "set", function, by)
        assert [affinity(call(node, function, {})[0]) for _ in range(2)] == ["miss", "hit"]
    response, _ = call(node, function, {}, {"X-Lambent-Affinity": "v" * 256})
    assert (response.status_code, response.headers["x-amzn-errortype"]) == (400, "InvalidParameterValueException")
    assert response.json()["message"] == "X-Lambent-Affinity has 256 bytes; a value has 1 to 255"


def test_a_function_url_has_it_too(node, function, lambda_):
    lambent(node, "affinity", "set", function, "query:user")
    url = lambda_.create_function_url_config(FunctionName=function, AuthType="NONE")["FunctionUrl"]
    permission = {"FunctionName": function, "Principal": "*"}
    lambda_.add_permission(**permission, StatementId="a", Action="lambda:InvokeFunctionUrl", FunctionUrlAuthType="NONE")
    lambda_.add_permission(**permission, StatementId="b", Action="lambda:InvokeFunction", InvokedViaFunctionUrl=True)
    answers = [fetch(url + "?user=ada") for _ in range(2)]
    assert [answer.getheader("x-lambent-affinity") for answer in answers] == ["miss", "hit"], answers[0].payload
    assert fetch(url, headers={"X-Lambent-Affinity": "ada"}).getheader("x-lambent-affinity") == "hit"
    assert fetch(url).getheader("x-lambent-affinity") is None
    assert fetch(url, headers={"X-Lambent-Affinity": "v" * 256}).status == 400


def test_events_carry_it(node, function, lambda_):
    busy_elsewhere(node, function, 2)
    mine = call(node, function, {}, {"X-Lambent-Affinity": "ada"})[0].json()["container"]
    node.invoke(function)
    results = node.name("results")
    lambda_.put_function_event_invoke_config(
        FunctionName=function, DestinationConfig={"OnSuccess": {"Destination": queue(results)}}
    )
    for _ in range(3):
        response, _ = call(node, function, {}, {"X-Amz-Invocation-Type": "Event", "X-Lambent-Affinity": "ada"})
        assert response.status_code == 202
    records = wait_until(lambda: len(found := messages(node, results)) == 3 and found)
    assert {record["responsePayload"]["container"] for record in records} == {mine}


def test_people_see_it(node, function):
    secret = "not-to-be-seen"
    command = [binary(), "invoke", function, "{}", "--trace", "--affinity", secret, "--data-dir", str(node.data_dir)]
    for found in ("miss", "hit"):
        ran = subprocess.run(command, env=plain(), capture_output=True, text=True, check=True)
        assert re.search(rf"^affinity +{found}$", ran.stderr, re.MULTILINE), ran.stderr
    traced = lambent(node, "invoke", function, "{}", "--trace", "--affinity", secret)
    assert traced["trace"]["affinity"] == "hit"
    metrics = requests.get(f"{node.endpoint}/metrics", timeout=60).text
    assert f'lambent_affinity_requests_total{{function="{function}",outcome="hit"}} 2' in metrics
    assert f'lambent_affinity_gain_seconds{{function="{function}"}}' in metrics
    status = lambent(node, "top", "--once", "--affinity")
    [mine] = [each for each in status["fleet"]["affinity"] if f":{function}:" in each["function"]]
    assert (mine["values"], mine["containers"], mine["hits"], mine["misses"], mine["spills"]) == (1, 1, 2, 1, 0)
    assert mine["gain_ms"] is not None and mine["bytes"] > 0
    top = [binary(), "top", "--once", "--affinity", "--data-dir", str(node.data_dir)]
    shown = subprocess.run(top, env=plain(), capture_output=True, text=True, check=True).stdout
    [row] = [line for line in shown.splitlines() if line.startswith(function + ":")]
    assert row.split()[:4] == [f"{function}:$LATEST", "1", "1", "3"]
    assert secret not in metrics and secret not in json.dumps(status) and secret not in node.log_path.read_text()


def test_a_busy_container_is_waited_for_then_left(node, function):
    own = {"X-Lambent-Affinity": "ada"}
    home = call(node, function, {}, own)[0].json()["container"]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(call, node, function, {"sleep": 2}, own)
        wait_until(lambda: any(each["state"] == "busy" for each in mine(node, function)))
        response, _ = call(node, function, {}, own)
        assert (affinity(response), response.json()["container"] != home) == ("spill", True)
        assert running.result()[0].json()["container"] == home
    response, _ = call(node, function, {}, own)
    assert (affinity(response), response.json()["container"]) == ("hit", home), "a spill is a visit"


def mine(node, function):
    containers = lambent(node, "top", "--once")["fleet"]["containers"]
    return [each for each in containers if f":{function}:" in each["function"]]


def test_a_killed_container_is_replaced(node, function):
    own = {"X-Lambent-Affinity": "ada"}
    home = call(node, function, {}, own)[0].json()["container"]
    call(node, function, {"die": True}, own)
    response, _ = call(node, function, {}, own)
    assert (response.status_code, affinity(response)) == (200, "miss")
    assert "x-amz-function-error" not in response.headers and response.json()["container"] != home
    assert affinity(call(node, function, {}, own)[0]) == "hit"


def hit_share(node, function, keys, mib, most):
    """The share of hits that the function sees, after a round with every key; ten threads call."""
    client = node.client("lambda", max_pool_connections=THREADS)

    def one(key):
        payload = json.dumps({"key": key, "mib": mib, "most": most}).encode()
        response = client.invoke(FunctionName=function, Payload=payload)
        answer = json.loads(response["Payload"].read())
        assert "FunctionError" not in response, answer
        return answer["hit"]

    chance = random.Random(7)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, range(keys)))
        hits = list(pool.map(one, [chance.randrange(keys) for _ in range(5 * keys)]))
    return sum(hits) / len(hits)


@pytest.fixture
def small_node(tmp_path):
    """A node with room for ten containers."""
    if binary() is None:
        pytest.skip("no lambent binary: build it, or name it in LAMBENT_BIN")
    node = Node(tmp_path / "data", "--set", f"fleet.containers={CONTAINERS}")
    yield node
    assert node.stop() == 0


def test_a_function_that_keeps_models_finds_them(small_node):
    """A container has room for 13 of 100 models. `cargo xtask bench affinity` does the same with models of 50 MB."""
    shares, node = {}, small_node
    for by in ("$.key", None):
        function = node.create({"app.py": MODELS}, MemorySize=512, Timeout=30)
        if by:
            lambent(node, "affinity", "set", function, by)
        shares[by] = hit_share(node, function, KEYS, mib=4, most=13)
        assert len(mine(node, function)) <= CONTAINERS
        node.client("lambda").delete_function(FunctionName=function)
    assert shares["$.key"] >= 0.9, shares
    assert shares[None] <= 0.2, shares


KEEPS = """
import time
kept = {}
def handler(event, context):
    if event["key"] not in kept:
        time.sleep(0.2)
        kept[event["key"]] = b"x" * (64 << 20)
"""


def test_what_holds_values_is_kept_longer(tmp_path):
    if binary() is None:
        pytest.skip("no lambent binary: build it, or name it in LAMBENT_BIN")
    node = Node(tmp_path / "data", "--set", "fleet.idle=1s")
    keeping = node.create({"app.py": KEEPS}, MemorySize=512)
    ordinary = node.create({"app.py": CODE})
    lambent(node, "affinity", "set", keeping, "$.key")
    for _ in range(2):
        node.invoke(keeping, {"key": "a"})
    [before] = mine(node, keeping)
    # Twice: its second time of being idle begins after the other one's was over.
    for _ in range(2):
        node.invoke(ordinary)
        wait_until(lambda: not mine(node, ordinary))
    [after] = mine(node, keeping)
    assert (after["id"], after["state"]) == (before["id"], "idle")
    lambent(node, "affinity", "remove", keeping)
    assert node.stop() == 0
