"""Taking a snapshot of a process whose function is initialised, so that others can be made from it (`clone`).

The process takes it itself, with no right that the function does not have: it forks, the child waits for ever in a
piece of machine code (`memory.freeze`), and the parent reads the child's memory and writes it down:

    pages     of each stretch of memory that has a content of its own, one after another
    files     what was in /tmp
    document  JSON that says what all of that is, and what else the kernel knows of the process
    trailer   16 bytes: the document's length in decimal digits

What cannot be given to another process raises `Unsafe`: threads, other processes, memory and descriptors that are
shared.
"""

import array
import contextlib
import ctypes
import fcntl
import itertools
import json
import os
import resource
import signal
import socket
import stat
import sys

from . import memory
from .memory import PAGE

TRAILER = 16
SIGACTION_BYTES = 32
SIGNALS = 64
SIGSTACK_BYTES = 24
SCRATCH = "/tmp"

_SYS_SIGACTION, _SYS_SIGALTSTACK = 13, 131
_PR_GET_TID_ADDRESS = 40
_SS_DISABLE = 2

# A hole of fewer pages is written out: an entry costs more than zeros.
_HOLE = 16
_ENTRY = 8  # bytes of a page's entry in /proc/PID/pagemap
_PRESENT, _SWAPPED, _OF_FILE = 1 << 63, 1 << 62, 1 << 61
_ENTRIES = 64 * 1024
_COPY = 1 << 20

# Files that are no files of a disk but can be opened again all the same.
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

# Allocators that give pages back and count on getting zeros, where a clone would get the snapshot's content once more.
_ALLOCATORS = (b"jemalloc", b"mimalloc", b"tcmalloc")


class Unsafe(Exception):
    """Why there can be no snapshot of this process."""


def take(own_descriptors):
    """A snapshot to be sent; none in the processes that will be made from it. `own_descriptors` are the runtime's."""
    _check_alone()
    state = _state(own_descriptors)
    registers = ctypes.create_string_buffer(memory.REGISTERS)
    state["registers"] = ctypes.addressof(registers)
    told, tell = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        memory.freeze(state["registers"], tell)
        return None
    os.close(tell)
    try:
        if not os.read(told, 1):
            raise Unsafe("its process ended when it was forked")
        return Snapshot(child, state)
    except BaseException:
        _end(child)
        raise
    finally:
        os.close(told)


def _end(child):
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


class Snapshot:
    """One that was taken, to be read once."""

    def __init__(self, child, state):
        self._child = child
        self._pages = []  # (address, length)
        self._files = []  # paths
        length = self._read_maps(state)
        length = self._read_scratch(state, length)
        self._document = json.dumps(state).encode("utf-8", "surrogateescape")
        self.length = length + len(self._document) + TRAILER

    def parts(self):
        """The bytes, in pieces; ends what was needed for them."""
        try:
            with open("/proc/{}/mem".format(self._child), "rb", buffering=0) as content:
                for address, length in self._pages:
                    content.seek(address)
                    yield from _exactly(content, length)
            for path, length in self._files:
                with open(path, "rb", buffering=0) as content:
                    yield from _exactly(content, length)
            yield self._document
            yield str(len(self._document)).zfill(TRAILER).encode()
        finally:
            _end(self._child)

    def _read_maps(self, state):
        entries, kernels, position = [], [], 0
        with open("/proc/{}/pagemap".format(self._child), "rb", buffering=0) as pagemap:
            for start, end, permissions, offset, path in memory.maps(self._child):
                if start in memory.OWN:
                    continue
                if path in memory.KERNELS:
                    kernels.append([path, start, end])
                    continue
                _check_mapping(permissions, path)
                runs = []
                if permissions[3] == "p":
                    for address, length in _runs(pagemap, start, end, memory.is_file(path)):
                        runs.append([address, length, position])
                        self._pages.append((address, length))
                        position += length
                entries.append([start, end, permissions, offset, path, runs])
        state["maps"], state["kernels"] = entries, kernels
        return position

    def _read_scratch(self, state, position):
        found = []
        for folder, folders, names in os.walk(SCRATCH):
            for name in folders + names:
                path = os.path.join(folder, name)
                about = os.lstat(path)
                mode, times = about.st_mode, (about.st_atime_ns, about.st_mtime_ns)
                if stat.S_ISLNK(mode):
                    found.append([path, mode, times, os.readlink(path)])
                elif stat.S_ISDIR(mode):
                    found.append([path, mode, times, None])
                elif stat.S_ISREG(mode):
                    found.append([path, mode, times, [position, about.st_size]])
                    self._files.append((path, about.st_size))
                    position += about.st_size
                else:
                    raise Unsafe("there is {} in /tmp, which is no file".format(name))
        state["scratch"] = found
        return position


def _exactly(content, length):
    while length:
        data = content.read(min(length, _COPY))
        if not data:
            raise OSError("memory ended early")
        length -= len(data)
        yield data


def _check_alone():
    """One thread, no other process, and the code to be frozen by."""
    if not any(start == memory.CODE for start, *_ in memory.maps()):
        raise Unsafe("its runtime was not forked, or there is no code for this kind of processor")
    if len(os.listdir("/proc/self/task")) > 1:
        raise Unsafe("it has more than one thread")
    if any(_is_another(name) for name in os.listdir("/proc")):
        raise Unsafe("there are other processes in its container")
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        if signal.getitimer(timer)[0]:
            raise Unsafe("it has set a timer")
    with contextlib.suppress(OSError), open("/proc/self/timers", encoding="utf-8") as timers:
        if timers.read(1):
            raise Unsafe("it has set a timer")


