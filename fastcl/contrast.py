"""The one softmax contrast under every loss, differentiable.

Rows q, columns k, a scale and an integer id per row and per column; the n x m matrix is never
formed. The losses in `functional` are one line each over it.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from . import _check
from ._gradients import (
    handed_over,
    needs_gradient,
    refuse_forward_mode,
    refuse_second_derivative,
)
from ._library import ops


class Contrast(NamedTuple):
    """What `contrast` returns; loss, positive and their column twins carry gradients."""

    loss: Tensor  # [n] lse over the denominator minus the mean positive logit
    positive: Tensor  # [n] mean positive logit, 0 where a row has none
    count: Tensor  # [n] number of positives
    rank: Tensor  # [n] int64 negatives that score above the pivot, or [0]
    col_loss: Tensor | None  # [m] the same down the columns where both
    col_positive: Tensor | None  # [m]
    col_count: Tensor | None  # [m]


class _Contrast(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, q, k, extra, logit_scale, pivot, scale, row_ids, col_ids,
        symmetric, both, positives_in, unit,
    ):  # fmt: skip
        # None stands for a tensor given already: Dynamo takes no tensor twice.
        k, col_ids = q if symmetric else k, row_ids if col_ids is None else col_ids
        # Columns without gradient: the gradient of q is finished in the forward (2 products).
        need_q, need_k, _, need_scale = ctx.needs_input_grad[:4]
        aside = row_ids is None or extra is not None  # no positive among the columns
        frozen = aside and not (symmetric or both or need_k) and (need_q or need_scale)
        rows, cols, rank, weighted = ops.info_nce_forward(
            q, k, scale, logit_scale, row_ids, col_ids, extra, pivot,
            symmetric, both, positives_in, unit, frozen,
        )  # fmt: skip
        # A finished gradient needs no columns: MoCo may push to its queue before the backward.
        kept = None if frozen else k
        ctx.save_for_backward(q, kept, extra, logit_scale, row_ids, col_ids, rows, cols, weighted)
        ctx.options = scale, symmetric, both, positives_in, unit, frozen
        ctx.set_materialize_grads(False)
        loss, positive, count = _own(rows)
        ctx.mark_non_differentiable(count, rank)
        if not both:
            return loss, positive, count, rank, None, None, None
        col_loss, col_positive, col_count = _own(cols)
        ctx.mark_non_differentiable(col_count)
        return loss, positive, count, rank, col_loss, col_positive, col_count

    @staticmethod
    def backward(ctx, g_loss, g_positive, _count, _rank, g_col_loss, g_col_positive, _col_count):
        refuse_second_derivative()
        q, k, extra, logit_scale, row_ids, col_ids, rows, cols, weighted = ctx.saved_tensors
        scale, symmetric, both, positives_in, unit, frozen = ctx.options
        need_q, need_k, need_extra, need_scale = ctx.needs_input_grad[:4]
        columns = (g_col_loss, g_col_positive) if both else (None, None)
        grads = [
            None if g is None else g.contiguous()  # .sum() delivers a stride-0 gradient
            for g in (g_loss, g_positive, *columns)
        ]
        total = scale if logit_scale is None else scale * logit_scale
        if frozen:
            dk = None
            if g_loss is None:
                dq = torch.zeros_like(weighted)
            else:
                dq = handed_over(weighted, (g_loss * total)[:, None])
        else:
            dq, dk = ops.info_nce_backward(
                *grads, q, k, scale, logit_scale, row_ids, col_ids, rows, cols,
                symmetric, positives_in, extra is not None, unit, need_q or need_scale, need_k,
            )  # fmt: skip
        d_extra = None
        if extra is not None and (need_extra or need_scale):
            d_extra = torch.zeros_like(rows[0])
            if g_loss is not None:  # p - 1 of the positive, without cancellation
                d_extra = g_loss * torch.expm1(-rows[0])
            if g_positive is not None:
                d_extra = d_extra + g_positive
            d_extra = d_extra * total
        d_scale = None
        if need_scale:
            # Each logit is linear in the scale, so the sum over rows of <q, dq> is scale * dscale.
            dot = (q.to(dq.dtype) * dq).sum() * (0.5 if symmetric else 1.0)
            if extra is not None:
                dot = dot + (extra.to(dq.dtype) * d_extra).sum()
            d_scale = (dot / logit_scale).to(logit_scale.dtype).reshape(logit_scale.shape)
        return (
            dq.to(q.dtype) if need_q else None,
            dk.to(k.dtype) if need_k and not symmetric else None,
            d_extra.to(extra.dtype) if need_extra else None,
            d_scale,
            *[None] * 8,
        )


class _RawContrast(torch.autograd.Function):
    """From raw rows: one node and no unit rows in memory."""

    @staticmethod
    def forward(ctx, logit_scale, scale, row_ids, col_ids, count, both, positives_in, *parts):
        # None stands for a tensor given already: Dynamo takes no tensor twice.
        col_ids = row_ids if col_ids is None else col_ids
        q, k = parts[:count], parts[count:]
        rows, cols, q_lengths, k_lengths = ops.raw_info_nce_forward(
            q, k, scale, logit_scale, row_ids, col_ids, both, positives_in
        )
        ctx.save_for_backward(
            logit_scale, row_ids, col_ids, rows, cols, q_lengths, k_lengths, *parts
        )
        ctx.options = scale, count, both, positives_in
        ctx.set_materialize_grads(False)
        loss, _, positives = _own(rows)
        ctx.mark_non_differentiable(positives)
        return loss, positives, cols[0].clone() if both else None

    @staticmethod
    def backward(ctx, grad, _positives, grad_col):
        refuse_second_derivative()
        logit_scale, row_ids, col_ids, rows, cols, q_lengths, k_lengths, *parts = ctx.saved_tensors
        scale, count, both, positives_in = ctx.options
        q, k = parts[:count], parts[count:]
        need = ctx.needs_input_grad
        grads = [None if g is None else g.contiguous() for g in (grad, grad_col)]
        need_q, need_k = any(need[7 : 7 + count]), any(need[7 + count :])
        dq, dk, dot = ops.raw_info_nce_backward(
            *grads, q, k, q_lengths, k_lengths, scale, logit_scale, row_ids, col_ids, rows, cols,
            positives_in, need_q or need[0], need_k,
        )  # fmt: skip
        d_scale = None
        if need[0]:  # each logit is linear in the scale
            dot = dot / logit_scale * (1.0 if k else 0.5)
            d_scale = dot.to(logit_scale.dtype).reshape(logit_scale.shape)
        d_parts = [
            part
            for needed, dx, parts in ((need_q, dq, q), (need_k, dk, k))
            for part in (_split(dx, parts) if needed else [None] * len(parts))
        ]
        return (d_scale, *[None] * 6, *d_parts)


def _own(statistics: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # [4, n] -> three of [n]
    """Loss, mean positive and count, not as views of one tensor: autograd lets nobody write those,
    and the backward reads that one."""
    loss, _, positive, count = statistics.unbind()
    return loss.clone(), positive.clone(), count.clone()


def _split(dx: Tensor, parts: list[Tensor]) -> tuple[Tensor, ...]:
    """The gradient of each part, in its dtype."""
    dx = dx.to(parts[0].dtype)
    return (dx,) if len(parts) == 1 else dx.split([x.shape[0] for x in parts])


def raw_contrast(
    *views: Tensor,  # [n, d] each
    k: Tensor | None = None,  # [m, d]
    scale: float | Tensor,
    ids: tuple[Tensor, Tensor] | Tensor,
    both: bool = False,
    positives_in: bool = True,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Loss and number of positives of every row of the views below each other, and the loss of
    every column where both; rows and columns are normalised here.

    Equal to ``contrast(unit_rows(*views), unit_rows(k), scale=scale, ids=ids, both=both)``, of
    which it returns loss, count and col_loss; without k, to the contrast of the rows with each
    other. No unit rows are stored.
    """
    row_ids, col_ids = ids if isinstance(ids, tuple) else (ids, ids)
    _check.raw_contrast(views, k, scale, row_ids, col_ids, both)
    logit_scale = scale if isinstance(scale, Tensor) else None
    factor = 1.0 if logit_scale is not None else float(scale)
    shared = col_ids is row_ids
    row_ids = row_ids.contiguous()
    col_ids = row_ids if shared else col_ids.contiguous()
    q, columns = [x.contiguous() for x in views], [] if k is None else [k.contiguous()]
    if not needs_gradient(logit_scale, *q, *columns):
        rows, cols, *_ = ops.raw_info_nce_forward(
            q, columns, factor, logit_scale, row_ids, col_ids, both, positives_in
        )
        return rows[0], rows[3], cols[0] if both else None
    return _RawContrast.apply(
        logit_scale, factor, row_ids, None if shared else col_ids, len(views), both, positives_in,
        *q, *columns,
    )  # fmt: skip


