"""The Runtime API client: HTTP/1.1 over one kept-alive connection.

`http.client` would pull in `email` and `ssl` at every cold start and cost most of the time of a short invocation. Only
what the Runtime API sends is understood: responses with a `Content-Length`, or none and no body.
"""

import _socket  # the C module alone: `socket` wraps it in enums that take longer to make than to connect

from . import faults

_API = b"/2018-06-01/runtime"
_SMALL = 64 * 1024  # up to here copying head and body together is cheaper than a second system call
_RECEIVE = 64 * 1024
_MAX_XRAY = 32 * 1024


class ProtocolError(Exception):
    """The Runtime API answered something that cannot be carried on from."""


class Invocation:
    """One event and what came with it."""

    __slots__ = ("body", "headers", "request_id")

    def __init__(self, headers, body):
        self.headers = headers
        self.body = body
        self.request_id = headers["lambda-runtime-aws-request-id"]


class RuntimeClient:
    """Speaks to the Runtime API at `address` (`host:port`)."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self._peer = (host, int(port))
        self._common = b"Host: %s\r\nUser-Agent: lambent-python\r\n" % address.encode()
        self._next = b"GET %s/invocation/next HTTP/1.1\r\n%s\r\n" % (_API, self._common)
        self._socket = None
        self._received = b""

    def next(self):
        """Waits, as long as it takes, for the next invocation."""
        status, headers, body = self._exchange(self._next, b"")
        if status != 200:
            raise ProtocolError("next invocation: status {}: {!r}".format(status, body[:200]))
        return Invocation(headers, body)

    def respond(self, request_id, body, content_type):
        """Answers an invocation. An answer that is too large is the platform's to report, so 413 is no error here."""
        self._post(b"/invocation/%s/response" % request_id.encode(), body, b"Content-Type: %s\r\n" % content_type)

    def fail(self, request_id, document, error_type, xray):
        """Ends an invocation with an error document."""
        headers = _error_headers(error_type)
        if len(xray) <= _MAX_XRAY:
            headers += b"Lambda-Runtime-Function-Xray-Error-Cause: %s\r\n" % xray
        self._post(b"/invocation/%s/error" % request_id.encode(), document, headers)

    def fail_init(self, document, error_type):
        """Reports that there is no handler to call."""
        self._post(b"/init/error", document, _error_headers(error_type))

    def refuse_snapshot(self, reason):
        """Says why there can be no snapshot of this process."""
        self._post(b"/restore/unsafe", reason.encode("utf-8", "backslashreplace"), b"")

    def send_snapshot(self, length, pieces):
        """Hands over a snapshot of this process."""
        head = b"POST %s/restore/snapshot HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n" % (_API, self._common, length)
        self._send(head, b"")
        for piece in pieces:
            self._socket.sendall(piece)
        status, _, answer = self._receive()
        if status != 202:
            raise ProtocolError("snapshot: status {}: {!r}".format(status, answer[:200]))

    def fail_restore(self, document, error_type):
        """Reports that the function could not go on after its snapshot was restored."""
        self._post(b"/restore/error", document, _error_headers(error_type))

    def _post(self, path, body, headers):
        head = b"POST %s%s HTTP/1.1\r\n%s%sContent-Length: %d\r\n\r\n" % (_API, path, self._common, headers, len(body))
        status, _, answer = self._exchange(head, body)
        if status not in (202, 413):
            raise ProtocolError("{}: status {}: {!r}".format(path.decode(), status, answer[:200]))

    def _exchange(self, head, body):
        """Sends a request and reads its response; once more if a kept connection turned out to be closed."""
        reused = self._socket is not None
        try:
            self._send(head, body)
            return self._receive()
        except OSError:
            self._close()
            if not reused:
                raise
        self._send(head, body)
        return self._receive()

    def _send(self, head, body):
        if self._socket is None:
            self._connect()
        if len(body) <= _SMALL:
            self._socket.sendall(head + body)
        else:
            self._socket.sendall(head)
            self._socket.sendall(body)

    def _receive(self):
        while True:
            head, found, rest = self._received.partition(b"\r\n\r\n")
            if found:
                break
            self._received += self._read()
        lines = head.decode("utf-8", "replace").split("\r\n")
        status = int(lines[0].split(" ", 2)[1])
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = self._body(rest, int(headers.get("content-length", 0)))
        if headers.get("connection", "").lower() == "close":
            self._close()
        return status, headers, body

    def _body(self, start, length):
        if len(start) < length:
            # Read into one buffer of the final size: a payload of megabytes is copied once.
            buffer = bytearray(length)
            buffer[: len(start)] = start
            view, filled = memoryview(buffer), len(start)
            while filled < length:
                count = self._socket.recv_into(view[filled:])
                if not count:
                    raise ConnectionResetError("the Runtime API closed the connection inside a response")
                filled += count
            self._received = b""
            return bytes(buffer)
        self._received = start[length:]
        return start[:length]

    def _read(self):
        data = self._socket.recv(_RECEIVE)
        if not data:
            raise ConnectionResetError("the Runtime API closed the connection")
        return data

    def _connect(self):
        connection = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        connection.connect(self._peer)
        connection.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        self._socket = connection

    def _close(self):
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._received = b""


def _error_headers(error_type):
    kind = faults.header_text(error_type)
    return b"Content-Type: application/json\r\nLambda-Runtime-Function-Error-Type: %s\r\n" % kind
