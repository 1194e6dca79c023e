"""Hooks around a snapshot: their order, what their failures say, and what a clone makes its own."""

import json
import os
import signal
import unittest
from unittest import mock

import support

import snapshot_restore_py  # isort: skip - found through the line above
from _lambent import clone, hooks, logs, snapshot, waiting


class Runtime:
    """What the hooks say to the platform."""

    def __init__(self):
        self.said = []

    def fail_init(self, document, kind):
        self.said.append(("init", kind, json.loads(document)))

    def fail_restore(self, document, kind):
        self.said.append(("restore", kind, json.loads(document)))

    def refuse_snapshot(self, reason):
        self.said.append(("refused", reason))

    def send_snapshot(self, length, parts):
        self.said.append(("sent", length, b"".join(parts)))


class Waited(Exception):
    """The process would wait for its end here."""


class Hooks(unittest.TestCase):
    def setUp(self):
        self.called = []
        self.runtime = Runtime()
        self.addCleanup(snapshot_restore_py.get_before_snapshot().clear)
        self.addCleanup(snapshot_restore_py.get_after_restore().clear)

    def register(self):
        for name in ("first", "second"):
            snapshot_restore_py.register_before_snapshot(self.called.append, "before " + name)
            snapshot_restore_py.register_after_restore(self.called.append, "after " + name)

    def run_failing(self):
        with mock.patch.object(logs, "error") as logged:
            status = hooks.run(self.runtime, "skip")
        self.assertEqual([document["errorType"] for ((document,), _) in logged.call_args_list], ["ZeroDivisionError"])
        return status

    def test_hooks_run_in_the_order_that_aws_documents(self):
        self.register()
        self.assertIsNone(hooks.run(self.runtime, "skip"))
        self.assertEqual(self.called, ["before second", "before first", "after first", "after second"])
        self.assertEqual(self.runtime.said, [])

    def test_hooks_get_what_was_registered_with_them_and_serve_as_decorators(self):
        @snapshot_restore_py.register_before_snapshot
        def decorated():
            self.called.append("decorated")

        snapshot_restore_py.register_after_restore(lambda *args, **named: self.called.append((args, named)), 1, a=2)
        hooks.run(self.runtime, "skip")
        decorated()
        self.assertEqual(self.called, ["decorated", ((1,), {"a": 2}), "decorated"])

    def test_a_function_that_registered_nothing_is_not_made_to_import_the_package(self):
        with mock.patch.dict("sys.modules"):
            del hooks.sys.modules["snapshot_restore_py"]
            self.assertIsNone(hooks.run(self.runtime, "skip"))
            self.assertNotIn("snapshot_restore_py", hooks.sys.modules)

    def test_a_failure_before_the_snapshot_ends_the_init(self):
        self.register()
        snapshot_restore_py.register_before_snapshot(lambda: 1 // 0)
        self.assertEqual(self.run_failing(), hooks.BEFORE_FAILED)
        ((where, kind, document),) = self.runtime.said
        self.assertEqual((where, kind), ("init", "Runtime.BeforeSnapshotError"))
        self.assertEqual(document["errorType"], "ZeroDivisionError")
        self.assertEqual(self.called, [], "what was registered before it comes after it, and is not called any more")

    def test_a_failure_after_the_restore_ends_the_restore(self):
        self.register()
        snapshot_restore_py.register_after_restore(lambda: 1 // 0)
        self.assertEqual(self.run_failing(), hooks.AFTER_FAILED)
        self.assertEqual(
            [(where, kind) for where, kind, _ in self.runtime.said], [("restore", "Runtime.AfterRestoreError")]
        )

    def test_what_cannot_be_frozen_is_refused_with_its_reason_and_nothing_is_restored(self):
        self.register()
        refused = mock.patch.object(snapshot, "take", side_effect=snapshot.Unsafe("it has more than one thread"))
        with refused, mock.patch.object(hooks, "_wait", side_effect=Waited), self.assertRaises(Waited):
            hooks.run(self.runtime, "take")
        self.assertEqual(self.runtime.said, [("refused", "it has more than one thread")])
        self.assertEqual(self.called, ["before second", "before first"])

    def test_a_snapshot_is_sent_and_its_process_waits(self):
        taken = mock.Mock(length=3, parts=lambda: iter([b"a", b"bc"]))
        takes, waits = mock.patch.object(snapshot, "take", return_value=taken), mock.patch.object(hooks, "_wait")
        with takes as take, waits as wait, self.assertRaises(Waited):
            wait.side_effect = Waited
            hooks.run(self.runtime, "take")
        self.assertEqual(self.runtime.said, [("sent", 3, b"abc")])
        self.assertLessEqual({0, 1, 2}, take.call_args[0][0])

    def test_the_channel_of_the_log_belongs_to_the_runtime(self):
        with mock.patch.object(logs, "descriptor", return_value=7):
            self.assertEqual(hooks._own_descriptors(), {0, 1, 2, 7})
        with mock.patch.object(logs, "descriptor", return_value=None):
            self.assertEqual(hooks._own_descriptors(), {0, 1, 2})

    def test_a_clone_takes_its_own_order_where_the_function_did_not_change_what_was_ordered(self):
        was = {"STREAM": "of the snapshot", "CHANGED": "of the snapshot", "SAME": "same", "DELETED": "of the snapshot"}
        ordered = {**was, "STREAM": "mine", "CHANGED": "mine", "DELETED": "mine", "NEW": "new"}
        message = json.dumps({"env": ordered}).encode("utf-8")

        def woken():
            os.environ.clear()
            os.environ.update(was, CHANGED="by the function", OWN="of the function")
            del os.environ["DELETED"]
            snapshot_restore_py.register_after_restore(self.called.append, "after")
            with mock.patch.object(snapshot, "take", return_value=None), mock.patch.object(
                clone, "message_left", return_value=message
            ), mock.patch.object(waiting, "environment", was):
                self.assertIsNone(hooks.run(self.runtime, "take"))
            self.assertEqual((self.called, self.runtime.said), (["after"], []))
            found = {name: os.environ.get(name) for name in ("STREAM", "CHANGED", "SAME", "DELETED", "NEW", "OWN")}
            expected = {
                "STREAM": "mine",
                "CHANGED": "by the function",
                "SAME": "same",
                "DELETED": None,
                "NEW": "new",
                "OWN": "of the function",
            }
            self.assertEqual(found, expected)

        self.assertEqual(support.in_a_child(woken), 0)

    def test_random_numbers_differ_after_it_although_the_generator_was_the_same(self):
        message = json.dumps({"env": {}}).encode("utf-8")

        def drawn(pipe):
            import random

            with mock.patch.object(clone, "message_left", return_value=message):
                hooks._wake()
            os.write(pipe, random.random().hex().encode())

        import random

        random.seed(1)
        found = set()
        for _ in range(2):
            told, tell = os.pipe()
            self.assertEqual(support.in_a_child(lambda tell=tell: drawn(tell)), 0)
            os.close(tell)
            found.add(os.read(told, 100))
            os.close(told)
        self.assertEqual(len(found), 2)


class Aside(unittest.TestCase):
    """`go_aside`, which leaves the low numbers to clones, and passes on how the other ended."""

    def aside(self, then):
        def goes():
            hooks.go_aside()
            return 1 if os.getpid() < hooks._LEAST_PID else then()

        return support.in_a_child(goes)

    def test_the_number_is_none_of_a_clone_and_the_status_is_passed_on(self):
        self.assertEqual(os.WEXITSTATUS(self.aside(lambda: 7)), 7)

    def test_a_signal_is_passed_on(self):
        status = self.aside(lambda: os.kill(os.getpid(), signal.SIGKILL))
        self.assertEqual((os.WIFSIGNALED(status), os.WTERMSIG(status)), (True, signal.SIGKILL))

    def test_one_that_is_caught_by_python_too(self):
        def interrupted():
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)

        status = self.aside(interrupted)
        self.assertEqual((os.WIFSIGNALED(status), os.WTERMSIG(status)), (True, signal.SIGINT))

    def test_low_numbers_are_passed_over(self):
        self.assertEqual([hooks._is_aside(pid) for pid in (1, 63, 64, 32767)], [False, False, True, True])
        first = os.getpid()

        def is_aside(pid):
            # Not `first + 5` and more: where `first` is among the kernel's last numbers, there may be none.
            return (pid - first) % 4096 >= 5

        def late():
            with mock.patch.object(hooks, "_is_aside", is_aside):
                hooks.go_aside()
                return 0 if is_aside(os.getpid()) else 1

        self.assertEqual(support.in_a_child(late), 0)


if __name__ == "__main__":
    unittest.main()
