"""Entry point of the Python runtime: prepares the interpreter as AWS Lambda does, then serves invocations until killed.

Started as `python -s -u /var/runtime/bootstrap.py`; `../README.md` lists the environment it expects.
"""

import sys

if __name__ == "__main__":
    import os

    from _lambent import loop

    if "_LAMBENT_TEMPLATE_FD" in os.environ:
        from _lambent import template, waiting

        waiting.obey(template.serve(int(os.environ["_LAMBENT_TEMPLATE_FD"])))
    elif "_LAMBENT_ORDER_FD" in os.environ:
        from _lambent import waiting

        waiting.take_order()
    sys.exit(loop.main())
