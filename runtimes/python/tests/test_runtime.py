import json
import unittest

import support

ECHO = """
    import logging, os, sys
    def handler(event, context):
        print("printed")
        logging.getLogger("mine").warning("logged\\nin two lines", extra={"k": 1})
        if event == "fail":
            raise KeyError("no such thing")
        return {"event": event, "trace": os.environ.get("_X_AMZN_TRACE_ID"), "path": sys.path}
"""


class Invocations(unittest.TestCase):
    def test_events_are_answered_one_after_another(self):
        with support.runtime(ECHO) as runtime:
            for event in (1, "é", {"deep": [None]}):
                outcome = runtime.invoke(event)
                self.assertEqual((outcome.kind, outcome.json()["event"]), ("response", event))

    def test_the_trace_is_that_of_the_invocation(self):
        with support.runtime(ECHO) as runtime:
            self.assertEqual(runtime.invoke(1, headers={"Lambda-Runtime-Trace-Id": "Root=1"}).json()["trace"], "Root=1")
            self.assertIsNone(runtime.invoke(1, headers={"Lambda-Runtime-Trace-Id": None}).json()["trace"])

    def test_the_code_comes_before_the_layers_before_everything_else(self):
        with support.runtime(ECHO, _LAMBENT_OPT="/layers", PYTHONPATH="/mine") as runtime:
            path = runtime.invoke(1).json()["path"]
        self.assertIn("/layers/python/lib/python3.", path[1])
        self.assertEqual(path[2:4], ["/layers/python", "/mine"])
        self.assertEqual(path[-1], str(support.BOOTSTRAP.parent))

    def test_a_failure_is_reported_and_the_next_event_served(self):
        with support.runtime(ECHO) as runtime:
            outcome = runtime.invoke("fail")
            self.assertEqual(outcome.kind, "error")
            self.assertEqual(outcome.headers["lambda-runtime-function-error-type"], "KeyError")
            document = outcome.json()
            self.assertEqual((document["errorType"], document["errorMessage"]), ("KeyError", "'no such thing'"))
            self.assertEqual(len(document["stackTrace"]), 1)
            self.assertEqual(runtime.invoke(2).kind, "response")

    def test_an_exception_that_cannot_be_shown_is_reported_all_the_same(self):
        code = """
            class Odd(Exception):
                def __str__(self):
                    raise RuntimeError("no")
            def handler(event, context):
                raise Odd if event else ValueError("\\ud800")
        """
        with support.runtime(code) as runtime:
            self.assertEqual(runtime.invoke(True).json()["errorMessage"], "<unprintable Odd object>")
            self.assertEqual(runtime.invoke(False).json()["errorMessage"], "\ud800")

    def test_sys_exit_ends_the_process(self):
        with support.runtime("import sys\ndef handler(event, context): sys.exit(event)") as runtime:
            outcome = runtime.invoke(3)
            self.assertEqual((outcome.kind, outcome.exit_status), ("exit", 3))

    def test_the_context_has_what_the_headers_say(self):
        code = """
            def handler(event, context):
                client, identity = context.client_context, context.identity
                return [client.custom, client.client.app_title, identity.cognito_identity_id, context.tenant_id,
                        context.w3c(), 0 < context.get_remaining_time_in_millis() <= 30000, repr(context)]
        """
        given = {"custom": {"a": "é"}, "client": {"app_title": "T"}, "w3c": {"traceparent": "00", "other": "x"}}
        headers = {
            "Lambda-Runtime-Client-Context": json.dumps(given),
            "Lambda-Runtime-Cognito-Identity": json.dumps({"cognitoIdentityId": "me"}),
            "Lambda-Runtime-Aws-Tenant-Id": "blue",
        }
        with support.runtime(code) as runtime:
            answer = runtime.invoke(1, headers=headers).json()
            self.assertEqual(answer[:6], [{"a": "é"}, "T", "me", "blue", {"traceparent": "00"}, True])
            self.assertIn("LambdaContext([aws_request_id=", answer[6])
            broken = runtime.invoke(1, headers={"Lambda-Runtime-Client-Context": "{"}).json()
            self.assertEqual(broken["errorType"], "Runtime.LambdaContextUnmarshalError")


