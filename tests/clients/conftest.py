"""A Lambent node for the tests of this folder, and the real AWS clients to call it with.

`LAMBENT_BIN` names the binary under test; without it the last build in `target/` is taken, and without that the tests
that need a node are skipped. Every test makes its functions through the `node` fixture, which removes them afterwards.
"""

import contextlib
import http.client
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.parse
import zipfile
from pathlib import Path

import boto3
import botocore.config
import pytest

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
# Where the examples in Rust are built, whoever builds them.
EXAMPLES_TARGET = TARGET / "examples"
ROLE = "arn:aws:iam::000000000000:role/service-role/lambda"
START_SECONDS = 60

sys.path.insert(0, str(ROOT / "runtimes" / "python" / "tests"))  # the fake Runtime API


def binary():
    """The binary under test, or `None`."""
    named = os.environ.get("LAMBENT_BIN")
    candidates = [Path(named)] if named else [ROOT / "target" / kind / "lambent" for kind in ("release", "debug")]
    return next((path for path in candidates if path.is_file()), None)


def plain():
    """The environment without what concerns Lambent or AWS: nothing of the developer's gets into a test."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("LAMBENT_", "AWS_"))}


class Node:
    """A running `lambent serve` with its credentials."""

    def __init__(self, data_dir, *arguments):
        self.data_dir = Path(data_dir)
        self._names = itertools.count(1)
        self._created = []
        self.log_path = self.data_dir.with_suffix(".log")
        addresses = ["--listen", "127.0.0.1:0", "--listen-urls", "127.0.0.1:0"]
        command = [binary(), "serve", *addresses, "--data-dir", str(self.data_dir), *arguments]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=plain(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.endpoint = self._wait_until_ready()
        shown = subprocess.run(
            [binary(), "credentials", "--data-dir", str(self.data_dir), "--format", "env", "--json"],
            env=plain(),
            stdout=subprocess.PIPE,
            check=True,
        )
        self.key = json.loads(shown.stdout)

    def _wait_until_ready(self):
        watchdog = threading.Timer(START_SECONDS, self.process.kill)
        watchdog.start()
        for line in self.process.stdout:
            if line.startswith("ready "):
                watchdog.cancel()
                # Keep reading, so that the node never blocks on a full pipe.
                threading.Thread(target=self.process.stdout.read, daemon=True).start()
                return line.split()[1]
        watchdog.cancel()
        raise RuntimeError("the node did not start:\n" + self.log_path.read_text()[-4000:])

    def client(self, service, **config):
        """A boto3 client for this node; `config` goes to `botocore.config.Config`."""
        settings = {"retries": {"total_max_attempts": 1}, "read_timeout": 120, "max_pool_connections": 64}
        settings.update(config)
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=self.key["region"],
            aws_access_key_id=self.key["access_key_id"],
            aws_secret_access_key=self.key["secret_access_key"],
            config=botocore.config.Config(**settings),
        )

    def environment(self):
        """The environment with which AWS's command line and SDKs reach this node."""
        return {
            **plain(),
            "AWS_ACCESS_KEY_ID": self.key["access_key_id"],
            "AWS_SECRET_ACCESS_KEY": self.key["secret_access_key"],
            "AWS_DEFAULT_REGION": self.key["region"],
            "AWS_REGION": self.key["region"],
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            "SAM_CLI_TELEMETRY": "0",
            "AWS_PAGER": "",
        }

    def name(self, stem="function"):
        """A name that no other test of this node uses."""
        return f"{stem}-{next(self._names)}"

    def create(self, files, runtime=None, handler="app.handler", **parameters):
        """Creates a function of `files` (name to text or bytes), waits until it is active and returns its name."""
        name = parameters.pop("FunctionName", None) or self.name()
        lambda_ = self.client("lambda")
        lambda_.create_function(
            FunctionName=name,
            Runtime=runtime or self.python,
            Role=ROLE,
            Handler=handler,
            Code={"ZipFile": zip_of(files)},
            **parameters,
        )
        self._created.append(name)
        lambda_.get_waiter("function_active_v2").wait(
            FunctionName=name, WaiterConfig={"Delay": 0.05, "MaxAttempts": 600}
        )
        return name

    def invoke(self, name, payload=None, **parameters):
        """Invokes and returns `(response, payload)`, the payload parsed if it is JSON."""
        response = self.client("lambda").invoke(FunctionName=name, Payload=json.dumps(payload).encode(), **parameters)
        body = response["Payload"].read()
        try:
            return response, json.loads(body) if body else None
        except ValueError:
            return response, body

    @property
    def python(self):
        """A Python runtime that this machine has: the one the tests run on."""
        return "python3.{}".format(sys.version_info.minor)

    @property
    def nodejs(self):
        """The Node.js runtime of this machine; the test is skipped where there is none."""
        return f"nodejs{node_major()}.x"

    def forget(self):
        """Removes the functions that `create` made."""
        lambda_ = self.client("lambda")
        while self._created:
            with contextlib.suppress(lambda_.exceptions.ResourceNotFoundException):
                lambda_.delete_function(FunctionName=self._created.pop())

    def stop(self):
        """Ends the node as an operator would, and returns its exit status."""
        self.process.terminate()
        return self.process.wait(timeout=60)

    def kill(self):
        """Ends the node as a power cut would."""
        self.process.kill()
        self.process.wait()


def fetch(url, method="GET", body=None, headers=None):
    """Calls a function URL. Its host is a name below `localhost`, which not every resolver knows to be this machine."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=60)
    target = parts.path + ("?" + parts.query if parts.query else "")
    connection.request(method, target, body, {"Host": parts.netloc, **(headers or {})})
    response = connection.getresponse()
    response.payload = response.read()
    connection.close()
    return response


def zip_of(files):
    """A zip of `files`; a `bootstrap` and what starts with `#!` can be executed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            executable = name.endswith("bootstrap") or data.startswith((b"#!", b"\x7fELF"))
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o100755 if executable else 0o100644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return buffer.getvalue()


def node_major():
    """The major version of the `node` on the path."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("no `node` on the path")
    return int(subprocess.check_output([program, "--version"], text=True).lstrip("v").split(".")[0])


@pytest.fixture(scope="session")
def running_node(tmp_path_factory):
    """One node for the whole run."""
    if binary() is None:
        pytest.skip("no lambent binary: build it, or name it in LAMBENT_BIN")
    node = Node(tmp_path_factory.mktemp("lambent") / "data")
    yield node
    assert node.stop() == 0, node.log_path.read_text()[-4000:]


@pytest.fixture
def node(running_node):
    """The node, without the functions that the test made afterwards."""
    yield running_node
    running_node.forget()


@pytest.fixture
def lambda_(node):
    """A boto3 Lambda client."""
    return node.client("lambda")


@pytest.fixture
def logs(node):
    """A boto3 CloudWatch Logs client."""
    return node.client("logs")
