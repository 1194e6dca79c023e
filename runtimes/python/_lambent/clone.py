"""Becoming what a snapshot (`snapshot`) was taken of.

A runtime that waits in a container of its own, and is a fork of the same template as the process of the snapshot,
reads the document, brings about what is not memory (files in /tmp, descriptors, limits), and makes a list of system
calls that replace its memory by that of the snapshot, piece by piece. `memory.play` makes them and goes on where the
snapshot's process had been frozen. The memory is mapped from the snapshot's file, privately: what is not written to is
shared by all clones and the page cache.

All of that a function may do to itself: there is no privilege in it, and the filter of system calls is in force.
"""

import array
import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import stat

from . import memory
from .memory import PAGE
from .snapshot import SIGACTION_BYTES, TRAILER

_SYS_MMAP, _SYS_MUNMAP, _SYS_BRK, _SYS_SIGACTION, _SYS_SIGPROCMASK, _SYS_PREAD = 9, 11, 12, 13, 14, 17
_SYS_CLOSE, _SYS_GETTID, _SYS_SIGALTSTACK = 3, 186, 131
_SIG_SETMASK = 2
_SIGSET_BYTES = 8

_LOWEST, _HIGHEST = 1 << 16, 0x7FFF_FFFF_F000
_ENTRY = 8  # numbers of an entry: the call, its six arguments, where its result goes
_END = (1 << 64) - 1

# From where on descriptors are opened that must not be in the way of the snapshot's.
_ASIDE = 512
_WORD = 8


def become(path, message):
    """Never returns here. What is made of this process finds `message` (JSON) through `message_left`."""
    image = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    image = _aside(image)
    end = os.fstat(image).st_size - TRAILER
    length = int(os.pread(image, TRAILER, end))
    document = json.loads(os.pread(image, length, end - length).decode("utf-8", "surrogateescape"))
    mine = {(entry[0], entry[1], entry[2], entry[3], entry[4]) for entry in memory.maps()}
    kernels = sorted([name, start, end] for start, end, _, _, name in mine if name in memory.KERNELS)
    if kernels != sorted(document["kernels"]) or os.getpid() == document["process"]:
        raise OSError("the snapshot is none for this process")
    _write_scratch(image, document["scratch"])
    for kind, soft, hard in document["limits"]:
        if resource.getrlimit(kind) != (soft, hard):
            resource.setrlimit(kind, (soft, hard))
    os.umask(document["umask"])
    os.chdir(document["cwd"])
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    calls = _Calls()
    files = _Files()
    _replace_memory(calls, files, image, document["maps"], mine)
    _restore_signals(calls, document)
    calls.add(_SYS_GETTID, result=document["thread"])
    for descriptor in files.opened() + [image]:
        calls.add(_SYS_CLOSE, descriptor)
    _open_descriptors(document["descriptors"])
    memory.play(calls.finish(document["registers"], message))


def message_left():
    """In what was made of that process: the message."""
    length = int.from_bytes(ctypes.string_at(memory.LIST, _WORD), "little")
    total = int.from_bytes(ctypes.string_at(memory.LIST + _WORD, _WORD), "little")
    message = ctypes.string_at(memory.LIST + 2 * _WORD, length)
    memory.libc.munmap(memory.LIST, total)
    return message


def _aside(descriptor):
    kept = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _ASIDE)
    os.close(descriptor)
    return kept


class _Calls:
    """A list of system calls and the data they point to."""

    def __init__(self):
        self._numbers = array.array("Q")
        self._patches = []  # (index into the numbers, offset into the data)
        self._data = b""

    def add(self, call, *arguments, result=0):
        values = list(arguments) + [0] * (_ENTRY - 2 - len(arguments))
        self._numbers.extend(value & _END for value in [call] + values + [result])

    def add_with(self, call, arguments, data):
        """`data` is pointed to by the argument that is none."""
        values = [0 if value is None else value for value in arguments]
        self._patches.append((len(self._numbers) + 1 + arguments.index(None), len(self._data)))
        self._data += data + b"\0" * (-len(data) % _WORD)
        self.add(call, *values)

    def finish(self, registers, message):
        """Puts everything where the code finds it; the address of the first entry."""
        self._numbers.extend([_END, registers] + [0] * (_ENTRY - 2))
        message_bytes = len(message) + -len(message) % _WORD
        first = memory.LIST + 2 * _WORD + message_bytes
        data = first + len(self._numbers) * self._numbers.itemsize
        for index, offset in self._patches:
            self._numbers[index] = data + offset
        total = data + len(self._data) - memory.LIST
        total += -total % PAGE
        memory.map_at(memory.LIST, total)
        head = len(message).to_bytes(_WORD, "little") + total.to_bytes(_WORD, "little")
        content = head + message.ljust(message_bytes, b"\0") + self._numbers.tobytes() + self._data
        ctypes.memmove(memory.LIST, content, len(content))
        return first


