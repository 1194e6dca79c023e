"""Handlers that answer."""

import collections
import datetime
import decimal
import enum
import json
import logging
import os
import sys
import threading

Point = collections.namedtuple("Point", "x y")


class Colour(str, enum.Enum):
    RED = "red"


class Row:
    def _asdict(self):
        return {"row": Point(1, 2)}


def echo(event, context):
    return event


def values(event, context):
    """One of many values by its number."""
    circular = []
    circular.append(circular)
    return [
        None,
        "",
        "é€😀\u2028\u2029\x7f\x00\x1f\"\\/",
        1.5,
        -0.0,
        1e22,
        2**70,
        float("nan"),
        float("inf"),
        decimal.Decimal("1.10"),
        {"a": decimal.Decimal("NaN"), "b": [decimal.Decimal("-Infinity"), decimal.Decimal("1E+5")]},
        [],
        b"raw \xff bytes",
        {"bytes": b"text", b"key": 1},
        {"bytes": b"\xff"},
        Point(1, Point(2, 3)),
        {"p": [Point(1, 2)]},
        Row(),
        Colour.RED,
        {Colour.RED: [Colour.RED]},
        {True: 1, None: 2, 1.5: 3, 7: 8},
        (1, (2,)),
        {1, 2},
        {(1, 2): 3},
        datetime.date(2026, 1, 1),
        bytearray(b"x"),
        object,
        (x for x in "abc"),
        range(3),
        circular,
        collections.OrderedDict(b=1, a=2),
        json,
    ][event]


def answers_much(event, context):
    return "x" * event


def counts(event, context):
    counts.calls = getattr(counts, "calls", 0) + 1
    return counts.calls


def shows_context(event, context):
    client = context.client_context
    return {
        "repr": repr(context),
        "names": sorted(n for n in dir(context) if not n.startswith("_")),
        "remaining": 0 < context.get_remaining_time_in_millis() <= 30000,
        "custom": client and client.custom,
        "env": client and client.env,
        "title": client and client.client and client.client.app_title,
        "identity": [context.identity.cognito_identity_id, context.identity.cognito_identity_pool_id],
        "tenant": context.tenant_id,
        "w3c": context.w3c(),
        "trace": os.environ.get("_X_AMZN_TRACE_ID"),
        "memory": context.memory_limit_in_mb,
    }


def shows_environment(event, context):
    return {
        "cwd": os.path.basename(os.getcwd()),
        "telemetry": "_LAMBDA_TELEMETRY_LOG_FD" in os.environ,
        "main_thread": threading.current_thread() is threading.main_thread(),
        "imports_itself": __import__("good") is sys.modules["good"],
        "handlers": len(logging.getLogger().handlers),
        "level": logging.getLogger().level,
    }


def prints(event, context):
    print("to stdout")
    print("two\nlines é", end="")
    print(" and the rest")
    print("to stderr", file=sys.stderr)
    sys.stdout.write("no newline")
    os.write(1, b"\nraw\n")


def logs(event, context):
    logger = logging.getLogger("mine")
    for level in (5, 10, 20, 25, 30, 40, 50, 60):
        logger.log(level, "level %d\nsecond line é", level)
    logger.error({"a": 1, "when": datetime.date(2026, 1, 1)})
    logger.error("extra", extra={"number": 1, "thing": datetime.date(2026, 1, 1), "level": "shadow"})
    try:
        raise ValueError("caught é")
    except ValueError:
        logger.exception("with a trace")
    context.log("from the context")
    logging.getLogger().warning("stack", stack_info=False)