def _is_another(name):
    """Whether an entry of /proc is a process beside this one, the container's first, and the parent, which waits."""
    return name.isdigit() and int(name) not in (1, os.getppid(), os.getpid())


def _check_mapping(permissions, path):
    if permissions[3] == "s" and (permissions[1] == "w" or not os.path.isfile(path)):
        raise Unsafe("it shares memory ({})".format(path))
    if memory.is_file(path) and not os.path.isfile(path):
        raise Unsafe("it has mapped {}, which is no file".format(path))
    if memory.is_file(path) and permissions[2] == "x" and path.startswith(("/var/task", "/opt", SCRATCH)):
        _check_library(path)


def _check_library(path):
    with open(path, "rb") as content:
        data = content.read()
    for allocator in _ALLOCATORS:
        if allocator in data:
            raise Unsafe("{} brings a memory allocator of its own".format(path))


def _runs(pagemap, start, end, is_of_file):
    """The stretches of a mapping that have a content of their own: address and length."""
    first = last = None
    for index in _contents(pagemap, start // PAGE, end // PAGE, is_of_file):
        if last is not None and index - last > _HOLE:
            yield first * PAGE, (last + 1 - first) * PAGE
            first = None
        if first is None:
            first = index
        last = index
    if first is not None:
        yield first * PAGE, (last + 1 - first) * PAGE


def _contents(pagemap, first, end, is_of_file):
    pagemap.seek(first * _ENTRY)
    while first < end:
        data = pagemap.read(min(end - first, _ENTRIES) * _ENTRY)
        if not data:
            return
        if data.count(0) != len(data):
            for index, entry in enumerate(array.array("Q", data), first):
                if entry & (_PRESENT | _SWAPPED) and not (is_of_file and entry & _OF_FILE):
                    yield index
        first += len(data) // _ENTRY


def _state(own_descriptors):
    """What the kernel knows of this process beside its memory."""
    return {
        "process": os.getpid(),
        "thread": _thread_address(),
        "actions": _actions(),
        "mask": sorted(int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "signal_stack": _signal_stack(),
        "descriptors": list(_descriptors(own_descriptors)),
        "cwd": os.getcwd(),
        "umask": _umask(),
        "limits": [[kind, *resource.getrlimit(kind)] for kind in _limits()],
    }


def _limits():
    return sorted({value for name, value in vars(resource).items() if name.startswith("RLIMIT_")})


def _umask():
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def _thread_address():
    """Where the C library keeps the number of this thread."""
    address = ctypes.c_void_p()
    if memory.libc.prctl(_PR_GET_TID_ADDRESS, ctypes.byref(address), 0, 0, 0) != 0 or not address.value:
        raise Unsafe("this kernel was built without CONFIG_CHECKPOINT_RESTORE")
    return address.value


def _actions():
    """What is done at each signal, in the kernel's words; none for what is done by default."""
    found = []
    for number in range(1, SIGNALS + 1):
        action = ctypes.create_string_buffer(SIGACTION_BYTES)
        asked = _syscall(_SYS_SIGACTION, number, None, action, 8)
        found.append(action.raw.hex() if asked == 0 and any(action.raw[:8]) else None)
    return found


def _signal_stack():
    kept = ctypes.create_string_buffer(SIGSTACK_BYTES)
    if _syscall(_SYS_SIGALTSTACK, None, kept) != 0 or kept.raw[8] & _SS_DISABLE:
        return None
    return kept.raw.hex()


def _syscall(number, *arguments):
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return memory.libc.syscall(ctypes.c_long(number), *values)


def _descriptors(own):
    """How each descriptor can be had again. The network's cannot: a dead one takes its place."""
    with os.scandir("/proc/self/fd") as entries:
        numbers = [int(entry.name) for entry in entries]
    for number in numbers:
        if number in own:
            continue
        try:
            about, path = os.fstat(number), os.readlink("/proc/self/fd/{}".format(number))
        except OSError:  # that of the listing itself
            continue
        inherited = os.get_inheritable(number)
        flags = fcntl.fcntl(number, fcntl.F_GETFL)
        mode = about.st_mode
        if stat.S_ISSOCK(mode):
            family, kind = _socket(number)
            if family not in (socket.AF_INET, socket.AF_INET6):
                raise Unsafe("it has opened a local socket (an event loop, perhaps)")
            yield [number, inherited, flags, None, [int(family), int(kind)]]
        elif stat.S_ISREG(mode) or stat.S_ISDIR(mode) or path in _DEVICES:
            if not os.path.exists(path) or path.startswith("/proc/"):
                raise Unsafe("it has opened {}, which another process cannot".format(path))
            position = os.lseek(number, 0, os.SEEK_CUR) if stat.S_ISREG(mode) else 0
            yield [number, inherited, flags, path, position]
        else:
            raise Unsafe("it has opened {}".format(path))


def _socket(number):
    with contextlib.closing(socket.socket(fileno=os.dup(number))) as same:
        return same.family, same.type


def pieces(parts, size):
    """The same bytes in pieces of at least this size, but for the last."""
    kept = []
    length = 0
    for part in itertools.chain(parts):
        kept.append(part)
        length += len(part)
        if length >= size:
            yield b"".join(kept)
            kept, length = [], 0
    if kept:
        yield b"".join(kept)
