"""Becoming what a snapshot was taken of: what is brought about before the memory is replaced, and how it will be.

That a whole process becomes another is tested where there is code to be frozen by: crates/sandbox/tests/it/clone.rs.
"""

import array
import ctypes
import fcntl
import json
import os
import socket
import stat
import tempfile
import unittest
from unittest import mock

import support

from _lambent import clone, memory, snapshot
from _lambent.memory import PAGE

MMAP, MUNMAP, BRK, PREAD = clone._SYS_MMAP, clone._SYS_MUNMAP, clone._SYS_BRK, clone._SYS_PREAD
FIXED = memory.MAP_FIXED | memory.MAP_NORESERVE


class Calls:
    """A list of system calls, to be read."""

    def __init__(self):
        self.made = []

    def add(self, call, *arguments, result=0):
        self.made.append((call, *arguments))

    def of(self, kind):
        return [arguments for call, *arguments in self.made if call == kind]


class Files:
    def open(self, path):
        return {"/lib/known.so": 600}[path]


class Memory(unittest.TestCase):
    IMAGE = 512

    def replaced(self, entries, mine=()):
        calls = Calls()
        clone._replace_memory(calls, Files(), self.IMAGE, entries, set(mine))
        return calls

    def test_pages_with_a_content_come_from_the_snapshot(self):
        start = 0x10_0000
        calls = self.replaced([[start, start + 8 * PAGE, "rw-p", 0, "", [[start + PAGE, 2 * PAGE, 4096]]]])
        protection = memory.PROT_READ | memory.PROT_WRITE
        anonymous = memory.MAP_PRIVATE | memory.MAP_ANONYMOUS | FIXED
        self.assertEqual(
            calls.of(MMAP),
            [
                [start, 8 * PAGE, protection, anonymous, -1, 0],
                [start + PAGE, 2 * PAGE, protection, memory.MAP_PRIVATE | FIXED, self.IMAGE, 4096],
            ],
        )

    def test_a_mapping_that_is_all_content_is_mapped_once(self):
        start = 0x10_0000
        calls = self.replaced([[start, start + PAGE, "rw-p", 0, "", [[start, PAGE, 0]]]])
        self.assertEqual(len(calls.of(MMAP)), 1)

    def test_a_library_that_is_there_already_is_left_where_it_is(self):
        code = (0x20_0000, 0x20_0000 + PAGE, "r-xp", 0, "/lib/known.so")
        self.assertEqual(self.replaced([[*code, []]], [code]).of(MMAP), [])
        other = (0x30_0000, 0x30_0000 + PAGE, "r-xp", 0, "/lib/known.so")
        ((_, _, protection, flags, descriptor, offset),) = self.replaced([[*code, []]], [other]).of(MMAP)
        self.assertEqual((protection, flags), (memory.PROT_READ | memory.PROT_EXEC, memory.MAP_PRIVATE | FIXED))
        self.assertEqual((descriptor, offset), (600, 0))

    def test_the_stack_is_read_and_not_mapped(self):
        start = 0x7FFF_0000_0000
        stack = [start, start + 4 * PAGE, "rw-p", 0, "[stack]", [[start + PAGE, PAGE, 8192]]]
        calls = self.replaced([stack])
        self.assertEqual(calls.of(MMAP), [])
        self.assertEqual(calls.of(PREAD), [[self.IMAGE, start + PAGE, PAGE, 8192]])

    def test_the_heap_ends_where_the_snapshot_says(self):
        start = 0x40_0000
        calls = self.replaced([[start, start + PAGE, "rw-p", 0, "[heap]", []]])
        self.assertEqual(calls.made[0], (BRK, start + PAGE))

    def test_nothing_stays_but_the_snapshots_the_kernels_and_our_own(self):
        start = 0x10_0000
        kernels = (0x7000_0000_0000, 0x7000_0000_0000 + PAGE, "r-xp", 0, "[vdso]")
        rest = (0x50_0000, 0x50_0000 + PAGE, "rw-p", 0, "")
        calls = self.replaced([[start, start + PAGE, "rw-p", 0, "", []]], [kernels, rest])
        gone = [(address, address + length) for address, length in calls.of(MUNMAP)]
        kept = [(start, start + PAGE), kernels[:2]] + [(own, own + (1 << 40)) for own in memory.OWN]
        place = clone._LOWEST
        for begin, end in sorted(gone + kept):
            self.assertEqual(begin, place, "without gap or overlap")
            place = end
        self.assertEqual(place, clone._HIGHEST)
        last_mapped = max(index for index, call in enumerate(calls.made) if call[0] == MMAP)
        self.assertLess(last_mapped, min(index for index, call in enumerate(calls.made) if call[0] == MUNMAP))


