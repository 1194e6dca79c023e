"""JSON as AWS's Python client reads and writes it.

That client uses `simplejson`, which treats a few values otherwise than the standard library's `json`. Handlers rely on
them: `Decimal` becomes a number, a named tuple an object, `bytes` inside a document text.
"""

import json
import os
import sys

from . import faults

# AWS writes non-ASCII characters as they are from Python 3.12 on, and as \u escapes before.
_ESCAPED_IN = frozenset("AWS_Lambda_python" + version for version in ("3.8", "3.9", "3.10", "3.11"))
_SCALARS = frozenset((str, int, float, bool, type(None)))

JSON = b"application/json"
RAW = b"application/unknown"


def _refuse_constant(name):
    raise ValueError("{} is not JSON".format(name))


_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode


def event(body, content_type):
    """The `event` argument: parsed when it is JSON, else the bytes."""
    if content_type != "application/json":
        return body
    try:
        return _decode(body.decode("utf-8-sig"))
    except Exception as error:
        raise faults.Fault("Runtime.UnmarshalError", "Unable to unmarshal input: {}".format(error)) from None


def response(value):
    """The body and content type of what a handler returned."""
    if isinstance(value, bytes):
        return value, RAW
    try:
        return encode(value), JSON
    except Exception as error:
        raise faults.Fault("Runtime.MarshalError", "Unable to marshal response: {}".format(error)) from None


def document(value):
    """An error document in UTF-8; whatever characters its message has."""
    return encode(value, "backslashreplace")


def header(value):
    """`value` as JSON that fits in a header: printable ASCII."""
    return json.dumps(value).replace("\x7f", "\\u007f").encode("ascii")


def encode(value, errors="strict"):
    """`value` as JSON in UTF-8."""
    if _has_records(value):
        value = _plain(value)
    encoder = _Encoder()
    text = encoder.encode(value)
    if encoder.numbers is not None:
        text = encoder.numbers.sub(r"\1", text)
    return text.encode("utf-8", errors)


class _Encoder(json.JSONEncoder):
    """Adds what `json` refuses. `numbers` finds the marks that stand for decimals, once there is one."""

    def __init__(self):
        super().__init__(ensure_ascii=os.environ.get("AWS_EXECUTION_ENV") in _ESCAPED_IN)
        self.numbers = None

    def default(self, o):
        if isinstance(o, bytes):
            return o.decode("utf-8")
        fields = getattr(o, "_asdict", None)
        if callable(fields):
            return _plain(fields())
        decimal = sys.modules.get("decimal")  # imported by whoever made the value, if it is one
        if decimal is not None and isinstance(o, decimal.Decimal):
            return self._decimal(o)
        return super().default(o)

    def _decimal(self, number):
        if number.is_nan():
            return float("nan")
        # `json` has no way to write a number verbatim, and a float would change its digits: write a marked string, of
        # which the quotes and the mark are taken off afterwards. The mark cannot be guessed by what is being encoded.
        if self.numbers is None:
            import re

            self._mark = "number-" + os.urandom(16).hex() + ":"
            self.numbers = re.compile('"' + self._mark + '([^"]*)"')
        return self._mark + str(number)


def _has_records(value):
    """Whether a named tuple, or a dictionary with `bytes` for keys, is anywhere inside: `json` has no hook for them."""
    try:
        return _is_record(value)
    except RecursionError:
        return False  # circular or too deep: the encoder says which


def _is_record(value):
    kind = type(value)
    if kind in _SCALARS:
        return False
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, bytes) or (type(item) not in _SCALARS and _is_record(item)):
                return True
    elif isinstance(value, (list, tuple)):
        if kind is not list and kind is not tuple and callable(getattr(value, "_asdict", None)):
            return True
        for item in value:
            if type(item) not in _SCALARS and _is_record(item):
                return True
    return False


def _plain(value):
    if isinstance(value, (list, tuple)):
        fields = getattr(value, "_asdict", None)
        return _plain(fields()) if callable(fields) else [_plain(item) for item in value]
    if isinstance(value, dict):
        return {(k.decode("utf-8") if isinstance(k, bytes) else k): _plain(v) for k, v in value.items()}
    return value
