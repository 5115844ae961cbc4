"""Launcher of the sigmoid contrast: loss and gradients in one pass, allocate, launch, never wait.

By chunks at every width: a tile is formed once. With sums of the gradient in registers it would
be formed twice, for dq and for dk, and a product, an exponential and a reciprocal more per logit
cost as much as the 6 bytes of traffic saved already at d = 128.
"""

import torch
import triton

from .. import reference
from ..contrast.problem import Problem
from . import contrast_common as common
from . import contrast_config as config
from .chunks import Chunk, chunk_gradients, pitch_of
from .contrast import finished, prepared
from .sigmoid_contrast_tile import HALF_LIFT, logistic_kernel


def sigmoid_contrast(problem: Problem, bias, logit_bias, need_q: bool, need_k: bool):
    """`reference.sigmoid_contrast` without the n x m matrix."""
    if not config.supported(problem.q[0]):
        return reference.sigmoid_contrast(problem, bias, logit_bias, need_q, need_k)
    x = prepared(problem)
    p, q, scale, logit_scale = x.operands, x.operands.q, problem.scale, problem.logit_scale
    (n, m, d), tile = p.sizes, p.plan.weights

    def grid(rows: int, columns: int) -> tuple[int, int]:
        return triton.cdiv(rows, tile.rows), triton.cdiv(columns, tile.columns)

    size = config.chunk_size(q.element_size())
    programs = grid(min(n, size), min(m, size))
    sums = torch.zeros(*programs, 3, dtype=torch.float64, device=q.device)
    operands = p.of(tile, tile.depth)

    def fill(chunk: Chunk) -> None:
        logistic_kernel[grid(*chunk.shape)](
            *operands, bias, logit_bias, sums, chunk.weights,
            *chunk.corner, pitch_of(chunk.weights), n, m, d,
            tile.rows, tile.columns, tile.depth, config.whole(tile, d), p.plan.precision,
            problem.positives_in, **common.options(tile),
        )  # fmt: skip

    lift = HALF_LIFT.value if q.dtype == torch.float16 else 1.0
    dq, dk = chunk_gradients(p, fill, need_q, need_k, alpha=scale / lift)
    if logit_scale is not None:
        dq, dk = dq.mul_(logit_scale), dk.mul_(logit_scale)
    dq, dk, _, _ = finished(x, dq, dk, (need_q, need_k, False, False))
    sums = sums.sum((0, 1))
    slopes = sums[1:] if need_q or need_k else torch.zeros_like(sums[1:])
    return sums[0].float(), dq, dk, slopes.float()
