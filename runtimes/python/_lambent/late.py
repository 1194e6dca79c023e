"""Sets up `logging` when a handler imports it, and not before: it is the slowest import of all, and many never log."""

import sys


def attach_to_logging():
    """Arranges for `records.attach` to run as the last step of importing `logging`."""
    if "logging" in sys.modules:  # a .pth file of the interpreter's did it
        _attach()
    else:
        sys.meta_path.insert(0, _Finder())


class _Finder:
    """Finds `logging` through the other finders, once, and has its loader call us."""

    def find_spec(self, name, path=None, target=None):
        if name != "logging":
            return None
        sys.meta_path.remove(self)
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                spec.loader = _Loader(spec.loader)
                return spec
        return None


class _Loader:
    """The loader of `logging`, and then us."""

    def __init__(self, loader):
        self._loader = loader

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def exec_module(self, module):
        module.__loader__ = module.__spec__.loader = self._loader  # as if we had not been here
        self._loader.exec_module(module)
        _attach()


def _attach():
    from . import records

    records.attach()
