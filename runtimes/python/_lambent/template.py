"""A runtime that is loaded once and forked for each container.

The node starts it outside of all containers, with the right to enter any; no code of any function is in it, ever.
For each container that it is asked for

    template  forks an envoy       which joins the container's cgroups and namespaces, becomes its user, gives up every
                                   privilege and puts the filter of system calls in force,
    envoy     forks the runtime    which is thereby inside the container's process ids, waits for its order and goes on,
              and ends             so that the runtime becomes the template's child, which tells the node how it ends.

A step that fails ends the envoy or the runtime, and the node is told; nothing goes on with a part of it undone.
Messages are JSON, one a packet, descriptors beside them; the node's side is `crates/sandbox/src/cell/template.rs`.
"""

import array
import contextlib
import ctypes
import gc
import json
import os
import resource
import select
import signal
import socket

from . import clone, hooks, loop, memory, snapshot, waiting  # noqa: F401 - loaded for the forks

_MESSAGE = 128 * 1024
_DESCRIPTORS = 16
_STDIN, _STDOUT, _STDERR, _LOG, _ORDER = 0, 1, 2, 62, 63  # where a runtime has them
_OWN = (_STDOUT, _STDERR, _LOG, _ORDER)

_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_SECUREBITS, _PR_SET_NO_NEW_PRIVS = 4, 22, 24, 28, 38
_SECCOMP_MODE_FILTER = 2
_CAPABILITIES = 64  # Linux has fewer; the first unknown one ends the loop
_CAPABILITY_VERSION = 0x20080522
_EINVAL = 22
_INSTRUCTION_BYTES = 8


class _Filter(ctypes.Structure):
    """The kernel's `sock_fprog`."""

    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_void_p)]


class Refused(Exception):
    """A step that failed, with the number of its error."""

    def __init__(self, step, number):
        super().__init__(step, number)
        self.step = step
        self.number = number


def serve(descriptor):
    """Serves the node until it has gone, which ends the process. Returns in each fork, a runtime from then on."""
    waiting.preload()
    node = socket.socket(fileno=descriptor)
    wake, wakened = os.pipe()
    os.set_blocking(wakened, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wakened)
    signal.signal(signal.SIGCHLD, _nothing)
    begin, _ = _receive(node)
    envoy = _Envoy(begin["Begin"])
    _make_cloneable(bytes.fromhex(begin["Begin"]["clone"]))
    forks = {}
    gc.collect()
    gc.freeze()  # the collector would touch, and thereby copy, every object that forks share
    node.sendall(b'"Ready"')
    while True:
        ready, _, _ = select.select([node, wake], [], [])
        if wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
            _reap(node, forks)
        if node in ready:
            message, descriptors = _receive(node)
            if message is None:
                os._exit(0)
            order = _fork(node, envoy, message["Fork"], descriptors, forks)
            if order is not None:
                return order


def _make_cloneable(code):
    """Whatever goes wrong, forks are what they were; they only cannot be snapshot."""
    if code:
        with contextlib.suppress(OSError):
            memory.place(code)


def _nothing(_signal, _frame):
    """A handler, for the kernel to interrupt us by."""


def _receive(node):
    """The next message and its descriptors; none when the node has gone."""
    integers = array.array("i")
    data, ancillary, _flags, _address = node.recvmsg(_MESSAGE, socket.CMSG_SPACE(_DESCRIPTORS * integers.itemsize))
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            integers.frombytes(content[: len(content) - len(content) % integers.itemsize])
    return (json.loads(data.decode()) if data else None), list(integers)


def _send(node, message, descriptors=()):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    node.sendmsg([json.dumps(message).encode()], rights)


def _reap(node, forks):
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        sequence = forks.pop(pid, None)
        if sequence is not None:
            ended, by = os.WIFEXITED(status), os.WIFSIGNALED(status)
            code = os.WEXITSTATUS(status) if ended else None
            _send(node, {"Exited": {"seq": sequence, "code": code, "signal": os.WTERMSIG(status) if by else 0}})


def _fork(node, envoy, order, descriptors, forks):
    """Makes one fork and answers the node. In the fork: the descriptor of its order pipe."""
    sequence = order["seq"]
    report, reporter = os.pipe()
    envoy_pid = os.fork()
    if envoy_pid == 0:
        return envoy.run(order, descriptors, reporter, (node.detach(), report))
    os.close(reporter)
    for descriptor in descriptors:
        os.close(descriptor)
    pid, inside, refused = _read_report(report)
    os.close(report)
    # Its end, not that of others: this one is not for `_reap`.
    os.waitpid(envoy_pid, 0)
    if pid is not None:
        forks[pid] = sequence
    if refused is None and inside is None:
        refused = {"step": "fork the template", "errno": 5}
    if refused is not None:
        _send(node, {"Refused": dict(refused, seq=sequence)})
        return None
    handle = _pidfd(pid)
    _send(node, {"Forked": {"seq": sequence, "pid": inside, "host": pid}}, [handle])
    os.close(handle)
    return None


