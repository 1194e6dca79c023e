"""From the configured `module.function` to a callable."""

import importlib
import sys

from .faults import Fault


def load(name):
    """Imports the module of `name` and returns its function. What the module raises, other than an import or a syntax
    error, is passed on."""
    module_name, dot, function = name.rpartition(".")
    if not dot:
        # The wording is that of the unpacking which fails in AWS's client; people search for it.
        why = "not enough values to unpack (expected 2, got 1)"
        raise Fault("Runtime.MalformedHandlerName", "Bad handler '{}': {}".format(name, why))
    if module_name.split(".")[0] in sys.builtin_module_names:
        message = "Cannot use built-in module {} as a handler module".format(module_name)
        raise Fault("Runtime.BuiltInModuleConflict", message)
    module = _import(module_name)
    try:
        return getattr(module, function)
    except AttributeError:
        message = "Handler '{}' missing on module '{}'".format(function, module_name)
        raise Fault("Runtime.HandlerNotFound", message) from None


def _import(name):
    try:
        return importlib.import_module(name.replace("/", "."))
    except ImportError as error:
        message = "Unable to import module '{}': {}".format(name, error)
        raise Fault("Runtime.ImportModuleError", message) from None
    except SyntaxError as error:
        trace = ['  File "{}" Line {}\n    {}'.format(error.filename, error.lineno, error.text)]
        message = "Syntax error in module '{}': {}".format(name, error)
        raise Fault("Runtime.UserCodeSyntaxError", message, trace) from None
