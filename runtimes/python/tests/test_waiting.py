"""All the same of a runtime that waits for its order, and what is its own."""

import unittest

import support
import test_runtime


def _waiting(case):
    class Waiting(case):
        def setUp(self):
            support.waits = True

        def tearDown(self):
            support.waits = False

    Waiting.__name__ = Waiting.__qualname__ = "Waiting" + case.__name__
    return Waiting


def _is_case(found):
    return isinstance(found, type) and issubclass(found, unittest.TestCase)


for _case in [found for found in vars(test_runtime).values() if _is_case(found)]:
    globals()["Waiting" + _case.__name__] = _waiting(_case)
del _case

LOOK = """
    import os, sys, time
    at_init = dict(os.environ)
    def handler(event, context):
        return {"names": sorted(at_init), "cwd": os.getcwd(), "hour": time.localtime(0).tm_hour, "path": sys.path}
"""


class Orders(unittest.TestCase):
    def test_what_was_ordered_is_all_that_is_found(self):
        support.waits = True
        self.addCleanup(setattr, support, "waits", False)
        with support.runtime(LOOK, TZ="Asia/Tokyo", PYTHONPATH="/mine::more", MINE="1") as runtime:
            found = runtime.invoke(1).json()
        self.assertIn("MINE", found["names"])
        self.assertEqual([name for name in found["names"] if name.startswith("_")], ["_HANDLER"])
        self.assertNotIn("STALE", found["names"])
        self.assertEqual(found["hour"], 9)
        self.assertNotEqual(found["cwd"], "/")
        self.assertEqual(found["path"][3:5], ["/mine", found["cwd"] + "/more"])


if __name__ == "__main__":
    unittest.main()