def _read_report(report):
    """What envoy and runtime say: the runtime's number here, its number in the container, or what went wrong."""
    text = b""
    pid = inside = refused = None
    while refused is None and (pid is None or inside is None):
        data = os.read(report, 4096)
        if not data:
            break
        text += data
        *lines, text = text.split(b"\n")
        for line in lines:
            said = json.loads(line.decode())
            pid, inside, refused = said.get("pid", pid), said.get("inside", inside), said.get("refused", refused)
    return pid, inside, refused


_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl
_prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_SYS_PIDFD_OPEN = 434  # the same on every architecture


def _pidfd(pid):
    if hasattr(os, "pidfd_open"):
        return os.pidfd_open(pid)
    return _done("pidfd_open", _libc.syscall(ctypes.c_long(_SYS_PIDFD_OPEN), ctypes.c_int(pid), ctypes.c_uint(0)))


def _done(step, result):
    if result < 0:
        raise Refused(step, ctypes.get_errno())
    return result


class _Envoy:
    """What all envoys do. Everything that can be prepared is: what is made after a fork is memory of its own."""

    def __init__(self, begin):
        self._user, self._group = begin["uid"], begin["gid"]
        self._limits = begin["limits"]
        self._secure_bits = begin["secure_bits"]
        self._likelihood = str(begin["oom_score"]).encode()
        program = bytes.fromhex(begin["filter"])
        self._program = ctypes.create_string_buffer(program, len(program)) if program else None
        self._filter = _Filter(len(program) // _INSTRUCTION_BYTES, ctypes.addressof(self._program) if program else None)
        self._filter_address = ctypes.addressof(self._filter)
        self._no_capabilities = ((ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)())

    def run(self, order, descriptors, reporter, others):
        """In the envoy; returns in the runtime only."""
        try:
            for descriptor in others:
                os.close(descriptor)
            agent, pipes, groups = descriptors[0], descriptors[1:5], descriptors[5:]
            self._enter(order, agent, groups)
            pid = os.fork()
            if pid != 0:
                os.write(reporter, b'{"pid":%d}\n' % pid)
                os._exit(0)
            return self._settle(pipes, reporter)
        except BaseException as error:  # whatever it is, this process must not go on
            number = getattr(error, "number", None) or getattr(error, "errno", None) or 5
            step = getattr(error, "step", None) or "fork the template: {}".format(error)
            os.write(reporter, json.dumps({"refused": {"step": step, "errno": number}}).encode() + b"\n")
            os._exit(1)

    def _enter(self, order, agent, groups):
        for group in groups:
            os.write(group, b"0")
        _done("setns", _libc.setns(agent, order["namespaces"]))
        processes = order["processes"]
        limits = self._limits if processes is None else self._limits + [[resource.RLIMIT_NPROC, processes]]
        for kind, most in limits:
            _, hard = resource.getrlimit(kind)
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (most, most))
        os.setresgid(self._group, self._group, self._group)
        os.setresuid(self._user, self._user, self._user)
        if self._secure_bits is not None:
            self._give_up()
        if self._program is not None:
            _done("PR_SET_NO_NEW_PRIVS", _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
            _done("PR_SET_SECCOMP", _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, self._filter_address, 0, 0))

    def _give_up(self):
        for capability in range(_CAPABILITIES):
            if _prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
                if capability > 0 and ctypes.get_errno() == _EINVAL:
                    break
                raise Refused("PR_CAPBSET_DROP", ctypes.get_errno())
        _done("PR_SET_SECUREBITS", _prctl(_PR_SET_SECUREBITS, self._secure_bits, 0, 0, 0))
        _done("capset", _libc.capset(*self._no_capabilities))
        _done("PR_SET_NO_NEW_PRIVS", _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))

    def _settle(self, pipes, reporter):
        """In the runtime: becomes what a process that was started is. The order pipe's descriptor."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # A change of user had made its own entries in /proc unreadable for it.
        _done("PR_SET_DUMPABLE", _prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0))
        score = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        os.write(score, self._likelihood)
        for descriptor, place in zip([os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)] + pipes, (_STDIN,) + _OWN):
            os.dup2(descriptor, place)
        os.write(reporter, b'{"inside":%d}\n' % os.getpid())
        os.closerange(_STDERR + 1, _LOG)
        os.closerange(_ORDER + 1, os.sysconf("SC_OPEN_MAX"))
        os.environ.pop("_LAMBENT_TEMPLATE_FD", None)
        os.environ["_LAMBDA_TELEMETRY_LOG_FD"] = str(_LOG)
        return _ORDER
