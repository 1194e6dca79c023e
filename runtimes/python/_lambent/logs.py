"""The log side of the runtime: the `logging` module set up as on AWS Lambda, and where its records go.

With `_LAMBDA_TELEMETRY_LOG_FD` set, every record is one frame on that descriptor, so a stack trace of forty lines is
one event. A frame is, in big-endian order:

    type       4 bytes   0xA55A0000, with 2 for JSON or 3 for text, and the level in steps of 4 (DEBUG 8 ... FATAL 24)
    length     4 bytes   of the message
    timestamp  8 bytes   microseconds since 1970
    message    UTF-8

Without it records go to standard output. What is printed goes to standard output as it is, in both cases.
"""

import _thread
import json
import logging
import os
import sys
import time

_TEXT, _JSON = 0xA55A0003, 0xA55A0002
_DATE = "%Y-%m-%dT%H:%M:%S"
_NO_BREAK_SPACE = "\u00a0"  # AWS's console would fold leading ordinary spaces

# Where log records go, once `setup` ran.
sink = None
# The invocation being served; records carry them.
request_id = ""
tenant_id = None

_as_json = os.environ.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON"


def setup():
    """Opens the channel and puts our handler on the root logger."""
    global sink
    descriptor = os.environ.pop("_LAMBDA_TELEMETRY_LOG_FD", None)
    sink = _Printed() if descriptor is None else _Framed(int(descriptor))
    logging.Formatter.converter = time.gmtime
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
    level = "DEBUG" if level == "TRACE" else level
    handler = _Handler(typed=_as_json or bool(level))
    if _as_json:
        handler.setFormatter(_JsonFormatter())
    else:
        line = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n"
        handler.setFormatter(logging.Formatter(line, _DATE))
    root = logging.getLogger()
    if level in logging._nameToLevel:
        root.setLevel(level)
    root.addHandler(handler)


def error(document):
    """Logs an error document: an event of its own, in the format asked for."""
    if _as_json:
        from . import marshal

        stamp = time.strftime(_DATE + "Z", time.gmtime())
        event = dict({"timestamp": stamp, "level": "ERROR"}, **document)
        sink.write_lines([marshal.document(event).decode("utf-8")], _frame_type(_JSON, logging.ERROR))
    else:
        sink.write_lines(_error_lines(document), _frame_type(_TEXT, logging.ERROR))


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
        self._descriptor = descriptor
        self._lock = _thread.allocate_lock()

    def write(self, text, frame_type=_TEXT):
        message = text.encode("utf-8", "replace")
        head = frame_type.to_bytes(4, "big") + len(message).to_bytes(4, "big")
        data = memoryview(head + (time.time_ns() // 1000).to_bytes(8, "big") + message)
        with self._lock:  # a frame longer than the pipe holds takes several writes
            while data:
                data = data[os.write(self._descriptor, data) :]

    def write_lines(self, lines, frame_type):
        self.write("\n".join(lines), frame_type)


class _Printed:
    """Records as text on standard output."""

    def write(self, text, frame_type=None):
        sys.stdout.write(text)

    def write_lines(self, lines, frame_type):
        # Carriage returns keep the lines of one error in one event, since newlines end events on this way.
        self.write("\r".join(lines) + "\n")


class _Handler(logging.Handler):
    """Writes records to the sink; `typed` when their frames say their level."""

    def __init__(self, typed):
        super().__init__()
        self._typed = typed

    @property
    def log_sink(self):
        """Other libraries look for this name to write to the same place."""
        return sink

    def handle(self, record):
        record.aws_request_id = request_id
        record.tenant_id = tenant_id
        return super().handle(record)

    def emit(self, record):
        try:
            kind = _frame_type(_JSON if _as_json else _TEXT, record.levelno) if self._typed else _TEXT
            sink.write(self.format(record), kind)
        except Exception:  # as `logging` does it: a record that cannot be formatted is reported, not raised
            self.handleError(record)


def _frame_type(base, level):
    """`base` with the level of a record: CRITICAL is 24, ERROR 20, down to DEBUG 8 and none 0."""
    steps = _rounded(level) // 10
    return base + (4 * steps + 4 if steps else 0)


def _rounded(level):
    return min(50, max(0, level)) // 10 * 10


class _JsonFormatter(logging.Formatter):
    """One JSON object a record, with AWS's field names; attributes given as `extra` are added."""

    # What every record has, and so is not `extra`.
    _own = (frozenset(vars(logging.makeLogRecord({}))) - {"taskName"}) | {"aws_request_id", "tenant_id", "asctime"}
    _write = json.JSONEncoder(ensure_ascii=False, default=str).encode

    def format(self, record):
        verbatim = isinstance(record.msg, dict) and not record.args
        fields = {
            "timestamp": self.formatTime(record, _DATE + "Z"),
            "level": logging.getLevelName(_rounded(record.levelno)),
            "message": record.msg if verbatim else record.getMessage(),
            "logger": record.name,
        }
        if record.exc_info:
            fields.update(self._exception(record))
        fields["requestId"] = record.aws_request_id
        if record.exc_info:
            fields["location"] = "{}:{}:{}".format(record.pathname, record.funcName, record.lineno)
        fields["tenantId"] = record.tenant_id
        extra = {k: v for k, v in vars(record).items() if k not in self._own and k not in fields}
        fields.update(extra)
        return self._write({name: value for name, value in fields.items() if value is not None}) + "\n"

    @staticmethod
    def _exception(record):
        import traceback

        kind, error, trace = record.exc_info
        if kind is None:
            return {}
        return {"stackTrace": traceback.format_tb(trace), "errorType": kind.__name__, "errorMessage": str(error)}
