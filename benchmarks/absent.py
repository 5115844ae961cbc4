"""A stand-in for torchvision, which has no build beside a CPU-only torch.

lightly and open_clip import it for their image transforms; their losses, which are what is timed,
never touch it. Any attribute of the stand-in is an empty class.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Class(type):
    def __getattr__(cls, name: str):
        return _attribute(name)


class _Module(ModuleType):
    __path__: list[str] = []

    def __getattr__(self, name: str):
        return _attribute(name)


def _attribute(name: str):
    if name.startswith("__"):
        raise AttributeError(name)
    return _Class(name, (), {})


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] != "torchvision":
            return None
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


@contextmanager
def stand_in_for_torchvision() -> Iterator[None]:
    """Let `import torchvision` succeed in this block where it is not installed.

    Nothing of it stays behind, and transformers, which open_clip imports where it is there, looks
    for torchvision before: it would take this one for real.
    """
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    if importlib.util.find_spec("transformers") is not None:
        from transformers.utils import is_torchvision_available

        is_torchvision_available()  # it keeps its first answer
    finder = _Finder()
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]


def imported(name: str) -> ModuleType:
    """A module of another library, without what its losses have no use for."""
    top = name.split(".")[0]
    if top == "solo" and top not in sys.modules:
        # Its __init__ imports the training code, which wants packages that are gone.
        package = ModuleType(top)
        package.__path__ = list(importlib.util.find_spec(top).submodule_search_locations)
        sys.modules[top] = package
    with stand_in_for_torchvision():
        return importlib.import_module(name)
