"""The life of the process: find the handler, then serve one invocation after another."""

import os
import sys

from . import client, context, faults, handler, late, logs, marshal


def main():
    """Runs until the platform ends the process; returns an exit status when no invocation can be served."""
    to_do = os.environ.pop("_LAMBENT_SNAPSHOT", None)  # none where the function has no snapshots
    if to_do is not None:
        from . import hooks  # most have none

        if to_do == "take":
            hooks.go_aside()
    _set_import_path()
    runtime = client.RuntimeClient(os.environ["AWS_LAMBDA_RUNTIME_API"])
    logs.open_channel()
    late.attach_to_logging()
    document = None
    try:
        function = handler.load(os.environ["_HANDLER"])
    except faults.Fault as fault:
        document = fault.document()
    except Exception:
        document, _ = faults.of_exception()
    if document is not None:
        _refuse(runtime, document)
        return 1
    if to_do is not None:
        status = hooks.run(runtime, to_do)
        if status is not None:
            return status
    while True:
        _serve(runtime, function, runtime.next())


def _set_import_path():
    """The order of AWS Lambda: the function's code, its layers, whatever `PYTHONPATH` and the interpreter add."""
    task = os.environ.get("LAMBDA_TASK_ROOT", "/var/task")
    opt = os.environ.pop("_LAMBENT_OPT", "/opt")
    version = "python{}.{}".format(*sys.version_info[:2])
    runtime = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # first so far, being the script's folder
    first = [task, opt + "/python/lib/" + version + "/site-packages", opt + "/python"]
    sys.path[:] = first + [path for path in sys.path if path not in first and path != runtime] + [runtime]


def _refuse(runtime, document):
    import logging

    logging.warning(
        "LAMBDA_WARNING: Unhandled exception. The most likely cause is an issue in the function code. "
        "However, a change of the runtime can also change how a function behaves.\r"
    )
    logs.error(document)
    runtime.fail_init(marshal.document(document), document["errorType"])


def _serve(runtime, function, invocation):
    headers = invocation.headers
    logs.request_id = invocation.request_id
    logs.tenant_id = headers.get("lambda-runtime-aws-tenant-id")
    _set_trace(headers.get("lambda-runtime-trace-id"))
    try:
        lambda_context = context.LambdaContext(headers)
        event = marshal.event(invocation.body, headers.get("content-type"))
        body, content_type = marshal.response(function(event, lambda_context))
    except faults.Fault as fault:
        _fail(runtime, invocation, fault.document(invocation.request_id), fault.xray())
    except Exception:
        _fail(runtime, invocation, *faults.of_exception(invocation.request_id))
    else:
        runtime.respond(invocation.request_id, body, content_type)


def _set_trace(trace):
    if trace:
        os.environ["_X_AMZN_TRACE_ID"] = trace
    else:
        os.environ.pop("_X_AMZN_TRACE_ID", None)


def _fail(runtime, invocation, document, xray):
    logs.error(document)
    runtime.fail(invocation.request_id, marshal.document(document), document["errorType"], marshal.header(xray))
