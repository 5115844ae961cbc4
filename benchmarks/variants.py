"""What is timed beside each other: fastcl, plain PyTorch and its own means, other libraries."""

import torch

import fastcl
import fastcl.functional
from fastcl._processor import processor

from .cases import (
    BANK_MOMENTUM,
    BIAS,
    EPSILON,
    ITERATIONS,
    LABELS,
    MOMENTUM,
    TEMPERATURE,
    Case,
    Function,
    Update,
)
from .peers import PEERS
from .peers_gpu import GPU_PEERS
from .plain import CHUNK, CHUNKED, LINEAR, PLAIN
from .variant import Variant


def _fused(case: Case) -> Function:
    """The function of fastcl."""
    functional = fastcl.functional
    if case.loss == "clip":
        return lambda image, text: functional.clip(image, text, 1 / TEMPERATURE)
    if case.loss == "siglip":
        return lambda image, text: functional.siglip(image, text, 1 / TEMPERATURE, BIAS)
    if case.loss == "momentum":
        return lambda target, online: functional.momentum_update_(target, online, MOMENTUM)
    if case.loss == "moco_push":
        return _fused_moco_push
    if case.loss == "nce":
        return _fused_nce
    if case.loss == "sinkhorn":
        return lambda scores: functional.sinkhorn(scores, epsilon=EPSILON, iterations=ITERATIONS)
    if case.loss == "swav":
        return lambda scores0, scores1: functional.swav(
            [scores0, scores1], temperature=TEMPERATURE, epsilon=EPSILON, iterations=ITERATIONS
        )
    if case.loss == "bank_update":
        return lambda bank, index, x: functional.bank_update_(
            bank, index, x, momentum=BANK_MOMENTUM
        )
    function = getattr(functional, case.loss)
    return lambda **tensors: function(**tensors, temperature=TEMPERATURE)


def _fused_moco_push(query, key, queue, pointer):
    """As in a training step: the gradient is finished before the queue changes."""
    loss = fastcl.functional.moco(query, key, queue, temperature=TEMPERATURE)
    fastcl.functional.queue_push_(queue, pointer, fastcl.functional.unit_rows(key))
    return loss


def _fused_nce(x, bank, index):
    return fastcl.functional.nce(
        x, bank, index, temperature=TEMPERATURE, normalizer=float(len(bank))
    )


def _plain(case: Case) -> Function:
    return PLAIN[case.loss]


def _compiled(case: Case) -> Function:
    return torch.compile(PLAIN[case.loss], dynamic=False)


def _foreach(case: Update) -> Function:
    def function(target, online):
        torch._foreach_mul_(target, MOMENTUM)
        torch._foreach_add_(target, online, alpha=1 - MOMENTUM)

    return function


LOSSES = tuple(LABELS)
COMPILED = LOSSES[:-2]  # torch.compile has nothing to fuse in a push or a momentum update

HELD = {
    "nt_xent": 3, "sup_con": 5.5, "clip": 4, "siglip": 5, "info_nce": 4, "moco": 3, "moco_push": 3,
    "nce": 141, "sinkhorn": 4, "swav": 8, "bank_update": 0, "momentum": 0,
}  # fmt: skip
OURS = Variant("fastcl", LOSSES, _fused)
TORCH = (
    Variant("plain", LOSSES, _plain, HELD),
    Variant("compiled", COMPILED, _compiled, HELD),
    Variant(
        "chunked", tuple(CHUNKED), lambda case: CHUNKED[case.loss],
        remark=f"{CHUNK:,} rows at a time with torch.utils.checkpoint",
        outside=lambda case: "" if case.n > CHUNK else "one chunk holds all rows",
    ),
    Variant("_foreach", ("momentum",), _foreach),
    Variant(
        "linear_cross_entropy", tuple(LINEAR) if hasattr(torch.nn, "LinearCrossEntropyOptions")
        else (), lambda case: LINEAR[case.loss], remark="torch 2.13 and newer; no mask of the "
        "row itself, so no NT-Xent",
    ),
)  # fmt: skip
GRAPH = Variant(
    "fastcl, CUDA graph", ("nt_xent", "clip", "siglip", "moco", "moco_push", "momentum"), _fused,
    graph=True,
)  # fmt: skip


def bfloat16_products() -> bool:
    """Whether the processor multiplies bfloat16, instead of converting it."""
    found = processor()
    return found is not None and found.multiplies_bfloat16


HALF = (
    Variant("fastcl bf16", LOSSES, OURS.build, dtype=torch.bfloat16),
    Variant(
        "plain bf16", LOSSES, _plain, HELD, dtype=torch.bfloat16,
        outside=lambda case: "" if bfloat16_products() else "takes minutes without bf16 products",
    ),
)  # fmt: skip


LIBRARIES = PEERS + GPU_PEERS


def variants(case: Case | Update, *, libraries: bool = False, device: str = "cpu") -> list[Variant]:
    """Every variant that knows the case's loss, fastcl first."""
    found = [OURS, *TORCH]
    if device == "cuda":
        found.append(GRAPH)
    if case.bfloat16:
        found += HALF
    if libraries:
        found += [peer for peer in LIBRARIES if peer.installed()]
    return [v for v in found if case.loss in v.losses]


def named(case: Case | Update, name: str) -> Variant:
    """The variant of that name; libraries are looked at last."""
    every = [OURS, *TORCH, GRAPH, *HALF, *LIBRARIES]
    return next(v for v in every if v.name == name and case.loss in v.losses)
