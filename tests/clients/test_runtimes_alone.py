"""Our runtimes' own tests, on every interpreter there is."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

OLDEST_PYTHON = 8


def pythons():
    """CPython 3.8 and later: on the path, and where pyenv keeps its own. One of each minor version."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    folders += sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/*/bin"))
    found = {sys.version_info.minor: sys.executable}
    for folder in folders:
        for program in folder.glob("python3.*"):
            minor = re.fullmatch(r"python3\.(\d+)", program.name)
            if minor and int(minor[1]) >= OLDEST_PYTHON and runs(program):
                found.setdefault(int(minor[1]), str(program))
    return [pytest.param(found[minor], id=f"3.{minor}") for minor in sorted(found)]


def runs(program):
    """Whether it starts; pyenv has a shim for each version, installed or not."""
    return subprocess.run([program, "-c", ""], capture_output=True).returncode == 0


@pytest.mark.parametrize("python", pythons())
def test_the_python_runtime_alone(python):
    command = [python, "-W", "error::SyntaxWarning", "-m", "unittest", "discover", "-v", "-s", "tests"]
    run(command, ROOT / "runtimes/python")


def nodes():
    """Node.js on the path, and those that `npm install` put into target/node/interpreters."""
    found = sorted((ROOT / "target/node/interpreters/node_modules").glob("node*/bin/node"))
    onpath = shutil.which("node")
    programs = ([onpath] if onpath else []) + [str(path) for path in found]
    return [pytest.param(p, id=subprocess.check_output([p, "--version"], text=True).strip()) for p in programs]


@pytest.mark.parametrize("node", nodes())
def test_the_node_runtime_alone(node):
    run([node, "--test", "tests/runtime.test.mjs", "tests/waiting.test.mjs"], ROOT / "runtimes/node")


def run(command, cwd):
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, timeout=300)
        ended, output = done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    except subprocess.TimeoutExpired as late:
        ended, output = False, b"never ended; its last words: " + ((late.stdout or b"") + (late.stderr or b""))[-4000:]
    assert ended, output.decode(errors="replace")
