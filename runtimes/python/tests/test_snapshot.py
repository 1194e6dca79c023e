"""What is written down of a process, and what of it cannot be."""

import array
import ctypes
import io
import json
import mmap
import os
import signal
import socket
import subprocess
import tempfile
import threading
import unittest
from unittest import mock

import support

from _lambent import memory, snapshot
from _lambent.memory import PAGE


def entries(*words):
    """A pagemap."""
    return io.BytesIO(array.array("Q", words).tobytes())


class Pages(unittest.TestCase):
    MINE, FILES, SWAPPED = snapshot._PRESENT, snapshot._PRESENT | snapshot._OF_FILE, snapshot._SWAPPED

    def runs(self, words, start=0, is_of_file=False):
        end = start + len(words) * PAGE
        content = entries(*([self.MINE] * (start // PAGE) + list(words)))
        return list(snapshot._runs(content, start, end, is_of_file))

    def test_pages_without_a_content_are_left_out(self):
        self.assertEqual(self.runs([0] * 100), [])
        self.assertEqual(self.runs([self.MINE] * 3 + [0] * 50), [(0, 3 * PAGE)])
        self.assertEqual(self.runs([0, self.MINE, self.SWAPPED, 0], 5 * PAGE), [(6 * PAGE, 2 * PAGE)])

    def test_a_small_hole_is_written_out_and_a_large_one_is_not(self):
        hole = [0] * (snapshot._HOLE - 1)
        self.assertEqual(len(self.runs([self.MINE] + hole + [self.MINE])), 1)
        self.assertEqual(
            self.runs([self.MINE] + hole + [0, self.MINE]), [(0, PAGE), ((snapshot._HOLE + 1) * PAGE, PAGE)]
        )

    def test_of_a_file_only_what_was_changed_counts(self):
        words = [self.FILES, self.MINE, self.FILES]
        self.assertEqual(self.runs(words, is_of_file=True), [(PAGE, PAGE)])
        self.assertEqual(self.runs(words), [(0, 3 * PAGE)])

    def test_more_pages_than_are_read_at_once_are_one_stretch(self):
        count = snapshot._ENTRIES + 3
        self.assertEqual(self.runs([self.MINE] * count), [(0, count * PAGE)])

    def test_a_description_that_ends_early_is_no_error(self):
        self.assertEqual(list(snapshot._contents(entries(self.MINE), 0, 10, False)), [0])


class Pieces(unittest.TestCase):
    def test_small_ones_are_put_together_and_large_ones_pass(self):
        parts = [b"a" * 3, b"b" * 3, b"c" * 20, b"d"]
        self.assertEqual(list(snapshot.pieces(parts, 5)), [b"aaabbb", b"c" * 20, b"d"])
        self.assertEqual(list(snapshot.pieces([], 5)), [])

    def test_memory_that_ends_early_is_an_error(self):
        with self.assertRaises(OSError):
            list(snapshot._exactly(io.BytesIO(b"ab"), 3))


class Mappings(unittest.TestCase):
    def refused(self, *mapping):
        with self.assertRaises(snapshot.Unsafe) as caught:
            snapshot._check_mapping(*mapping)
        return str(caught.exception)

    def test_private_memory_and_files_are_taken(self):
        snapshot._check_mapping("rw-p", "")
        snapshot._check_mapping("rw-p", "[heap]")
        # A module of the interpreter: these tests may themselves lie in /tmp, where files are looked into.
        snapshot._check_mapping("r-xp", os.__file__)
        snapshot._check_mapping("r--s", os.__file__)

    def test_shared_memory_and_files_that_are_gone_are_not(self):
        self.assertIn("shares memory", self.refused("rw-s", "/dev/zero (deleted)"))
        self.assertIn("shares memory", self.refused("rw-s", __file__))
        self.assertIn("no file", self.refused("r-xp", "/nowhere/at/all.so"))

    def test_an_allocator_of_a_library_of_the_function_is_found_in_it(self):
        with tempfile.TemporaryDirectory() as scratch, mock.patch.object(snapshot, "SCRATCH", scratch):
            path = os.path.join(scratch, "library.so")
            for content, refused in ((b"\0nothing\0", False), (b"\0je_jemalloc_version\0", True)):
                with open(path, "wb") as library:
                    library.write(content)
                if refused:
                    self.assertIn("allocator", self.refused("r-xp", path))
                snapshot._check_mapping("r--p", path)
                if not refused:
                    snapshot._check_mapping("r-xp", path)


class Alone(unittest.TestCase):
    """`_check_alone`, as if the runtime had been forked from a template and nothing else ran."""

    def setUp(self):
        code = mock.patch.object(
            memory, "maps", lambda process="self": [(memory.CODE, memory.CODE + PAGE, "r-xp", 0, "")]
        )
        others = mock.patch.object(snapshot, "_is_another", return_value=False)
        for patched in (code, others):
            patched.start()
            self.addCleanup(patched.stop)

    def reason(self, do):
        """What is said of a process that did this."""
        told, tell = os.pipe()

        def looks():
            kept = do()
            try:
                snapshot._check_alone()
            except snapshot.Unsafe as reason:
                os.write(tell, str(reason).encode())
            del kept

        status = support.in_a_child(looks)
        os.close(tell)
        with open(told, encoding="utf-8") as said:
            text = said.read()
        self.assertEqual(status, 0)
        return text

    def test_one_thread_and_no_timer_is_alone(self):
        self.assertEqual(self.reason(lambda: None), "")

    def test_a_thread_is_not(self):
        def starts():
            threading.Thread(target=threading.Event().wait, daemon=True).start()

        self.assertIn("thread", self.reason(starts))

    def test_a_timer_is_not(self):
        self.assertIn("timer", self.reason(lambda: signal.setitimer(signal.ITIMER_REAL, 1000)))

    def test_a_process_beside_it_is_not(self):
        with mock.patch.object(snapshot, "_is_another", return_value=True):
            self.assertIn("other processes", self.reason(lambda: None))

    def test_a_runtime_that_was_not_forked_cannot_be_frozen(self):
        with mock.patch.object(memory, "maps", lambda process="self": []):
            self.assertIn("not forked", self.reason(lambda: None))


class Others(unittest.TestCase):
    def test_its_parent_itself_and_the_first_process_are_no_others(self):
        for number in (1, os.getpid(), os.getppid()):
            self.assertFalse(snapshot._is_another(str(number)))
        self.assertFalse(snapshot._is_another("self"))
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
            self.assertTrue(snapshot._is_another(str(other.pid)))


class Descriptors(unittest.TestCase):
    def setUp(self):
        # Whatever the tests' own process has open is not what is asked for.
        numbers = os.listdir("/proc/self/fd")
        self.before = {int(name) for name in numbers if os.path.exists("/proc/self/fd/" + name)}

    def found(self):
        return {number: rest for number, *rest in snapshot._descriptors(self.before)}

    def refused(self):
        with self.assertRaises(snapshot.Unsafe) as caught:
            self.found()
        return str(caught.exception)

    def test_a_file_is_found_with_its_place_and_flags(self):
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"12345")
            file.flush()
            os.set_inheritable(file.fileno(), True)
            inherited, flags, path, position = self.found()[file.fileno()]
            self.assertEqual((inherited, path, position), (True, file.name, 5))
            self.assertEqual(flags & os.O_ACCMODE, os.O_RDWR)

    def test_devices_without_a_state_and_folders_are_found(self):
        with open("/dev/null", "rb") as device:
            self.assertEqual(self.found()[device.fileno()][2:], ["/dev/null", 0])
        folder = os.open("/", os.O_RDONLY)
        self.addCleanup(os.close, folder)
        self.assertEqual(self.found()[folder][2:], ["/", 0])

    def test_of_a_connection_only_its_kind_is_kept(self):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as opened:
            expected = [None, [int(socket.AF_INET), int(socket.SOCK_STREAM)]]
            self.assertEqual(self.found()[opened.fileno()][2:], expected)

    def test_what_cannot_be_opened_again_is_refused(self):
        a, b = socket.socketpair()
        with a, b:
            self.assertIn("local socket", self.refused())
        read, write = os.pipe()
        for descriptor in (read, write):
            self.addCleanup(os.close, descriptor)
        self.assertIn("pipe:", self.refused())

    def test_a_file_that_was_deleted_is_refused(self):
        with tempfile.TemporaryFile():
            self.assertIn("cannot", self.refused())


class State(unittest.TestCase):
    def test_asking_for_it_changes_nothing(self):
        before = os.umask(0o027)
        self.addCleanup(os.umask, before)
        self.assertEqual(snapshot._umask(), 0o027)
        self.assertEqual(snapshot._umask(), 0o027)

    def test_every_limit_is_asked_once(self):
        kinds = snapshot._limits()
        self.assertEqual(len(kinds), len(set(kinds)))
        self.assertIn(snapshot.resource.RLIMIT_NOFILE, kinds)

    @unittest.skipUnless(os.uname().machine == "x86_64", "the numbers of system calls are this processor's")
    def test_signals_that_are_caught_or_ignored_are_found(self):
        libc = {32, 33}  # the C library's own

        def looks():
            for number in range(1, snapshot.SIGNALS + 1):
                if number not in libc | {signal.SIGKILL, signal.SIGSTOP}:
                    signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, lambda *_: None)
            actions = snapshot._actions()
            found = {number for number, action in enumerate(actions, 1) if action is not None} - libc
            self.assertEqual((len(actions), found), (snapshot.SIGNALS, {signal.SIGUSR1, signal.SIGTERM}))
            self.assertEqual(len(bytes.fromhex(actions[signal.SIGTERM - 1])), snapshot.SIGACTION_BYTES)

        self.assertEqual(support.in_a_child(looks), 0)


class Whole(unittest.TestCase):
    """A snapshot of a process that waits, as the parent reads it."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.scratch = folder.name
        patched = mock.patch.object(snapshot, "SCRATCH", self.scratch)
        patched.start()
        self.addCleanup(patched.stop)

    def taken(self, state=None):
        child = os.fork()
        if child == 0:
            while True:
                signal.pause()
        try:
            return child, snapshot.Snapshot(child, {} if state is None else state)
        except BaseException:
            snapshot._end(child)
            raise

    def test_memory_and_files_are_found_where_the_document_says(self):
        marked = mmap.mmap(-1, 4 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        marked[PAGE : PAGE + 6] = b"marked"
        address = ctypes.addressof(ctypes.c_char.from_buffer(marked)) + PAGE
        os.mkdir(os.path.join(self.scratch, "folder"), 0o750)
        with open(os.path.join(self.scratch, "folder", "file"), "wb") as file:
            file.write(b"what was in it")
        os.symlink("file", os.path.join(self.scratch, "folder", "link"))

        child, taken = self.taken({"cwd": "/here"})
        whole = b"".join(taken.parts())
        self.assertEqual(len(whole), taken.length)
        self.assertRaises(ChildProcessError, os.waitpid, child, 0)
        length = int(whole[-snapshot.TRAILER :])
        document = json.loads(whole[-snapshot.TRAILER - length : -snapshot.TRAILER].decode("utf-8", "surrogateescape"))
        self.assertEqual(document["cwd"], "/here")

        runs = [run for *_, found in document["maps"] for run in found]
        ((start, _, position),) = [run for run in runs if run[0] <= address < run[0] + run[1]]
        at = position + address - start
        self.assertEqual(whole[at : at + 6], b"marked")
        files = {os.path.relpath(path, self.scratch): (mode, content) for path, mode, _, content in document["scratch"]}
        self.assertEqual(set(files), {"folder", "folder/file", "folder/link"})
        self.assertEqual(files["folder"], (0o040750, None))
        self.assertEqual(files["folder/link"][1], "file")
        position, length = files["folder/file"][1]
        self.assertEqual(whole[position : position + length], b"what was in it")
        self.assertIn("[vdso]", [name for name, _, _ in document["kernels"]])

    def test_what_is_no_file_in_the_scratch_space_is_refused(self):
        os.mkfifo(os.path.join(self.scratch, "queue"))
        with self.assertRaisesRegex(snapshot.Unsafe, "queue in /tmp"):
            self.taken()

    def test_memory_that_is_shared_is_refused(self):
        with mmap.mmap(-1, PAGE), self.assertRaisesRegex(snapshot.Unsafe, "shares memory"):
            self.taken()

    def test_a_reader_that_gives_up_ends_the_process_all_the_same(self):
        child, taken = self.taken()
        parts = taken.parts()
        next(parts)
        parts.close()
        self.assertRaises(ChildProcessError, os.waitpid, child, 0)


if __name__ == "__main__":
    unittest.main()