class List(unittest.TestCase):
    """How the calls lie in memory, for the machine code."""

    def test_entries_data_and_message_are_where_the_head_says(self):
        def laid():
            calls = clone._Calls()
            calls.add(1, 2, 3, result=4)
            calls.add_with(5, [6, None, 0, 8], b"data")
            first = calls.finish(0xABC0, b"message")
            numbers = array.array("Q", ctypes.string_at(first, 3 * 8 * clone._ENTRY)).tolist()
            self.assertEqual(numbers[:8], [1, 2, 3, 0, 0, 0, 0, 4])
            pointed = numbers[10]
            self.assertEqual(numbers[8:16], [5, 6, pointed, 0, 8, 0, 0, 0])
            self.assertEqual(ctypes.string_at(pointed, 4), b"data")
            self.assertEqual(numbers[16:18], [clone._END, 0xABC0])
            self.assertEqual(clone.message_left(), b"message")
            self.assertNotIn(memory.LIST, [start for start, *_ in memory.maps()])

        self.assertEqual(support.in_a_child(laid), 0)

    def test_numbers_below_zero_are_as_the_kernel_takes_them(self):
        calls = clone._Calls()
        calls.add(9, -1)
        self.assertEqual(calls._numbers[1], (1 << 64) - 1)

    def test_signals_are_set_but_those_that_cannot_be(self):
        asked = []
        calls = mock.Mock(add_with=lambda call, arguments, data: asked.append((call, arguments, data)))
        ignored = (1).to_bytes(snapshot.SIGACTION_BYTES, "little")
        actions = [None] * snapshot.SIGNALS
        actions[0] = ignored.hex()
        clone._restore_signals(calls, {"actions": actions, "signal_stack": None, "mask": [2, 10]})
        set_to = {arguments[0]: data for call, arguments, data in asked if call == clone._SYS_SIGACTION}
        self.assertEqual(set(range(1, snapshot.SIGNALS + 1)) - set(set_to), {9, 19})
        self.assertEqual((set_to[1], set_to[2]), (ignored, bytes(snapshot.SIGACTION_BYTES)))
        self.assertEqual(asked[-1][0], clone._SYS_SIGPROCMASK)
        self.assertEqual(int.from_bytes(asked[-1][2], "little"), 1 << 1 | 1 << 9)


class Scratch(unittest.TestCase):
    def test_files_links_and_folders_are_as_they_were(self):
        with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile() as image:
            image.write(b"...content...")
            image.flush()
            path = lambda *names: os.path.join(scratch, *names)  # noqa: E731
            times = (1_000_000_000, 2_000_000_000)
            entries = [
                [path("folder"), stat.S_IFDIR | 0o750, times, None],
                [path("folder", "file"), stat.S_IFREG | 0o640, times, [3, 7]],
                [path("folder", "empty"), stat.S_IFREG | 0o600, times, [0, 0]],
                [path("link"), stat.S_IFLNK | 0o777, times, "folder/file"],
            ]
            clone._write_scratch(image.fileno(), entries)
            with open(path("link"), "rb") as file:
                self.assertEqual(file.read(), b"content")
            for name, mode in (("folder", 0o750), ("folder/file", 0o640), ("folder/empty", 0o600)):
                about = os.lstat(path(name))
                self.assertEqual((stat.S_IMODE(about.st_mode), about.st_mtime_ns), (mode, times[1]), name)


class Descriptors(unittest.TestCase):
    def test_each_is_opened_at_its_number_and_place(self):
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"0123456789")
            file.flush()
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC

            def opens():
                connection = [int(socket.AF_INET), int(socket.SOCK_STREAM)]
                clone._open_descriptors(
                    [[700, False, flags, file.name, 4], [701, True, os.O_RDWR, None, connection]],
                )
                self.assertEqual(os.read(700, 3), b"456", "and nothing of it was cut off")
                self.assertEqual([os.get_inheritable(number) for number in (700, 701)], [False, True])
                self.assertTrue(stat.S_ISSOCK(os.fstat(701).st_mode))
                with self.assertRaises(OSError):
                    os.write(701, b"to nobody")

            self.assertEqual(support.in_a_child(opens), 0)

    def test_one_whose_number_is_free_stays_there(self):
        def opens():
            free = os.open("/dev/null", os.O_RDONLY)
            os.close(free)
            clone._open_descriptors([[free, True, os.O_RDONLY, "/dev/null", 0]])
            self.assertTrue(os.get_inheritable(free))

        self.assertEqual(support.in_a_child(opens), 0)

    def test_what_is_in_the_way_is_moved_and_not_inherited(self):
        kept = clone._aside(os.open("/dev/null", os.O_RDONLY))
        self.addCleanup(os.close, kept)
        self.assertGreaterEqual(kept, clone._ASIDE)
        self.assertTrue(fcntl.fcntl(kept, fcntl.F_GETFD) & fcntl.FD_CLOEXEC)

    def test_a_file_is_opened_once(self):
        files = clone._Files()
        self.assertEqual(files.open("/dev/null"), files.open("/dev/null"))
        (only,) = files.opened()
        os.close(only)


class Become(unittest.TestCase):
    def test_a_snapshot_of_another_template_or_number_is_refused_before_anything_changes(self):
        kernels = sorted([name, start, end] for start, end, _, _, name in memory.maps() if name in memory.KERNELS)
        documents = [{"kernels": [], "process": 0}, {"kernels": kernels, "process": os.getpid()}]
        for document in documents:
            text = json.dumps(document).encode("utf-8")
            with tempfile.NamedTemporaryFile() as image:
                image.write(text + str(len(text)).zfill(snapshot.TRAILER).encode())
                image.flush()
                written = mock.patch.object(clone, "_write_scratch")
                with written as scratch, self.assertRaisesRegex(OSError, "none for this process"):
                    clone.become(image.name, b"{}")
                scratch.assert_not_called()


if __name__ == "__main__":
    unittest.main()
