"""The one softmax contrast under every loss, differentiable.

Rows q, columns k, a scale and an integer id per row and per column; the n x m matrix is never
formed. The losses in `functional` are one line each over it.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from . import _check
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


def refuse_second_derivative() -> None:
    """Called in a backward: with create_graph, what it returns would pass for a constant."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError("fastcl losses have no second derivative (create_graph=True)")


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
        loss, _, positive, count = rows.unbind()
        ctx.mark_non_differentiable(count, rank)
        if not both:
            return loss, positive, count, rank, None, None, None
        col_loss, _, col_positive, col_count = cols.unbind()
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
            dq = torch.zeros_like(weighted)
            if g_loss is not None:
                dq = weighted * (g_loss * total)[:, None]
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
    """Rows with each other, from raw rows: one node where unit rows and a contrast would be two."""

    @staticmethod
    def forward(ctx, scale, ids, positives_in, *views):
        z, lengths = ops.unit_rows_forward(views)
        rows, cols, _, _ = ops.info_nce_forward(
            z, z, scale, None, ids, ids, None, None, True, False, positives_in, True, False
        )
        ctx.save_for_backward(z, lengths, rows, cols, ids, *views)
        ctx.options = scale, positives_in
        loss, _, _, count = rows.unbind()
        ctx.mark_non_differentiable(count)
        return loss, count

    @staticmethod
    def backward(ctx, grad, _count):
        refuse_second_derivative()
        z, lengths, rows, cols, ids, *views = ctx.saved_tensors
        scale, positives_in = ctx.options
        dz, _ = ops.info_nce_backward(
            grad.contiguous(), None, None, None, z, z, scale, None, ids, ids, rows, cols,
            True, positives_in, False, True, True, False,
        )  # fmt: skip
        dx = ops.unit_rows_backward(dz.to(z.dtype), views, lengths)
        return None, None, None, *dx.split([x.shape[0] for x in views])


def raw_contrast(
    *views: Tensor,  # [n, d] each
    scale: float,
    ids: Tensor,  # [sum of n] int64
    positives_in: bool = True,
) -> tuple[Tensor, Tensor]:
    """Loss and number of positives of every row of the views below each other, normalised here.

    Equal to ``contrast(unit_rows(*views), scale=scale, ids=ids)[::2]``; the caller has checked.
    """
    views = tuple(x.contiguous() for x in views)
    return _RawContrast.apply(scale, ids.contiguous(), positives_in, *views)


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
