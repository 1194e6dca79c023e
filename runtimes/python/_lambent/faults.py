"""Errors as the Runtime API and the logs show them."""

import os
import sys

_OURS = os.path.dirname(os.path.abspath(__file__))
_ENTRY = os.path.join(os.path.dirname(_OURS), "bootstrap.py")


class Fault(Exception):
    """What the runtime itself finds wrong: no such handler, an answer that is not JSON, and the like."""

    def __init__(self, kind, message, trace=None):
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.trace = trace or []

    def document(self, request_id=""):
        """The error document, as `of_exception` has it."""
        return _document(self.message, self.kind, self.trace, request_id)

    def xray(self):
        """The cause for X-Ray, as `of_exception` has it."""
        return _xray(self.message, "LambdaValidationError", [])


def of_exception(request_id=""):
    """The error document for the exception being handled, and its cause for X-Ray."""
    kind, error, traceback = sys.exc_info()
    frames = _user_frames(traceback)
    message = _text(error)
    import traceback as formatter  # slow to import, and most invocations end well

    document = _document(message, kind.__name__, formatter.format_list(frames), request_id)
    return document, _xray(message, kind.__name__, frames)


def header_text(text):
    """`text` as a header value: one line of printable ASCII."""
    return "".join(c if " " <= c <= "~" else "?" for c in text[:256]).encode()


def _document(message, kind, trace, request_id):
    return {"errorMessage": message, "errorType": kind, "requestId": request_id, "stackTrace": trace}


def _xray(message, kind, frames):
    return {
        "working_directory": _working_directory(),
        "exceptions": [
            {
                "message": message,
                "type": kind,
                "stack": [{"label": name, "path": path, "line": line} for path, line, name, _ in frames],
            }
        ],
        "paths": sorted({path for path, _, _, _ in frames}),
    }


def _working_directory():
    try:
        return os.getcwd()
    except OSError:  # the handler may have removed it
        return ""


def _text(error):
    try:
        return str(error)
    except Exception:  # an exception of the user's whose `__str__` fails must not end the process
        return "<unprintable {} object>".format(type(error).__name__)


def _user_frames(traceback):
    """The frames from the first one that is not ours; all of them when the fault is in calling the handler at all."""
    import traceback as formatter

    frames = [(frame.filename, frame.lineno, frame.name, frame.line) for frame in formatter.extract_tb(traceback)]
    for index, frame in enumerate(frames):
        if not frame[0].startswith(_OURS) and frame[0] != _ENTRY:
            return frames[index:]
    return frames
