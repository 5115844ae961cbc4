"""Cross-entropy with soft targets in Triton, SwAV's prediction (Caron et al. 2020, equation 2).

    t_ij = scale s_ij;   loss_i = w_i log(sum_j exp(t_ij - top_i)) - sum_j q_ij (t_ij - top_i)
    dt_ij = w_i p_ij - q_ij,   w_i = sum_j q_ij
Bytes: scores and targets once from memory, the gradient in the dtype of the scores.
The idea: a row has one program, which reads it again from the cache for its sums and for its
gradient; the gradient is finished with the loss, and no lse, no probability is ever stored.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import reference

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
WIDTH = 1024  # columns of a step: 8 numbers per thread; 16 spill on sm_100


@triton.jit
def soft_cross_entropy_kernel(
    scores,  # [n, m]
    target,  # [n, m]
    losses,  # [n] float32 out
    grad,  # [n, m] out, or None
    m,
    scale,
    factor,
    WIDTH: tl.constexpr,
):
    """One row."""
    row = tl.program_id(0).to(tl.int64) * m
    top = tl.full([], float("-inf"), tl.float32)
    for start in range(0, m, WIDTH):
        j = start + tl.arange(0, WIDTH)
        t = tl.load(scores + row + j, mask=j < m, other=0.0).to(tl.float32) * scale
        top = tl.maximum(top, tl.max(tl.where(j < m, t, float("-inf")), 0))
    # tl.maximum may pass over a NaN; the sums keep it.
    total = tl.zeros([WIDTH], tl.float32)
    weights = tl.zeros([WIDTH], tl.float32)
    away = tl.zeros([WIDTH], tl.float32)
    for start in range(0, m, WIDTH):
        j = start + tl.arange(0, WIDTH)
        t = tl.load(scores + row + j, mask=j < m, other=0.0).to(tl.float32) * scale - top
        q = tl.load(target + row + j, mask=j < m, other=0.0).to(tl.float32)
        total += tl.where(j < m, tl.exp2(t * LOG2E), 0.0)
        weights += q
        away += tl.where(j < m, q * t, 0.0)
    sum_, weight = tl.sum(total, 0), tl.sum(weights, 0)
    loss = weight * tl.log2(sum_) * LN2 - tl.sum(away, 0)
    tl.store(losses + tl.program_id(0), loss)
    if grad is not None:
        share = weight / sum_
        for start in range(0, m, WIDTH):
            j = start + tl.arange(0, WIDTH)
            t = tl.load(scores + row + j, mask=j < m, other=0.0).to(tl.float32) * scale - top
            q = tl.load(target + row + j, mask=j < m, other=0.0).to(tl.float32)
            g = (tl.exp2(t * LOG2E) * share - q) * factor
            tl.store(grad + row + j, g.to(grad.dtype.element_ty), mask=j < m)


def soft_cross_entropy(
    scores: Tensor,  # [n, m]
    target: Tensor,  # [n, m]
    scale: float,
    factor: float,
    need_scores: bool,
) -> tuple[Tensor, Tensor]:
    """The operator of the reference."""
    if torch.float64 in (scores.dtype, target.dtype):
        return reference.soft_cross_entropy(scores, target, scale, factor, need_scores)
    n, m = scores.shape
    losses = scores.new_empty(n, dtype=torch.float32)
    grad = torch.empty_like(scores) if need_scores else None
    width = min(WIDTH, triton.next_power_of_2(m))
    if n > 0:
        soft_cross_entropy_kernel[(n,)](
            scores, target, losses, grad, m, scale, factor, WIDTH=width, num_warps=4
        )
    return losses.sum(), scores.new_empty(0, m) if grad is None else grad
