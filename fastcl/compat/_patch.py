"""One line puts the losses of fastcl into an installed library, another takes them out."""

import importlib
import importlib.metadata
import sys
from typing import NamedTuple


class _Library(NamedTuple):
    distribution: str
    versions: tuple[str, ...]  # those that tests/test_compat_*.py compare with
    module: str  # imported, so that all names below are there
    names: dict[str, str]  # in the library -> in fastcl.compat


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


LIBRARIES = {
    "lightly": _Library(
        "lightly",
        ("1.6.0",),
        "lightly.loss",
        {
            "loss.ntx_ent_loss.NTXentLoss": "NTXentLoss",
            "loss.dcl_loss.DCLLoss": "DCLLoss",
            "loss.dcl_loss.DCLWLoss": "DCLWLoss",
            "loss.dcl_loss.negative_mises_fisher_weights": "negative_mises_fisher_weights",
            "loss.swav_loss.SwaVLoss": "SwaVLoss",
            "loss.swav_loss.sinkhorn": "sinkhorn",
            "models.utils.update_momentum": "update_momentum",
        },
    ),
    "open_clip": _Library(
        "open-clip-torch",
        ("3.3.0",),
        "open_clip.loss",
        {f"loss.{name}": name for name in ("ClipLoss", "CoCaLoss", "SigLipLoss")},
    ),
    "pytorch_metric_learning": _Library(
        "pytorch-metric-learning",
        ("2.9.0",),
        "pytorch_metric_learning.losses",
        {f"losses.{name}": name for name in ("NTXentLoss", "SupConLoss", "CrossBatchMemory")},
    ),
    "info_nce": _Library("info-nce-pytorch", ("0.1.4",), "info_nce", _same("InfoNCE", "info_nce")),
    "sentence_transformers": _Library(
        "sentence-transformers",
        ("6.2.0",),
        "sentence_transformers.sentence_transformer.losses",
        {
            f"sentence_transformer.losses.{name}": name
            for name in ("MultipleNegativesRankingLoss", "CachedMultipleNegativesRankingLoss")
        },
    ),
    "solo": _Library(
        "solo-learn",
        ("1.0.2",),
        "solo.losses",
        {
            "losses.moco.moco_loss_func": "moco_loss_func",
            "losses.nnclr.nnclr_loss_func": "nnclr_loss_func",
            "losses.simclr.simclr_loss_func": "simclr_two_views_loss_func",
            "losses.swav.swav_loss_func": "swav_loss_func",
        },
    ),
}

# library -> (module, attribute, what was there)
_replaced: dict[str, list[tuple[object, str, object]]] = {}


def patch(library: str) -> list[str]:
    """Put the losses of `fastcl.compat` into an installed library, for this process.

    Every module of the library that holds one of them gets the new one, so ``import lightly.loss``
    finds it as well as ``from lightly.loss import NTXentLoss``. Names that a program imported
    before keep what they had. A second call changes nothing.

    Args:
        library: "lightly", "open_clip", "pytorch_metric_learning", "info_nce",
            "sentence_transformers" or "solo".

    Returns:
        What was replaced: ``["lightly.loss.NTXentLoss", ...]``.

    Raises:
        ValueError: An unknown library.
        ImportError: It is not installed, or fastcl has not been checked against its version.
    """
    known = _known(library)
    if library not in _replaced:
        _check_version(library, known)
        importlib.import_module(known.module)
        ours = importlib.import_module(f"fastcl.compat.{library}")
        twins = {}
        for path, name in known.names.items():
            *inner, attribute = path.split(".")
            module = importlib.import_module(".".join([library, *inner]))
            # By identity, and kept alive by the list below.
            twins[id(getattr(module, attribute))] = getattr(ours, name)
        _replaced[library] = _replace(library, twins)
    return sorted(f"{module.__name__}.{name}" for module, name, _ in _replaced[library])


def unpatch(library: str) -> list[str]:
    """Take the losses of fastcl out of a library again.

    Args:
        library: As for `patch`.

    Returns:
        What was put back; empty where nothing had been replaced.

    Raises:
        ValueError: An unknown library.
    """
    _known(library)
    changed = _replaced.pop(library, [])
    for module, name, original in changed:
        setattr(module, name, original)
    return sorted(f"{module.__name__}.{name}" for module, name, _ in changed)


def _known(library: str) -> _Library:
    if library not in LIBRARIES:
        raise ValueError(f"library must be one of {', '.join(LIBRARIES)}, got {library!r}")
    return LIBRARIES[library]


def _check_version(library: str, known: _Library) -> None:
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


def _replace(library: str, twins: dict[int, object]) -> list[tuple[object, str, object]]:
    """Swap the originals wherever the modules of the library hold them."""
    changed = []
    for module_name, module in list(sys.modules.items()):
        if module_name.split(".")[0] != library:
            continue
        for name, value in list(vars(module).items()):
            if id(value) in twins:
                changed.append((module, name, value))
                setattr(module, name, twins[id(value)])
    return changed
