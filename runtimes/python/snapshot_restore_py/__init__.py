"""What a function wants to be done before a snapshot of it is taken, and after it was restored: the names of AWS's
package `snapshot-restore-py`, which Lambda's runtimes bring along. Both serve as functions and as decorators.
"""

__all__ = ["register_after_restore", "register_before_snapshot"]

_before_snapshot_registry = []
_after_restore_registry = []


def register_before_snapshot(func, *args, **kwargs):
    """Has `func` called before the snapshot; the last one registered is called first."""
    _before_snapshot_registry.append((func, args, kwargs))
    return func


def register_after_restore(func, *args, **kwargs):
    """Has `func` called after the restore, in the order of registration."""
    _after_restore_registry.append((func, args, kwargs))
    return func


def get_before_snapshot():
    """What was registered."""
    return _before_snapshot_registry


def get_after_restore():
    """What was registered."""
    return _after_restore_registry
