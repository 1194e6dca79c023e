"""Between a function's init and its first invocation, where it asked for snapshots (`SnapStart`): its hooks, and the
snapshot.

The platform says by `_LAMBENT_SNAPSHOT` what is to be done there:

    take   this process exists for its snapshot alone. It runs in a child, so that its number is not that of any clone:
           what notices a fork by that (OpenSSL, `tempfile`) then draws its random numbers anew
    skip   there can be no snapshot of this function; its hooks run all the same, one kind after the other
"""

import contextlib
import os
import signal
import sys

from . import faults, logs, marshal

_PIPED = 256 * 1024
_REGISTRY = "snapshot_restore_py"
BEFORE_FAILED, AFTER_FAILED = 64, 65  # exit statuses, AWS's

# Numbers of clones are small: they are among the first processes of their container.
_LEAST_PID = 64


def go_aside():
    """Goes on in a child with a number that no clone has; this process ends as it does."""
    while True:
        child = os.fork()
        if child == 0:
            if _is_aside(os.getpid()):
                return
            os._exit(0)
        last = os.waitpid(child, 0)[1]
        if _is_aside(child):
            break
    if os.WIFSIGNALED(last):
        with contextlib.suppress(OSError):  # SIGKILL has no action to be set
            signal.signal(os.WTERMSIG(last), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(last))
    os._exit(os.WEXITSTATUS(last))


def _is_aside(pid):
    return pid >= _LEAST_PID


def run(runtime, what):
    """Runs hooks, with the snapshot between them; an exit status where the process must end, else none."""
    try:
        _before_snapshot()
    except Exception:
        return _fail(runtime.fail_init, "Runtime.BeforeSnapshotError", BEFORE_FAILED)
    if what == "take":
        from . import snapshot  # what it needs is nothing for an interpreter that starts

        try:
            taken = snapshot.take(_own_descriptors())
        except snapshot.Unsafe as reason:
            runtime.refuse_snapshot(str(reason))
            _wait()
        if taken is not None:
            runtime.send_snapshot(taken.length, snapshot.pieces(taken.parts(), _PIPED))
            _wait()
        _wake()
    try:
        _after_restore()
    except Exception:
        return _fail(runtime.fail_restore, "Runtime.AfterRestoreError", AFTER_FAILED)
    return None


def _own_descriptors():
    descriptors = {0, 1, 2}
    if logs.descriptor() is not None:
        descriptors.add(logs.descriptor())
    return descriptors


def _wait():
    """The platform ends this process."""
    while True:
        signal.pause()


def _before_snapshot():
    registered = sys.modules.get(_REGISTRY)
    callables = registered.get_before_snapshot() if registered else []
    while callables:
        function, positional, named = callables.pop()
        function(*positional, **named)


def _after_restore():
    registered = sys.modules.get(_REGISTRY)
    for function, positional, named in registered.get_after_restore() if registered else []:
        function(*positional, **named)


def _fail(report, kind, status):
    document, _ = faults.of_exception()
    logs.error(document)
    report(marshal.document(document), kind)
    return status


def _wake():
    """In a clone: makes its own what was another process's."""
    import ctypes
    import json

    from . import clone, waiting

    order = json.loads(clone.message_left().decode("utf-8"))
    before, after = ctypes.pythonapi.PyOS_BeforeFork, ctypes.pythonapi.PyOS_AfterFork_Child
    before()  # takes the locks that the other gives back
    after()
    _stir()
    for name, value in order["env"].items():
        ordered = waiting.environment.get(name)
        if value != ordered and os.environ.get(name) == ordered:
            os.environ[name] = value


def _stir():
    """Random numbers of its own, for what does not see to it by itself after a fork."""
    if "_ssl" in sys.modules:
        sys.modules["_ssl"].RAND_add(os.urandom(32), 32.0)
    if "numpy.random" in sys.modules:
        with contextlib.suppress(Exception):
            sys.modules["numpy.random"].seed()
