"""The `logging` module set up as on AWS Lambda: its records in AWS's formats, and where the other log lines go."""

import json
import logging
import os
import time

from . import logs


def attach():
    """Puts our handler on the root logger."""
    logging.Formatter.converter = time.gmtime
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
    level = "DEBUG" if level == "TRACE" else level
    handler = _Handler(typed=logs.as_json or bool(level))
    if logs.as_json:
        handler.setFormatter(_JsonFormatter())
    else:
        line = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n"
        handler.setFormatter(logging.Formatter(line, logs.DATE))
    root = logging.getLogger()
    if level in logging._nameToLevel:
        root.setLevel(level)
    root.addHandler(handler)


class _Handler(logging.Handler):
    """Writes records to the sink; `typed` when their frames say their level."""

    def __init__(self, typed):
        super().__init__()
        self._typed = typed

    @property
    def log_sink(self):
        """Other libraries look for this name to write to the same place."""
        return logs.sink

    def handle(self, record):
        record.aws_request_id = logs.request_id
        record.tenant_id = logs.tenant_id
        return super().handle(record)

    def emit(self, record):
        # A record that cannot be formatted raises in the handler, as on AWS; `logging` itself would only mention it.
        kind = logs.frame_type(record.levelno) if self._typed else logs.TEXT
        logs.sink.write(self.format(record), kind)


class _JsonFormatter(logging.Formatter):
    """One JSON object a record, with AWS's field names; attributes given as `extra` are added."""

    # What every record has, and so is not `extra`.
    _own = (frozenset(vars(logging.makeLogRecord({}))) - {"taskName"}) | {"aws_request_id", "tenant_id", "asctime"}
    _write = json.JSONEncoder(ensure_ascii=False, default=str).encode

    def format(self, record):
        verbatim = isinstance(record.msg, dict) and not record.args
        fields = {
            "timestamp": self.formatTime(record, logs.DATE + "Z"),
            "level": logging.getLevelName(logs.rounded(record.levelno)),
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
