"""A process's memory as the kernel describes it, and the piece of machine code that snapshots need.

The code is placed by a template before it forks (`place`), so it is in every fork, at the same address. It can do two
things:

    freeze  note down where the caller is, tell a descriptor, and wait for ever
    play    make the system calls of a list, one after another, then go on where `freeze` noted it down

Its source is `crates/sandbox/src/agent/clone.rs`. Neither needs or has any privilege.
"""

import ctypes
import mmap

PAGE = mmap.PAGESIZE

# Far from wherever the kernel puts anything by itself.
CODE = 0x1100_0000_0000
LIST = 0x1200_0000_0000
OWN = (CODE, LIST)
_PLAY = 128  # where the second entry of the code is

PROT_NONE, PROT_READ, PROT_WRITE, PROT_EXEC = 0, 1, 2, 4
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS, MAP_NORESERVE = 1, 2, 0x10, 0x20, 0x4000
_MAP_FIXED_NOREPLACE = 0x100000
_FAILED = ctypes.c_void_p(-1).value

# Bytes that `freeze` writes: registers, and the settings of the floating point units.
REGISTERS = 72

# Mappings that are the kernel's own and the same in all forks of a template.
KERNELS = ("[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]")

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_longlong]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def map_at(address, length):
    """Memory of our own at this address, where nothing may be yet."""
    flags = MAP_PRIVATE | MAP_ANONYMOUS | _MAP_FIXED_NOREPLACE
    found = libc.mmap(address, length, PROT_READ | PROT_WRITE, flags, -1, 0)
    if found != address:
        if found != _FAILED:  # a kernel older than the flag
            libc.munmap(found, length)
        raise OSError(ctypes.get_errno(), "no memory at {:x}".format(address))


def place(code):
    """Puts the code where all forks will find it."""
    map_at(CODE, PAGE)
    ctypes.memmove(CODE, code, len(code))
    if libc.mprotect(CODE, PAGE, PROT_READ | PROT_EXEC) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")


def freeze(registers, descriptor):
    """Waits for ever; returns in whatever is made from this process as it was."""
    return ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)(CODE)(registers, descriptor)


def play(calls):
    """Never returns here."""
    ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(CODE + _PLAY)(calls)


def maps(process="self"):
    """Each mapping: start, end, permissions, offset in its file, and the file's path or the kernel's name for it."""
    with open("/proc/{}/maps".format(process), encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            addresses, permissions, offset, _device, _inode, *path = line.rstrip("\n").split(None, 5)
            start, _, end = addresses.partition("-")
            yield int(start, 16), int(end, 16), permissions, int(offset, 16), path[0] if path else ""


def protection(permissions):
    """What `mmap` takes for `rwx`."""
    return sum(bit for bit, letter in zip((PROT_READ, PROT_WRITE, PROT_EXEC), permissions) if letter != "-")


def is_file(path):
    """Whether a mapping's name is that of a file."""
    return path.startswith("/")
