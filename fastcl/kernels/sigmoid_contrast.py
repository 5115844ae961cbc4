"""Launcher of the sigmoid contrast: loss and gradients in one pass, allocate, launch, never wait.

By chunks at every width: a tile is formed once. With sums of the gradient in registers it would
be formed twice, for dq and for dk, and a product, an exponential and a reciprocal more per logit
cost as much as the 6 bytes of traffic saved already at d = 128.
"""

import torch
import triton

from .. import reference
from . import info_nce_common as common
from . import info_nce_config as config
from .chunks import Chunk, chunk_gradients, pitch_of
from .sigmoid_contrast_tile import HALF_LIFT, logistic_kernel


def sigmoid_contrast(
    q, k, scale, logit_scale, bias, logit_bias, row_ids, col_ids, need_q, need_k, positives_in=True
):  # fmt: skip
    """`reference.sigmoid_contrast` without the n x m matrix."""
    if not config.supported(q):
        return reference.sigmoid_contrast(
            q, k, scale, logit_scale, bias, logit_bias, row_ids, col_ids, need_q, need_k,
            positives_in,
        )  # fmt: skip
    p = common.problem(q, k, row_ids, col_ids, scale, logit_scale, False)
    (n, m, d), tile = p.sizes, p.plan.weights

    def grid(rows: int, columns: int) -> tuple[int, int]:
        return triton.cdiv(rows, tile.rows), triton.cdiv(columns, tile.columns)

    size = config.chunk_size(q.element_size())
    programs = grid(min(n, size), min(m, size))
    sums = torch.zeros(*programs, 3, dtype=torch.float64, device=q.device)
    operands = p.operands(tile, tile.depth)

    def fill(chunk: Chunk) -> None:
        logistic_kernel[grid(*chunk.shape)](
            *operands, bias, logit_bias, sums, chunk.weights,
            *chunk.corner, pitch_of(chunk.weights), n, m, d,
            tile.rows, tile.columns, tile.depth, config.whole(tile, d), p.plan.precision,
            positives_in, **common.options(tile),
        )  # fmt: skip

    lift = HALF_LIFT.value if q.dtype == torch.float16 else 1.0
    dq, dk = chunk_gradients(p, fill, need_q, need_k, alpha=scale / lift)
    if logit_scale is not None:
        dq, dk = dq.mul_(logit_scale), dk.mul_(logit_scale)
    sums = sums.sum((0, 1))
    slopes = sums[1:] if need_q or need_k else torch.zeros_like(sums[1:])
    return sums[0].float(), dq, dk, slopes.float()
