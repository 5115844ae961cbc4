"""What the static report records: steps of the benchmark's cases, and of a few more."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

import fastcl.functional as F
from fastcl._library import ops
from fastcl.contrast.node import mean_loss, row_losses
from fastcl.contrast.problem import problem

from . import predict
from .cases import Case
from .suites import SUITES
from .variants import OURS


def _meta(n: int, d: int, dtype=torch.bfloat16) -> torch.Tensor:
    return torch.empty(n, d, dtype=dtype, device="meta", requires_grad=True)


RANKED = {"rank, frozen": (256, 65536, 128, False), "rank": (4096, 4096, 128, True)}


def _with_rank(n: int, m: int, d: int, both_trained: bool) -> torch.Tensor:
    """A loss that also counts the columns above the positive, as methods.MoCo does."""
    q, k = _meta(n, d), _meta(m, d) if both_trained else _meta(m, d).detach()
    positive = torch.empty(n, device="meta")
    ids = torch.arange(n, device="meta") if both_trained else None
    own = None if both_trained else _meta(n, d).detach()
    p = problem(q, k, scale=10.0, ids=ids, own=own, normalize=False)
    return row_losses(p, pivot=positive).loss.sum()


# A scale on the device: what repairs a shift that fails is launched as well. Width, whether text is
# trained: without, dq alone is kept in registers up to 256.
LEARNT = {"learnt scale": (128, True), "learnt, wide": (512, True), "learnt, LiT": (256, False)}


def _with_learnt_scale(d: int, text_trained: bool) -> torch.Tensor:
    """Both directions of CLIP, with or without a gradient for the text."""
    q, k = _meta(4096, d), _meta(4096, d)
    ids, scale = torch.arange(4096, device="meta"), torch.empty((), device="meta")
    k = k if text_trained else k.detach()
    result = row_losses(problem(q, k, scale=scale, ids=ids, both=True, normalize=False))
    return result.loss.sum() + result.col_loss.sum()


# Columns held to a limit: width, features of the guide, whether the columns are trained.
HELD = {
    "limit": (128, None, True), "limit, frozen": (256, None, False),
    "limit, wide": (512, None, True), "guide": (128, 384, True), "guide, wide": (768, 384, True),
}  # fmt: skip


def _held(d: int, g: int | None, trained: bool) -> None:
    """The mean, whose exponentials may be kept, and losses per row, formed again."""
    q, own, ids = _meta(4096, d), _meta(4096, d), torch.arange(4096, device="meta")
    k = own if trained else _meta(8192, d).detach()
    guide = None if g is None else (_meta(4096, g).detach(), _meta(len(k), g).detach())
    options = {"ids": ids, "limit": torch.empty(4096, device="meta"), "guide": guide}
    if not trained:
        options |= {"own": own.detach(), "ids": None}
    p = problem(q, k, scale=10.0, normalize=False, **options)
    (mean_loss(p)[0] + row_losses(p).loss.sum()).backward()


def _views() -> None:
    """Two views of 224 of every image of a batch."""
    images = torch.empty(256, 3, 375, 500, dtype=torch.uint8, device="meta")
    parameters, ones = torch.empty(256, 2, 13, device="meta"), torch.empty(3, device="meta")
    ops.random_views(
        images, None, None, parameters, 224, 23, ones, ones, torch.float32, False, False
    )


def _neighbours() -> None:
    """The operators beside the contrasts that no case of the suite launches."""
    x, rows, scores = (_meta(*size).detach() for size in ((256, 128), (65536, 128), (4096, 3000)))
    index = torch.empty(256, 4097, dtype=torch.int64, device="meta")
    ops.nce(x, rows, index, 14.3, 0.0, torch.empty((), device="meta"), None, True)
    ops.bank_update_(rows, index[:, 0].contiguous(), x, 0.5)
    potential = ops.sinkhorn_columns(scores, 20.0)
    ops.sinkhorn_masses(scores, 20.0, potential)
    target = ops.sinkhorn_assign(scores, 20.0, potential)
    ops.soft_cross_entropy(scores, target, 10.0, 1.0, True)


# Late interaction: queries, their tokens, documents, theirs, width, hard ones of each query.
LATE = {
    "late interaction": (64, 32, 64, 180, 128, 0),
    "late interaction, hard": (64, 32, 64, 180, 128, 4),
    "late interaction, wide": (64, 32, 64, 1024, 320, 0),
    "late interaction 256": (256, 32, 256, 180, 128, 0),
    "late interaction 4,096": (4096, 32, 4096, 180, 128, 0),
}


def _late(n: int, lq: int, m: int, ld: int, d: int, h: int) -> None:
    """Its forward has the gradients; documents are padded."""
    query, document = (_meta(x, d).view(*y, d) for x, y in ((n * lq, (n, lq)), (m * ld, (m, ld))))
    hard = _meta(n * h * ld, d).view(n, h, ld, d) if h else None
    mask = torch.empty(m, ld, dtype=torch.bool, device="meta")
    F.max_sim(query, document, None, mask, hard).backward()


def _rounded(run: Callable[[], object]) -> None:
    """A step whose float32 products may round to TF32."""
    products = torch.backends.cuda.matmul
    before, products.fp32_precision = products.fp32_precision, "tf32"
    try:
        run()
    finally:
        products.fp32_precision = before


def steps() -> dict[str, tuple[torch.dtype, Callable[[], object]]]:
    """What is recorded: dtype and step by name."""
    # Of one loss and width, any size launches the same kernels.
    suite = {(c.loss, c.d): c for c in reversed(SUITES["gpu"]) if isinstance(c, Case)}
    clip, nt_xent, siglip = suite["clip", 512], suite["nt_xent", 128], suite["siglip", 768]
    single = [
        replace(case, n=4096, m=4096, d=128, dtype=torch.float32) for case in (nt_xent, siglip)
    ]
    cases = [
        *suite.values(),
        replace(clip, d=256),
        replace(clip, d=64),
        replace(clip, n=4096, m=4096, dtype=torch.float16),
        *single,
    ]

    def run(case: Case) -> None:
        case.step(OURS.build(case), predict.inputs(case))

    found = {case.name: (case.dtype, partial(run, case)) for case in cases}
    for case in single:
        found[f"{case.name}, TF32"] = case.dtype, partial(_rounded, partial(run, case))
    found["neighbours"] = torch.bfloat16, _neighbours
    found["views"] = torch.float32, _views
    for name, size in LATE.items():
        found[name] = torch.bfloat16, partial(_late, *size)
    for name, size in RANKED.items():
        found[name] = torch.bfloat16, lambda size=size: _with_rank(*size).backward()
    for name, case in HELD.items():
        found[name] = torch.bfloat16, partial(_held, *case)
    for name, case in LEARNT.items():
        found[name] = torch.bfloat16, lambda case=case: _with_learnt_scale(*case).backward()
    return found
