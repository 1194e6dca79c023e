"""The one place that says where our runtimes differ from AWS's clients, on purpose.

`PYTHON` and `NODE` map a case of `test_runtimes.py` to why; the test then checks that the two do differ, so that an
entry which is no longer true is found. `normal` takes out of an outcome what may differ in every run.
"""

import re

PYTHON = {
    "lone-surrogate": "an answer that is not UTF-8 is a Runtime.MarshalError; AWS's client dies of it",
    "unprintable-error": "an exception whose __str__ fails is reported; AWS's client dies of it",
    "not-json": "the words for bad JSON are those of the standard library; the platform refuses such events anyway",
    "decimal-key": "the words for a key that JSON cannot have are those of the standard library",
    "fails-at-import-beyond-latin-1": "the error is reported in UTF-8; AWS's client fails to report it",
}

NODE = {
    "context-without-trace-24": "no trace is no xRayTraceId; AWS's client has an empty one",
    "logs-json-of-a-tenant-24": "records name the tenant, as they do up to Node.js 22; AWS's client leaves it out",
    "throws-what-cannot-be-text-24": "the error is reported; AWS's client dies of it",
    "throws-what-cannot-be-text-20": "the error keeps AWS's own words for this; its client trips over it first",
    "syntax-error-20": "the stack shows the line at fault, as from Node.js 24 on",
    "callback-fails-20": "an error made of another value has no stack, which would show only who called back",
    "context-done-20": "an error made of another value has no stack",
    "context-fail-20": "an error made of another value has no stack",
    "callback-cannot-be-json-20": "the invocation fails; AWS's client ends the process as well",
    "empty-event-24": "the event is answered with the error; AWS's client dies of it",
}

# In whole containers (`test_official_clients.py`): the answers are the same, the logs are not.
LOGS = {
    "too-large-answer": "a refused answer is the platform's to report; AWS's client for Python dies of it",
}

_TRACE = re.compile(r"Root=[-0-9a-f]+;Parent=[0-9a-f]+;Sampled=[01]")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_REPEATED = re.compile(r"Previous line repeated \d+ more times")
# Where in the encoder the stack runs out depends on how deep it was called from.
_TOO_DEEP = re.compile(r"maximum recursion depth exceeded( (?:while|in)[^\"\n\\]*)?")
_WARNING = re.compile(r"(LAMBDA_WARNING: Unhandled exception\.)[^\r\"]*")


# A frame of a runtime in a Python stack trace, with its line of code and the marks below it.
_PYTHON_RUNTIME = r'"(?:[^"]*/awslambdaric/|[^"]*/runtimes/python/|/var/runtime/|<frozen runpy>)[^"]*"'
_RUNTIME_FRAME = re.compile(r"^[ \u00a0]*File " + _PYTHON_RUNTIME + r".*\n(?:[ \u00a0]{4}.*(?:\n|$))*", re.M)

# The same in a JavaScript one: as lines, as lines written in JSON, and as elements of a JSON array.
_OURS_OR_THEIRS = r"/aws-lambda-ric|/runtimes/node/|/var/runtime/|/var/task/client/"
_OF_RUNTIME = rf"(?:{_OURS_OR_THEIRS}|node:internal/|node:events|processTicksAndRejections|<anonymous>)"
_JS_FRAME = re.compile(r"(?:\n|\r|\\n|^)    at [^\"\n\r\\]*" + _OF_RUNTIME + r"[^\"\n\r\\]*", re.M)
_JS_ELEMENT = re.compile(r",\"    at [^\"]*" + _OF_RUNTIME + r"[^\"]*\"")
_REQUIRED_FROM = re.compile(r"(?:\n|\r|\\n|^)- [^\"\n\r\\]*" + _OF_RUNTIME + r"[^\"\n\r\\]*", re.M)
_REQUIRED_ELEMENT = re.compile(r",\"- [^\"]*" + _OF_RUNTIME + r"[^\"]*\"")
_EXECUTING = re.compile(r"Executing '.*' in function directory '.*'")

# Whether the name of a runtime's own error is a property of the error or of its class.
_OWN_NAME = re.compile(r',"name":"Runtime\.\w+"')
# How a function was called is told by its callers.
_CALLED_AS = re.compile(r" \[as handler\]|(?<=at )(?:\w+\.)(?=handler \()")

# A coroutine that nobody awaited is noticed when it is collected, which may be after the process was ended.
_COLLECTED = re.compile(r"^(?:\S+:\d+: )?RuntimeWarning: (?:coroutine|Enable tracemalloc).*\n(?:  .*\n)?", re.M)


def normal(text):
    """`text` without times, counts that depend on the depth of our own stack, and AWS's advice on runtime updates."""
    text = _RUNTIME_FRAME.sub("", text)
    for pattern in (_JS_ELEMENT, _JS_FRAME, _REQUIRED_ELEMENT, _REQUIRED_FROM, _EXECUTING, _CALLED_AS, _OWN_NAME):
        text = pattern.sub("", text)
    text = _COLLECTED.sub("", text)
    text = _TRACE.sub("TRACE", _TIME.sub("TIME", text))
    text = _TOO_DEEP.sub("maximum recursion depth exceeded", _REPEATED.sub("Previous line repeated", text))
    return _WARNING.sub(r"\1", text)
