"""A runtime that is started before it is known for whom: it loads itself, waits for its order, and goes on as if it had
been started with what the order says.

The order is one JSON document on a pipe, read to its end: `env`, the whole environment, and `cwd`. No order at all
means that nobody wants this process.
"""

import contextlib
import importlib
import json
import os
import sys
import time

from . import records  # noqa: F401 - with `logging`, the slowest import that most functions make

# What AWS's own runtime has imported before a handler is; so handlers bring no modules of these names of their own.
_PRELOADED = (
    "datetime",
    "decimal",
    "http.client",
    "signal",
    "traceback",
    "types",
    "typing",
    "urllib.parse",
    "warnings",
)
# Descriptors of this process that stay its own whatever the order says.
_OWN = ("_LAMBDA_TELEMETRY_LOG_FD",)
_READ = 64 * 1024

# The environment that was ordered.
environment = {}


def take_order():
    """Waits for the order, if this process was started to wait."""
    descriptor = os.environ.pop("_LAMBENT_ORDER_FD", None)
    if descriptor is not None:
        preload()
        obey(int(descriptor))


def preload():
    """Imports what is likely to be wanted."""
    for name in _PRELOADED:
        # An interpreter may have been built without it; whoever needs it will be told.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def obey(descriptor):
    """Waits for the order and does as it says."""
    text = b""
    while True:
        data = os.read(descriptor, _READ)
        if not data:
            break
        text += data
    os.close(descriptor)
    if not text:
        os._exit(0)
    order = json.loads(text.decode("utf-8"))
    if "snapshot" in order:
        from . import clone

        clone.become(order["snapshot"], text)
    environment.update(order["env"])
    _set_environment(order["env"])
    os.chdir(order["cwd"])
    _extend_import_path()


def _set_environment(environment):
    own = {name: os.environ[name] for name in _OWN if name in os.environ}
    zone = os.environ.get("TZ")
    os.environ.clear()
    os.environ.update(environment)
    os.environ.update(own)
    if os.environ.get("TZ") != zone:
        time.tzset()


def _extend_import_path():
    """What the interpreter itself does with `PYTHONPATH` when it starts."""
    paths = os.environ.get("PYTHONPATH")
    if paths:
        added = [os.path.abspath(path) for path in paths.split(os.pathsep)]
        sys.path[1:] = list(dict.fromkeys(added + sys.path[1:]))
