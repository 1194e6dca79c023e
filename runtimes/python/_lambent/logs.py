"""Where log records and errors go.

With `_LAMBDA_TELEMETRY_LOG_FD` set, every record is one frame on that descriptor, so a stack trace of forty lines is
one event. A frame is, in big-endian order:

    type       4 bytes   0xA55A0000, with 2 for JSON or 3 for text, and the level in steps of 4 (DEBUG 8 ... FATAL 24)
    length     4 bytes   of the message
    timestamp  8 bytes   microseconds since 1970
    message    UTF-8

Without it records go to standard output. What is printed goes to standard output as it is, in both cases.
"""

import _thread
import os
import sys
import time

TEXT, JSON = 0xA55A0003, 0xA55A0002
ERROR = 40  # as `logging` counts, which is not imported for this
DATE = "%Y-%m-%dT%H:%M:%S"
_NO_BREAK_SPACE = "\u00a0"  # AWS's console would fold leading ordinary spaces

# Where log records go, once `open_channel` ran.
sink = None
# The invocation being served; records carry them.
request_id = ""
tenant_id = None

# Whether records and errors are JSON.
as_json = False


def open_channel():
    """Finds out where records go, and in which format."""
    global as_json, sink
    as_json = os.environ.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON"
    descriptor = os.environ.pop("_LAMBDA_TELEMETRY_LOG_FD", None)
    sink = _Printed() if descriptor is None else _Framed(int(descriptor))


def descriptor():
    """That of the log channel; none where there is no such channel."""
    return getattr(sink, "descriptor", None)


def error(document):
    """Logs an error document: an event of its own, in the format asked for."""
    if as_json:
        from . import marshal

        stamp = time.strftime(DATE + "Z", time.gmtime())
        event = dict({"timestamp": stamp, "level": "ERROR"}, **document)
        sink.write_lines([marshal.document(event).decode("utf-8")], frame_type(ERROR))
    else:
        sink.write_lines(_error_lines(document), frame_type(ERROR))


def _error_lines(document):
    parts = [part for part in (document["errorType"], document["errorMessage"]) if part]
    lines = ["[ERROR] " + ": ".join(parts), "Traceback (most recent call last):"]
    for entry in document["stackTrace"]:
        for line in entry.splitlines() or [""]:
            text = line.lstrip(" ")
            lines.append(_NO_BREAK_SPACE * (len(line) - len(text)) + text)
    return lines


class _Framed:
    """Records as frames on a descriptor."""

    def __init__(self, descriptor):
        os.set_inheritable(descriptor, False)  # processes that the handler starts have no business with it
        self.descriptor = descriptor
        self._lock = _thread.allocate_lock()

    def write(self, text, kind=TEXT):
        message = text.encode("utf-8", "backslashreplace")
        head = kind.to_bytes(4, "big") + len(message).to_bytes(4, "big")
        data = memoryview(head + (time.time_ns() // 1000).to_bytes(8, "big") + message)
        with self._lock:  # a frame longer than the pipe holds takes several writes
            while data:
                data = data[os.write(self.descriptor, data) :]

    def write_lines(self, lines, kind):
        self.write("\n".join(lines), kind)


class _Printed:
    """Records as text on standard output."""

    def write(self, text, kind=None):
        sys.stdout.write(text)

    def write_lines(self, lines, kind):
        # Carriage returns keep the lines of one error in one event, since newlines end events on this way.
        text = "\r".join(lines) + "\n"
        self.write(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def frame_type(level):
    """The type of a record of this level: CRITICAL is 24, ERROR 20, down to DEBUG 8 and none 0."""
    steps = rounded(level) // 10
    return (JSON if as_json else TEXT) + (4 * steps + 4 if steps else 0)


def rounded(level):
    """The standard level at or below `level`."""
    return min(50, max(0, level)) // 10 * 10