class _Files:
    """Files to map, each opened once."""

    def __init__(self):
        self._opened = {}

    def open(self, path):
        if path not in self._opened:
            self._opened[path] = _aside(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        return self._opened[path]

    def opened(self):
        return list(self._opened.values())


def _replace_memory(calls, files, image, entries, mine):
    """A mapping takes the place of what is there in one step, so that nothing the kernel itself writes to is ever
    missing; what is left between the snapshot's mappings goes last."""
    heap = max((end for _, end, _, _, path, _ in entries if path == "[heap]"), default=None)
    if heap is not None:
        calls.add(_SYS_BRK, heap)
    kept = [(start, end) for start, end, _, _, path in mine if path in memory.KERNELS or path == "[stack]"]
    kept += [(address, address + (1 << 40)) for address in memory.OWN]
    for start, end, permissions, offset, path, runs in entries:
        kept.append((start, end))
        if path == "[stack]":
            for address, length, position in runs:
                calls.add(_SYS_PREAD, image, address, length, position)
            continue
        # The interpreter's own programs and libraries are there already.
        if runs or "w" in permissions or (start, end, permissions, offset, path) not in mine:
            _map(calls, files, image, (start, end, permissions, offset, path), runs)
    place = _LOWEST
    for start, end in sorted(kept):
        if start > place:
            calls.add(_SYS_MUNMAP, place, min(start, _HIGHEST) - place)
        place = max(place, end)
        if place >= _HIGHEST:
            return
    calls.add(_SYS_MUNMAP, place, _HIGHEST - place)


def _map(calls, files, image, mapping, runs):
    start, end, permissions, offset, path = mapping
    protection = memory.protection(permissions)
    fixed = memory.MAP_FIXED | memory.MAP_NORESERVE
    if runs != [[start, end - start, runs[0][2]]] if runs else True:
        if memory.is_file(path):
            sharing = memory.MAP_SHARED if permissions[3] == "s" else memory.MAP_PRIVATE
            calls.add(_SYS_MMAP, start, end - start, protection, sharing | fixed, files.open(path), offset)
        else:
            anonymous = memory.MAP_PRIVATE | memory.MAP_ANONYMOUS | fixed
            calls.add(_SYS_MMAP, start, end - start, protection, anonymous, -1, 0)
    for address, length, position in runs:
        calls.add(_SYS_MMAP, address, length, protection, memory.MAP_PRIVATE | fixed, image, position)


def _restore_signals(calls, document):
    default = bytes(SIGACTION_BYTES)
    for number, action in enumerate(document["actions"], 1):
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            data = default if action is None else bytes.fromhex(action)
            calls.add_with(_SYS_SIGACTION, [number, None, 0, _SIGSET_BYTES], data)
    if document["signal_stack"] is not None:
        calls.add_with(_SYS_SIGALTSTACK, [None, 0], bytes.fromhex(document["signal_stack"]))
    mask = sum(1 << (number - 1) for number in document["mask"])
    calls.add_with(_SYS_SIGPROCMASK, [_SIG_SETMASK, None, 0, _SIGSET_BYTES], mask.to_bytes(_SIGSET_BYTES, "little"))


def _write_scratch(image, entries):
    for path, mode, times, content in entries:
        if stat.S_ISLNK(mode):
            os.symlink(content, path)
            continue
        if stat.S_ISDIR(mode):
            os.makedirs(path, exist_ok=True)
        else:
            position, length = content
            with open(path, "wb") as file:
                while length:
                    sent = os.sendfile(file.fileno(), image, position, length)
                    position, length = position + sent, length - sent
        os.chmod(path, stat.S_IMODE(mode))
        os.utime(path, ns=tuple(times))
    for path, mode, times, _ in reversed(entries):
        if stat.S_ISDIR(mode):
            os.utime(path, ns=tuple(times))


def _open_descriptors(entries):
    """Nothing else is opened after this: a number that is free now may be the snapshot's."""
    wanted = {number for number, _, _, _, _ in entries}
    for number, inherited, flags, path, detail in entries:
        if path is None:
            with socket.socket(*detail) as dead:
                opened = dead.detach()
        else:
            opened = os.open(path, flags & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC))
            if detail:
                os.lseek(opened, detail, os.SEEK_SET)
        if opened != number:
            os.dup2(opened, number, inherited)
            if opened not in wanted:
                os.close(opened)
        else:
            os.set_inheritable(opened, inherited)
