"""A Runtime API just large enough to drive a runtime in tests, and a way to run one under it.

Standard library only, since it runs on every interpreter that the runtime supports.
"""

import contextlib
import http.client
import json
import os
import queue
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

http.client._MAXLINE = 2 * 1024 * 1024  # AWS's clients send causes for X-Ray of up to a megabyte in one header
_LIMIT_SECONDS = 30  # for a runtime to do what a test waits for; only a broken one takes as long


class Outcome:
    """How one invocation, or the initialisation, ended."""

    def __init__(self, kind, headers=None, body=b"", trailers=None, exit_status=None):
        self.kind = kind  # "response", "error", "init-error" or "exit"
        self.headers = headers or {}
        self.body = body
        self.trailers = trailers or {}
        self.exit_status = exit_status

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return "Outcome({}, {!r}, exit_status={})".format(self.kind, self.body[:500], self.exit_status)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A runtime that is killed resets its connection: nothing to say."""


class FakeRuntimeApi:
    """Hands out the events that `invoke` is given, and keeps what comes back."""

    def __init__(self):
        self._events = queue.Queue()
        self.outcomes = queue.Queue()
        self.polls = queue.Queue()
        # Held from an answer to its outcome: a runtime that ends because of the one is not heard of before the other.
        self.answering = threading.Lock()
        handler = type("Handler", (_Handler,), {"api": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.address = "127.0.0.1:{}".format(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self._count = 0

    def submit(self, body, headers=None):
        self._count += 1
        request_id = "00000000-0000-4000-8000-{:012d}".format(self._count)
        standard = {
            "Lambda-Runtime-Aws-Request-Id": request_id,
            "Lambda-Runtime-Deadline-Ms": str(int(time.time() * 1000) + 30000),
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:000000000000:function:test",
            "Lambda-Runtime-Trace-Id": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
            "Content-Type": "application/json",
        }
        standard.update(headers or {})
        self._events.put((standard, body))
        return request_id

    def next_event(self):
        self.polls.put(None)
        return self._events.get()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_GET(self):
        event = self.api.next_event()
        if event is None:
            self.close_connection = True
            return
        headers, body = event
        self.send_response(200)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body, trailers = self._read_body()
        path = self.path.split("/")
        kind = "init-error" if path[-2] == "init" else path[-1]
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.api.answering:
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()
            self.wfile.flush()
            self.api.outcomes.put(Outcome(kind, headers, body, trailers))

    def _read_body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0))), {}
        body = b""
        while True:
            size = int(self.rfile.readline().split(b";")[0], 16)
            if size == 0:
                break
            body += self.rfile.read(size)
            self.rfile.readline()
        trailers = {}
        while True:
            line = self.rfile.readline().strip()
            if not line:
                return body, trailers
            name, _, value = line.decode().partition(":")
            trailers[name.lower()] = value.strip()


class RunningRuntime:
    """A runtime process under a fake Runtime API."""

    def __init__(self, command, environment, cwd, telemetry, waits=False):
        self.api = FakeRuntimeApi()
        self._stdout, self._stderr, self._frames = [], [], []
        self._telemetry_fd, writer = os.pipe() if telemetry else (None, None)
        if telemetry:
            os.set_inheritable(writer, True)
        own = {"_LAMBDA_TELEMETRY_LOG_FD": str(writer)} if telemetry else {}
        environment = dict(environment, AWS_LAMBDA_RUNTIME_API=self.api.address)
        order, order_writer = os.pipe() if waits else (None, None)
        if waits:
            os.write(order_writer, json.dumps({"env": environment, "cwd": cwd}).encode())
            os.close(order_writer)
            os.set_inheritable(order, True)
            own.update(_LAMBENT_ORDER_FD=str(order), STALE="1")
            environment, cwd = {"LANG": "en_US.UTF-8", "TZ": ":UTC"}, "/"
        environment = dict(environment, **own)
        self.process = subprocess.Popen(
            command,
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[descriptor for descriptor in (writer, order) if descriptor is not None],
        )
        if waits:
            os.close(order)
        if telemetry:
            os.close(writer)
        self._readers = [
            self._drain(self.process.stdout.read1, self._stdout),
            self._drain(self.process.stderr.read1, self._stderr),
        ]
        if telemetry:
            self._readers.append(self._drain(lambda size: os.read(self._telemetry_fd, size), self._frames))
        threading.Thread(target=self._report_exit, daemon=True).start()

    @staticmethod
    def _drain(read, chunks):
        def run():
            while True:
                data = read(65536)
                if not data:
                    return
                chunks.append(data)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def _report_exit(self):
        ended = Outcome("exit", exit_status=self.process.wait())
        with self.api.answering:
            self.api.outcomes.put(ended)
        self.api.polls.put(None)

    def settle(self, answered):
        """Waits until the runtime asks for the event after `answered` ones, or ends: until then it may still log."""
        for _ in range(answered + 1):
            self.api.polls.get(timeout=_LIMIT_SECONDS)

    def invoke(self, event=None, raw=None, headers=None):
        """Sends one event and waits for what comes of it."""
        self.api.submit(json.dumps(event).encode() if raw is None else raw, headers)
        return self.outcome()

    def outcome(self):
        return self.api.outcomes.get(timeout=_LIMIT_SECONDS)

    def exit_status(self):
        return self.process.wait(timeout=_LIMIT_SECONDS)

    def close(self):
        """Ends the runtime; its output is complete afterwards."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join(_LIMIT_SECONDS)
        self.process.stdout.close()
        self.process.stderr.close()
        if self._telemetry_fd is not None:
            os.close(self._telemetry_fd)
        self.api.close()

    @property
    def stdout(self):
        return b"".join(self._stdout).decode("utf-8", "replace")

    @property
    def stderr(self):
        return b"".join(self._stderr).decode("utf-8", "replace")

    def frames(self):
        """The frames of the telemetry channel as `(type, message)`."""
        data, frames = b"".join(self._frames), []
        while data:
            kind, length = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")
            frames.append((kind, data[16 : 16 + length].decode("utf-8")))
            data = data[16 + length :]
        return frames


def lambda_environment(task_root, handler, **more):
    """What AWS Lambda gives a runtime."""
    environment = {
        "PATH": os.environ["PATH"],
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "_HANDLER": handler,
        "LAMBDA_TASK_ROOT": str(task_root),
        "AWS_REGION": "us-east-1",
        "AWS_LAMBDA_FUNCTION_NAME": "test",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/test",
        "AWS_LAMBDA_LOG_STREAM_NAME": "2026/01/01/[$LATEST]0123456789abcdef",
    }
    environment.update(more)
    return environment


@contextlib.contextmanager
def running(command, task_root, handler, telemetry=False, waits=False, **environment):
    """A runtime that serves `handler` of the code in `task_root`; one that `waits` is told so after it has started."""
    environment = lambda_environment(task_root, handler, **environment)
    runtime = RunningRuntime(command, environment, str(task_root), telemetry, waits)
    try:
        yield runtime
    finally:
        runtime.close()
