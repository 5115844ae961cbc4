"""One line puts the losses of fastcl into an installed library, another takes them out."""

import functools
import importlib
import importlib.metadata
import inspect
import sys
from types import FunctionType, ModuleType
from typing import NamedTuple

from ._libraries import LIBRARIES, Library

SUPCONTRAST = "supcontrast"  # not packaged: its module is named by the user


class _Patch(NamedTuple):
    top: str  # the package whose modules hold them
    twins: list[tuple[object, object]]  # the library's and fastcl's
    parts: list[tuple[type, str, object]]  # owner, attribute, what was there


_patches: dict[str, _Patch] = {}


def patch(library: str, *, module: str | None = None) -> list[str]:
    """Put the losses of `fastcl.compat` into an installed library, for this process.

    Every module of the library that holds one of them gets the new one, so ``import lightly.loss``
    finds it as well as ``from lightly.loss import NTXentLoss``, and the library's own subclasses
    inherit from it. Names that a program imported before keep what they had. A second call changes
    nothing.

    Args:
        library: "lightly", "open_clip", "pytorch_metric_learning", "info_nce",
            "sentence_transformers", "pylate", "solo" or "supcontrast".
        module: For "supcontrast" alone, which is not packaged: the module that has its
            `SupConLoss`, such as "losses" in its own repository.

    Returns:
        The names of what was replaced, ``["lightly.loss.NTXentLoss", ...]``.

    Raises:
        ValueError: An unknown library, a module where none is asked for or none where one is, or a
            module whose `SupConLoss` is missing or takes other arguments.
        ImportError: It is not installed, or fastcl has not been checked against its version.
    """
    known = _known(library, module)
    if library not in _patches:
        if module is None:
            _check_version(library, known)
        home = importlib.import_module(known.module)
        if module is not None:
            _check_supcontrast(home)
        ours = importlib.import_module(f"fastcl.compat.{library}")
        top = known.module.split(".")[0]
        twins = [(_found(top, path), getattr(ours, name)) for path, name in known.names.items()]
        parts = []
        for path, original in known.parts.items():
            owner, attribute = path.split(".")
            owner = getattr(ours, owner)
            parts.append((owner, attribute, getattr(owner, attribute)))
            setattr(owner, attribute, _found(top, original))
        for original, _ in twins:
            parts += _by_own_name(original)
        _patches[library] = _Patch(top, twins, parts)
        _exchange(top, twins)
    return _held(_patches[library].top, [twin for _, twin in _patches[library].twins])


def unpatch(library: str) -> list[str]:
    """Take the losses of fastcl out of a library again.

    Args:
        library: As for `patch`.

    Returns:
        What was put back; empty where nothing had been replaced.

    Raises:
        ValueError: An unknown library.
    """
    if library != SUPCONTRAST:
        _known(library, None)
    if library not in _patches:
        return []
    top, twins, parts = _patches.pop(library)
    for owner, attribute, before in parts:
        setattr(owner, attribute, before)
    names = _held(top, [twin for _, twin in twins])
    _exchange(top, [(twin, original) for original, twin in twins])
    return names


def _known(library: str, module: str | None) -> Library:
    if library == SUPCONTRAST:
        if not isinstance(module, str) or not module:
            raise ValueError(f"module must name the home of SupConLoss: 'losses', got {module!r}")
        inner = module.split(".")[1:]
        return Library("", (), module, {".".join([*inner, "SupConLoss"]): "SupConLoss"})
    if library not in LIBRARIES:
        every = ", ".join([*LIBRARIES, SUPCONTRAST])
        raise ValueError(f"library must be one of {every}, got {library!r}")
    if module is not None:
        raise ValueError(f"module must be None for {library}, got {module!r}")
    return LIBRARIES[library]


def _check_supcontrast(home: ModuleType) -> None:
    """A copy of SupContrast's file has no version: its class has to take what fastcl's does."""
    theirs = getattr(home, "SupConLoss", None)
    ours = _found("fastcl", "compat.supcontrast.SupConLoss")
    if not isinstance(theirs, type):
        raise ValueError(f"module must have a class SupConLoss, {home.__name__} has none")
    for method in ("__init__", "forward"):
        has, wants = (
            list(inspect.signature(getattr(x, method)).parameters) for x in (theirs, ours)
        )
        if has != wants:
            raise ValueError(
                f"{home.__name__}.SupConLoss.{method} must take {', '.join(wants)}, "
                f"got {', '.join(has)}"
            )


def _check_version(library: str, known: Library) -> None:
    try:
        version = importlib.metadata.version(known.distribution)
    except importlib.metadata.PackageNotFoundError:
        raise ImportError(f"{library} is not installed: pip install {known.distribution}") from None
    if version not in known.versions:
        raise ImportError(
            f"fastcl.patch has been checked against {known.distribution} "
            f"{', '.join(known.versions)} and not against {version}, which is installed; import "
            f"the losses from fastcl.compat.{library} instead"
        )


def _found(library: str, path: str) -> object:
    *inner, attribute = path.split(".")
    return getattr(importlib.import_module(".".join([library, *inner])), attribute)


def _is_of(library: str, module: str) -> bool:
    return module.split(".")[0] == library


def _exchange(library: str, pairs: list[tuple[object, object]]) -> None:
    """The second of each pair for the first, in all modules of the library and as the base of its
    own classes, those imported since the last exchange too."""
    new = {id(old): x for old, x in pairs}
    for name, module in list(sys.modules.items()):
        if _is_of(library, name):
            for attribute, value in list(vars(module).items()):
                if id(value) in new:
                    setattr(module, attribute, new[id(value)])
    for old, x in pairs:
        for child in old.__subclasses__() if isinstance(old, type) else ():
            if _is_of(library, child.__module__) and id(child) not in new:
                child.__bases__ = tuple(x if base is old else base for base in child.__bases__)


def _by_own_name(original: object) -> list[tuple[type, str, object]]:
    """Let the methods that call ``super(NAME, self)`` find their own class by that name, where the
    module has another there; who they were."""
    before: list[tuple[type, str, object]] = []
    for attribute, method in list(vars(original).items()) if isinstance(original, type) else ():
        if isinstance(method, FunctionType) and original.__name__ in method.__code__.co_names:
            names = {**method.__globals__, original.__name__: original}
            own = FunctionType(method.__code__, names, method.__name__, method.__defaults__,
                               method.__closure__)  # fmt: skip
            own.__kwdefaults__ = method.__kwdefaults__
            before.append((original, attribute, method))
            setattr(original, attribute, functools.update_wrapper(own, method))
    return before


def _held(library: str, values: list[object]) -> list[str]:
    """Where the modules of the library hold one of these."""
    ids = {id(x) for x in values}
    modules = [(n, m) for n, m in list(sys.modules.items()) if _is_of(library, n)]
    names = [f"{n}.{a}" for n, m in modules for a, v in list(vars(m).items()) if id(v) in ids]
    return sorted(set(names))
