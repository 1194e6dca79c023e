"""Entry point of the Python runtime: prepares the interpreter as AWS Lambda does, then serves invocations until killed.

Started as `python -s -u /var/runtime/bootstrap.py`; `../README.md` lists the environment it expects.
"""

import sys

if __name__ == "__main__":
    from _lambent import loop

    sys.exit(loop.main())
