"""Lambent's Python runtime: fetches invocations from the Runtime API, calls the handler, sends back what it returned.

It behaves as AWS's own client (`awslambdaric`) does, which `tests/clients/test_runtimes.py` proves by running both. It
uses the standard library only, runs on CPython 3.8 and later, and imports little, since every import is part of a cold
start.

    loop      the life of the process: find the handler, then one invocation after another
    client    the Runtime API over one kept-alive connection
    handler   from `module.function` to a callable
    context   the `context` argument
    marshal   JSON in and out
    faults    errors as the Runtime API and the logs show them
    logs      where log records and errors go: a framed channel, which keeps a record of several lines one event
    records   the `logging` module with AWS's formats
    late      sets that up only once a handler imports `logging`
    waiting   a process that is started before it is known which function it serves
    template  one that is loaded once and forked for each container
    snapshot  what an initialised process was like, written down
    clone     becoming what a snapshot was taken of
    memory    what those two need of the kernel
    hooks     what the function wants to be done before the one and after the other
"""
