"""A stand-in for torchvision, which has no build beside a CPU-only torch.

lightly and open_clip import it for their image transforms; their losses, which are what is timed,
never touch it. Any attribute of the stand-in is an empty class.
"""

import importlib.util
import sys
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


def stand_in_for_torchvision() -> None:
    """Let `import torchvision` succeed where it is not installed."""
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(_Finder())
