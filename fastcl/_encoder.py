"""The modules behind an encoder, which may be any callable, and when they talk to other ranks."""

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.parallel import DistributedDataParallel

# A function calls others; the module that is encoded with is named by one of the first.
DEPTH = 3


def modules(encoder: Callable) -> list[nn.Module]:
    """Those that it is, is a method or a partial of, or names inside a function."""
    found, waiting = {}, [(encoder, 0)]
    for x, depth in waiting:
        if isinstance(x, nn.Module):
            found[id(x)] = x
        elif depth < DEPTH:
            waiting += [(y, depth + 1) for y in _named(x)]
    return list(found.values())


def _named(x) -> list:
    """What a callable refers to."""
    if isinstance(x, functools.partial):
        return [x.func, *x.args, *x.keywords.values()]
    if inspect.ismethod(x):
        return [x.__self__, *getattr(x.__self__, "__dict__", {}).values(), x.__func__]
    if hasattr(x, "__wrapped__"):
        return [x.__wrapped__]
    if inspect.isfunction(x) and not (x.__module__ or "").startswith("torch."):
        names = inspect.getclosurevars(x)
        return [*names.nonlocals.values(), *names.globals.values()]
    if callable(x) and not inspect.isroutine(x) and not isinstance(x, type):
        return list(getattr(x, "__dict__", {}).values())
    return []


def data_parallel(encoder: Callable) -> list[nn.Module]:
    """The wrapped modules behind it whose backward averages gradients over the ranks."""
    parts = [part for module in modules(encoder) for part in module.modules()]
    return [x for x in parts if isinstance(x, DistributedDataParallel) or sharded(x)]


def sharded(module: nn.Module) -> bool:
    # Importing FSDP takes longer than the rest of fastcl; who has a sharded module has done it.
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and isinstance(module, fsdp.FSDPModule)


def check(encoder: Callable) -> None:
    """Raises ValueError for what takes one backward per step alone."""
    if any(getattr(module, "static_graph", False) for module in data_parallel(encoder)):
        raise ValueError("encoders must not be DistributedDataParallel with static_graph=True")


@contextmanager
def no_sync(module: nn.Module) -> Iterator[None]:
    """Gradients of a data-parallel module stay on their rank."""
    if isinstance(module, DistributedDataParallel):
        with module.no_sync():
            yield
        return
    module.set_requires_gradient_sync(False, recurse=False)
    try:
        yield
    finally:
        module.set_requires_gradient_sync(True, recurse=False)
