"""Positive pairs one by one, for losses that need every one of them and not their mean.

A pair is a row a and a column p. Their products are formed row by row in chunks, so that memory is
linear in the number of pairs; the negatives come from one pass of the contrast.
"""

import torch
from torch import Tensor

from ..contrast.gradients import refuse_second_derivative
from ..reference import accumulate_dtype

# Rows gathered at once: 2^22 numbers are 16 MB in float32.
CHUNK = 1 << 22


def added(
    to: Tensor,  # [n, ...]
    index: Tensor,  # [P] int64
    values: Tensor,  # [P, ...]
) -> Tensor:
    """``to.index_add(0, index, values)`` in the same order every time."""
    if to.is_cuda:  # sorts the rows, where index_add would add by atomics
        return to.index_put((index,), values, accumulate=True)
    return to.index_add(0, index, values)


def taken(
    x: Tensor,  # [n, ...]
    index: Tensor,  # [P] int64
) -> Tensor:
    """``x[index]``, whose gradient is added up in the same order every time."""
    return x[index] if x.is_cuda else x.index_select(0, index)


def matching_pairs(
    row_ids: Tensor,  # [n]
    col_ids: Tensor,  # [m]
) -> tuple[Tensor, Tensor]:
    """All (a, p) with equal ids, `[P]` each, sorted by row and then by column.

    Equal to ``torch.where(row_ids[:, None] == col_ids[None, :])`` without the matrix.
    """
    by_id, order = col_ids.sort(stable=True)
    first = torch.searchsorted(by_id, row_ids.contiguous())
    count = torch.searchsorted(by_id, row_ids.contiguous(), right=True) - first
    rows = torch.arange(row_ids.shape[0], device=row_ids.device).repeat_interleave(count)
    before = count.cumsum(0) - count
    within = torch.arange(rows.shape[0], device=rows.device) - before[rows]
    return rows, order[first[rows] + within]


class _PairProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, a, p):
        ctx.save_for_backward(q, k, a, p)
        dtype = accumulate_dtype(q.dtype)
        s = torch.empty(a.shape[0], dtype=dtype, device=q.device)
        for piece in _pieces(a.shape[0], q.shape[1]):
            s[piece] = (q[a[piece]].to(dtype) * k[p[piece]].to(dtype)).sum(1)
        return s

    @staticmethod
    def backward(ctx, grad):
        refuse_second_derivative()
        q, k, a, p = ctx.saved_tensors
        needs = ctx.needs_input_grad
        dq, dk = (torch.zeros_like(x, dtype=grad.dtype) if need else None
                  for x, need in ((q, needs[0]), (k, needs[1])))  # fmt: skip
        for piece in _pieces(a.shape[0], q.shape[1]):
            g = grad[piece, None]
            if dq is not None:
                dq = added(dq, a[piece], g * k[p[piece]].to(grad.dtype))
            if dk is not None:
                dk = added(dk, p[piece], g * q[a[piece]].to(grad.dtype))
        return (
            None if dq is None else dq.to(q.dtype),
            None if dk is None else dk.to(k.dtype),
            None,
            None,
        )


def _pieces(count: int, width: int):
    step = max(CHUNK // width, 1)
    return (slice(start, start + step) for start in range(0, count, step))


def pair_products(
    q: Tensor,  # [n, d]
    k: Tensor,  # [m, d]
    a: Tensor,  # [P] int64
    p: Tensor,  # [P] int64
) -> Tensor:
    """``(q[a] * k[p]).sum(1)``, `[P]` in float32 (float64 for float64 rows)."""
    return _PairProducts.apply(q, k, a, p)


def log_sum_by_row(
    s: Tensor,  # [P]
    a: Tensor,  # [P] int64
    n: int,
) -> Tensor:
    """The log of the sum of exp(s) over the pairs of every row, `[n]`; -inf without a pair."""
    top = s.new_full((n,), -torch.inf).scatter_reduce(0, a, s.detach(), "amax")
    top = torch.where(top.isfinite(), top, 0)
    total = added(s.new_zeros(n), a, (s - top[a]).exp())
    # The double where keeps the gradient of a row without pairs at zero and not 0 / 0.
    some = total != 0
    return torch.where(some, torch.where(some, total, 1).log() + top, -torch.inf)
