"""Handlers that do not."""

import logging
import os
import sys
import threading


class Odd(Exception):
    pass


def raises(event, context):
    raise Odd("message é", 2)


def raises_without_message(event, context):
    raise Odd


def raises_with_lines(event, context):
    raise ValueError("first\nsecond\n    indented")


def raises_from(event, context):
    try:
        {}["missing"]
    except KeyError as error:
        raise Odd("outer") from error


def raises_in_a_library(event, context):
    import json

    json.loads("{")


def recurses(event, context):
    return recurses(event, context)


def exits(event, context):
    sys.exit(event)


def exits_at_once(event, context):
    os._exit(event)


def interrupts(event, context):
    raise KeyboardInterrupt


def kills(event, context):
    os.kill(os.getpid(), event)


def raises_in_a_thread(event, context):
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    return "answered"


async def is_a_coroutine(event, context):
    return 1


def logs_nonsense(event, context):
    logging.warning("two numbers: %d %d", 1)


def takes_one(event):
    return event


not_a_function = 7