class Initialisation(unittest.TestCase):
    def refused(self, code, handler="app.handler"):
        with support.runtime(code, handler) as runtime:
            outcome = runtime.outcome()
            self.assertEqual((outcome.kind, runtime.exit_status()), ("init-error", 1))
            return outcome.json()

    def test_what_is_wrong_with_a_handler_is_named(self):
        for code, handler, kind, message in (
            ("", "handler", "Runtime.MalformedHandlerName", "Bad handler 'handler': not enough values to unpack"),
            ("", "nope.handler", "Runtime.ImportModuleError", "Unable to import module 'nope': No module named 'nope'"),
            ("", "app.handler", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'app'"),
            ("", "sys.exit", "Runtime.BuiltInModuleConflict", "Cannot use built-in module sys as a handler module"),
            ("def", "app.handler", "Runtime.UserCodeSyntaxError", "Syntax error in module 'app': invalid syntax"),
            ("1/0", "app.handler", "ZeroDivisionError", "division by zero"),
        ):
            document = self.refused(code, handler)
            self.assertEqual((document["errorType"], document["errorMessage"][: len(message)]), (kind, message))

    def test_a_module_that_exits_says_nothing_more(self):
        with support.runtime("import sys; sys.exit(7)") as runtime:
            outcome = runtime.outcome()
            self.assertEqual((outcome.kind, outcome.exit_status), ("exit", 7))


class Logs(unittest.TestCase):
    def test_a_record_is_one_frame_and_prints_stay_outside(self):
        with support.runtime(ECHO, telemetry=True) as runtime:
            runtime.invoke("fail")
        (kind, text), (error_kind, error) = runtime.frames()
        self.assertEqual(kind, 0xA55A0003)
        self.assertRegex(text, r"^\[WARNING\]\t[-:.\dT]+Z\t[-\d]+\tlogged\nin two lines\n$")
        self.assertEqual(error_kind, 0xA55A0017)
        start = "[ERROR] KeyError: 'no such thing'\nTraceback (most recent call last):\n\u00a0\u00a0File"
        self.assertTrue(error.startswith(start))
        self.assertEqual(runtime.stdout, "printed\n")

    def test_json_records_have_their_fields_and_level(self):
        with support.runtime(ECHO, telemetry=True, AWS_LAMBDA_LOG_FORMAT="JSON") as runtime:
            runtime.invoke("fail", headers={"Lambda-Runtime-Aws-Tenant-Id": "blue"})
        (kind, text), (error_kind, error) = runtime.frames()
        self.assertEqual((kind, error_kind), (0xA55A0012, 0xA55A0016))
        record = json.loads(text)
        self.assertEqual(record["message"], "logged\nin two lines")
        self.assertEqual((record["logger"], record["k"], record["tenantId"]), ("mine", 1, "blue"))
        self.assertEqual(json.loads(error)["errorType"], "KeyError")

    def test_the_level_is_that_of_the_environment(self):
        code = "import logging\ndef handler(event, context):\n  logging.info('low'); logging.error('high')"
        with support.runtime(code, telemetry=True, AWS_LAMBDA_LOG_LEVEL="ERROR") as runtime:
            runtime.invoke(1)
        self.assertEqual([kind for kind, _ in runtime.frames()], [0xA55A0017])

    def test_without_the_channel_an_error_is_one_line(self):
        with support.runtime(ECHO) as runtime:
            runtime.invoke("fail")
        self.assertEqual(runtime.stdout.splitlines(keepends=False)[0], "printed")
        self.assertIn("[ERROR] KeyError: 'no such thing'\rTraceback", runtime.stdout)

    def test_other_processes_do_not_inherit_the_channel(self):
        code = """
            import os, subprocess
            def handler(event, context):
                return subprocess.run(["ls", "/proc/self/fd"], stdout=subprocess.PIPE, close_fds=False).stdout.decode()
        """
        with support.runtime(code, telemetry=True) as runtime:
            self.assertEqual(runtime.invoke(1).json().split(), ["0", "1", "2", "3"])


if __name__ == "__main__":
    unittest.main()
