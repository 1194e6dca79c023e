"""Handlers at the edges."""

import decimal
import time


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def surrogate(event, context):
    return "\ud800"


def unprintable(event, context):
    raise Unprintable


def decimal_key(event, context):
    return {decimal.Decimal(1): 2}


def deep(event, context):
    value = []
    for _ in range(100000):
        value = [value]
    return value


def sleeps(event, context):
    time.sleep(event)
