"""Positives by labels of one level or several, for all levels at once.

A level's mean over the positives of a row is <q_i, sum of the columns of its label> / their number:
columns are added up by label, rows take the sums of their labels, and both are sums of bags.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _check
from ..contrast.gradients import refuse_second_derivative
from .pairs import taken
from .positives import Rows


def of_labels(
    rows: Rows,
    row_labels: Tensor,  # [n, L] int64
    col_labels: Tensor,  # [m, L] int64
    shares: Tensor,  # [L] what every level counts
) -> tuple[Tensor, Tensor]:
    """How much lse counts in the loss of every row, and the mean of its positives' products, summed
    over the levels where it has some; both [n]."""
    by_label, order = col_labels.T.contiguous().sort(stable=True)
    wanted = row_labels.T.contiguous()
    low = torch.searchsorted(by_label, wanted)
    count = torch.searchsorted(by_label, wanted, right=True) - low - int(rows.itself)
    some = count > 0
    weight = torch.where(some, shares[:, None] / count.clamp(min=1), 0)
    first = torch.ones_like(by_label, dtype=torch.bool)
    first[:, 1:] = by_label[:, 1:] != by_label[:, :-1]
    group = first.flatten().cumsum(0).view_as(order) - 1  # labels of another level are others
    at = group.gather(1, low.clamp(max=order.shape[1] - 1))
    mean = _Means.apply(rows.q, rows.k, weight.T.contiguous(), order, group, at, rows.itself)
    return (shares[:, None] * some).sum(0), mean


def _bags(
    x: Tensor,  # [n, d]
    order: Tensor,  # [L, n] rows of x in the order of groups
    group: Tensor,  # [L, n] ascending
    size: int,
    weight: Tensor | None = None,  # [L, n] of x in that order
) -> Tensor:
    """The sum of the rows of every group, [size, d]."""
    starts = torch.searchsorted(group.flatten(), torch.arange(size, device=x.device))
    weight = None if weight is None else weight.flatten()
    # Of rows that learn it would note more, for a backward of its own.
    x = x.detach()
    return F.embedding_bag(order.flatten(), x, starts, mode="sum", per_sample_weights=weight)


def _products(
    q: Tensor,  # [n, d]
    k: Tensor,  # [m, d]
    sums: Tensor,  # [groups, d]
    at: Tensor,  # [L, n]
    itself: bool,
) -> Tensor:
    """Of every row with the sum of each level's group, less its own, [n, L]."""
    found = torch.stack([(q * taken(sums, level)).sum(1) for level in at], 1)
    return found - (q * k).sum(1, keepdim=True) if itself else found


class _Means(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, weight, order, group, at, itself):
        ctx.groups = int(group[-1, -1]) + 1 if _check.seen(group) else group.numel()
        sums = _bags(k, order, group, ctx.groups)
        positive = F.embedding_bag(at.T, sums, mode="sum", per_sample_weights=weight)
        if itself:
            positive.addcmul_(weight.sum(1, keepdim=True), k, value=-1)
        kept = sums if ctx.needs_input_grad[2] else None
        ctx.save_for_backward(q, k, weight, order, group, at, positive, kept)
        ctx.itself = itself
        if q.dtype == torch.float64:  # products round less than sums of weighted columns
            return (weight * _products(q, k, sums, at, itself)).sum(1)
        return (q * positive).sum(1)

    @staticmethod
    def backward(ctx, grad):
        refuse_second_derivative()
        q, k, weight, order, group, at, positive, sums = ctx.saved_tensors
        grad, (q_learns, k_learns, weight_learns, *_) = grad[:, None], ctx.needs_input_grad
        dq, dk, dw = grad * positive if q_learns else None, None, None
        if weight_learns:
            dw = grad * _products(q, k, sums, at, ctx.itself)
        if k_learns:
            weight = grad * weight
            at, rows = at.sort(stable=True)
            columns = _bags(q, rows, at, ctx.groups, weight.T.gather(1, rows))
            own = torch.empty_like(group).scatter_(1, order, group)
            dk = F.embedding_bag(own.T, columns, mode="sum")
            if ctx.itself:
                dk.addcmul_(weight.sum(1, keepdim=True), q, value=-1)
        return dq, dk, dw, None, None, None, None