def contrast(
    q: Tensor,  # [n, d]
    k: Tensor | None = None,  # [m, d]; None: the rows themselves, self left out
    *,
    scale: float | Tensor,
    ids: tuple[Tensor, Tensor] | Tensor | None = None,
    extra: Tensor | None = None,  # [n]
    pivot: Tensor | None = None,  # [n]
    both: bool = False,
    positives_in: bool = True,
    unit: bool = True,
) -> Contrast:
    """Softmax contrast of every row with every column in linear memory.

    Equal to ``F.cross_entropy(scale * q @ k.T, arange(n), reduction="none")`` for
    ``ids=arange(n)``.

    Args:
        q: Rows `[n, d]`, used as they are: normalise them before.
        k: Columns `[m, d]`. None contrasts the rows with each other, a row never with itself.
        scale: One over the temperature: a float, or a tensor of one element that receives a
            gradient.
        ids: int64 of the rows and of the columns, `([n], [m])`, or one `[n]` for both; equal ids
            make a column a positive of the row. None: no column is a positive.
        extra: Similarity `[n]` (before the scale) of one more positive per row, in the
            denominator. Columns with the row's id are then left out.
        pivot: Similarity `[n]` that `rank` counts the negatives above, usually the positive's.
        both: Also contrast every column with all rows (CLIP).
        positives_in: False takes the positives out of the denominator (decoupled contrastive
            learning).
        unit: All rows have length one at most. False costs a running maximum.

    Returns:
        A `Contrast`; all of it float32 (float64 for float64 rows).

    Raises:
        ValueError: Shapes, devices or ids do not fit, or the scale is not finite and positive.
        TypeError: A dtype does not fit.
    """
    symmetric = k is None
    row_ids, col_ids = ids if isinstance(ids, tuple) else (ids, ids)
    _check.contrast(
        q, q if symmetric else k, scale, row_ids, col_ids, extra, pivot, symmetric, both
    )
    col_ids = None if col_ids is row_ids else col_ids
    logit_scale = scale if isinstance(scale, Tensor) else None
    refuse_forward_mode(q, k, extra, logit_scale)
    out = _Contrast.apply(
        q.contiguous(), _contiguous(k), _contiguous(extra), logit_scale,
        _contiguous(pivot, detach=True), 1.0 if logit_scale is not None else float(scale),
        _contiguous(row_ids), _contiguous(col_ids), symmetric, both, positives_in, unit,
    )  # fmt: skip
    return Contrast(*out)


def _contiguous(x: Tensor | None, detach: bool = False) -> Tensor | None:
    if x is None:
        return None
    return x.detach().contiguous() if detach else x.contiguous()
