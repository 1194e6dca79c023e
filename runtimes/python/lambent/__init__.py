"""What code tells the node that runs it: calls to other functions, and what its answer depends on.

Calls run while this one goes on: start, do something else, wait.

    call = lambent.start("other", {"n": 1})
    ...
    answer = call.result()          # or: await call

While code waits here its place in the account's concurrency is free for others, and where nothing else goes on its
container may be frozen. `docs/calls.md` has the rules.

    rate = lambent.rows("shop", "SELECT rate FROM rates WHERE currency = ?", "EUR")
    lambent.depends_on("https://example.com/prices", rate)
    ...                             # read them after that, not before

`docs/executions.md` has the rules of dependencies.
"""

import _thread
import asyncio
import http.client
import json
import os
import sys
import threading
import urllib.parse

__all__ = ["Call", "CallError", "FunctionError", "NotDone", "depends_on", "rows", "start", "wait_all", "wait_any"]

_PATH = "/lambent/2026-11-24/calls"
_DEPENDENCIES = "/lambent/2026-11-24/dependencies"
_SITE_CHARS = 256


class CallError(Exception):
    """A call, or a request about it, was refused: `code` is the error's name, `status` the HTTP status."""

    def __init__(self, code, message, status):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.status = status


class FunctionError(Exception):
    """The called function failed; `document` is what it said."""

    def __init__(self, document):
        said = document if isinstance(document, dict) else {}
        self.document = document
        self.error_type = said.get("errorType")
        super().__init__(f"{self.error_type}: {said.get('errorMessage')}")


class NotDone(TimeoutError):
    """The answer did not come within the time given."""


class Call:
    """A call under way. `id` is also the request id that the called function sees."""

    def __init__(self, id):
        self.id = id
        self._outcome = None

    def __repr__(self):
        return f"<lambent.Call {self.id}>"

    def result(self, timeout=None):
        """Waits for the answer, at most `timeout` seconds, and returns it; as often as it is asked for."""
        if self._outcome is None:
            self._take(_request("GET", self._path(timeout, _is_blocked())))
        return self._told()

    def done(self):
        """Whether the answer is there."""
        return self._outcome is not None or bool(wait_all([self], timeout=0))

    def forget(self):
        """Lets go of the call: if it runs it runs on, and nobody gets its answer."""
        if self._outcome is None:
            _checked(*_request("DELETE", f"{_PATH}/{self.id}"))

    def __await__(self):
        return self._awaited().__await__()

    async def _awaited(self):
        if self._outcome is None:
            self._take(await _request_async(self._path(None, False)))
        return self._told()

    def _path(self, timeout, blocked):
        query = {"blocked": "true"} if blocked else {}
        if timeout is not None:
            query["within_ms"] = int(timeout * 1000)
        return f"{_PATH}/{self.id}" + (f"?{urllib.parse.urlencode(query)}" if query else "")

    def _take(self, answer):
        status, headers, body = answer
        if status == 202:
            raise NotDone(f"call {self.id} is not done")
        if status == 200:
            failed = headers.get("x-amz-function-error") is not None
            document = json.loads(body) if body else None
            self._outcome = ("failed" if failed else "answered", document)
        else:
            self._outcome = ("refused", _error(status, headers, body))

    def _told(self):
        kind, value = self._outcome
        if kind == "answered":
            return value
        raise FunctionError(value) if kind == "failed" else value


def start(function, payload=None, *, qualifier=None, deadline_ms=None, idempotency_key=None, affinity=None, site=None):
    """Starts a call of `function` (name, partial or whole ARN) and returns it at once.

    `deadline_ms` says when its result is needed; what was not started by then is not started at all. Without it, that
    is learned from when the results of earlier calls from the same `site` were asked for: the place in the code, the
    caller's file and line unless given.
    """
    if site is None:
        frame = sys._getframe(1)
        site = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"[-_SITE_CHARS:]
    query = {"function": function, **({} if qualifier is None else {"qualifier": qualifier})}
    given = {
        # A file may have any name; what is text elsewhere would have to be Latin-1.
        "X-Lambent-Site": site.encode(errors="replace"),
        "X-Lambent-Deadline-Ms": None if deadline_ms is None else str(int(deadline_ms)),
        "X-Lambent-Idempotency-Key": idempotency_key,
        "X-Lambent-Affinity": affinity,
    }
    headers = {name: value for name, value in given.items() if value is not None}
    body = json.dumps(payload).encode()
    answer = _checked(*_request("POST", f"{_PATH}?{urllib.parse.urlencode(query)}", body, headers))
    return Call(json.loads(answer)["id"])


def wait_any(calls, timeout=None):
    """Waits until one of `calls` is done, at most `timeout` seconds; returns those that are."""
    return _wait(list(calls), "any", timeout)


def wait_all(calls, timeout=None):
    """Waits until all of `calls` are done, at most `timeout` seconds; returns those that are."""
    return _wait(list(calls), "all", timeout)


def depends_on(*names):
    """Says what the answer depends on, in the words of `lambent executions configure --on`; read it after this returns.

    Returns False where this invocation's dependencies are not kept, and nothing was done. What cannot be looked at is
    no error: the function runs again next time. `CallError`: a name is none, or there are too many.
    """
    answer = _checked(*_request("POST", _DEPENDENCIES, json.dumps(names).encode()))
    return json.loads(answer)["recorded"]


def rows(service, query, *values):
    """The name of the rows that `query` gives at an auxiliary service, each `?` in it being one of `values`."""
    first, *rest = query.split("?")
    if len(rest) != len(values):
        raise ValueError(f"the query has {len(rest)} places, and {len(values)} values are given")
    places = (f"{{{json.dumps(value)}}}{text}" for value, text in zip(values, rest))
    return f"rows:{service}/{first}{''.join(places)}"


def _wait(calls, mode, timeout):
    done = [call for call in calls if call._outcome is not None]
    left = [call.id for call in calls if call._outcome is None]
    if left and not (mode == "any" and done):
        query = {"ids": ",".join(left), "mode": mode}
        if timeout is not None:
            query["within_ms"] = int(timeout * 1000)
        if _is_blocked():
            query["blocked"] = "true"
        path = f"{_PATH}?{urllib.parse.urlencode(query, safe=',')}"
        found = set(json.loads(_checked(*_request("GET", path)))["done"])
        done = [call for call in calls if call._outcome is not None or call.id in found]
    return done


def _is_blocked():
    """Whether nothing goes on here while the caller waits: no other thread, no event loop, no child process."""
    if threading.active_count() > 1 or _thread._count() > 0 or asyncio._get_running_loop() is not None:
        return False
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def _request(method, path, body=None, headers=None):
    # A connection of its own each time: one that was kept would be dead in a clone of a snapshot.
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    try:
        connection.request(method, path, body, {"Connection": "close", **(headers or {})})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


async def _request_async(path):
    address = os.environ["AWS_LAMBDA_RUNTIME_API"]
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    status, *lines = head.decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in fields}
    if not status or len(body) != int(headers.get("content-length", -1)):
        raise ConnectionError("the answer broke off")
    return int(status.split()[1]), headers, body


def _checked(status, headers, body):
    if status >= 400:
        raise _error(status, headers, body)
    return body


def _error(status, headers, body):
    try:
        document = json.loads(body)
    except ValueError:
        document = {}
    message = document.get("message") or document.get("Message") or document.get("errorMessage") or ""
    return CallError(headers.get("x-amzn-errortype") or document.get("errorType"), message, status)
