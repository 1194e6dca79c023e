"""What the tests share: the runtime's modules on the path, a folder of handlers, and a running runtime."""

import contextlib
import os
import pathlib
import sys
import tempfile
import textwrap
import traceback

HERE = pathlib.Path(__file__).resolve().parent
BOOTSTRAP = HERE.parent / "bootstrap.py"
sys.path[:0] = [str(HERE), str(HERE.parent)]

import fake_runtime_api  # noqa: E402 - found through the line above

# Whether runtimes are started before they are told what to serve.
waits = False


@contextlib.contextmanager
def runtime(code, handler="app.handler", telemetry=False, **environment):
    """Our runtime with `code` as `app.py`."""
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "app.py").write_text(textwrap.dedent(code), encoding="utf-8")
        command = [sys.executable, "-s", "-u", str(BOOTSTRAP)]
        with fake_runtime_api.running(command, folder, handler, telemetry, waits, **environment) as running:
            yield running


def in_a_child(do):
    """Calls `do` in a fork of this process, for what changes a process for good; its exit status, 99 if it throws."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            status = do() or 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]
