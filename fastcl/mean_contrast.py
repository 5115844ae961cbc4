"""The mean of the softmax contrast over all rows: its gradients may come with the loss."""

import torch
from torch import Tensor

from . import _check
from ._gradients import handed_over, needs_gradient, refuse_second_derivative
from ._library import mean_takes_gradient, ops
from .contrast import contrast, raw_contrast
from .unit_rows import unit_rows


class _MeanContrast(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, extra, logit_scale, scale, row_ids, col_ids, unit, normalize, both):
        # None stands for a tensor given already: Dynamo takes no tensor twice.
        col_ids = row_ids if col_ids is None else col_ids
        need_q, need_k, _, need_scale = ctx.needs_input_grad[:4]
        loss, rows, dq, dk, dot = ops.info_nce_mean(
            q, k, scale, logit_scale, row_ids, col_ids, extra, unit, normalize,
            need_q or need_scale, need_k, both,
        )  # fmt: skip
        positive = None if extra is None else rows[0]
        ctx.save_for_backward(dq, dk, dot, logit_scale, positive)
        ctx.options = scale, q.dtype
        return loss

    @staticmethod
    def backward(ctx, grad):
        refuse_second_derivative()
        dq, dk, dot, logit_scale, losses = ctx.saved_tensors
        scale, dtype = ctx.options
        need_q, need_k, need_extra, need_scale = ctx.needs_input_grad[:4]
        d_extra = d_scale = None
        if need_extra:  # p - 1 of the positive, without cancellation
            d_extra = torch.expm1(-losses) * (grad * (scale / losses.shape[0]))
        if need_scale:  # each logit is linear in the scale
            d_scale = (grad * dot / logit_scale).to(logit_scale.dtype).reshape(logit_scale.shape)
        return (
            handed_over(dq, grad, dtype) if need_q else None,
            handed_over(dk, grad, dtype) if need_k else None,
            d_extra,
            d_scale,
            *[None] * 6,
        )


def mean_contrast(
    q: Tensor,  # [n, d]
    k: Tensor,  # [m, d]
    *,
    scale: float | Tensor,
    ids: tuple[Tensor, Tensor] | Tensor | None = None,
    extra: Tensor | None = None,  # [n]
    both: bool = False,
    unit: bool = True,
    normalize: bool = False,
) -> Tensor:
    """Mean over the rows of their softmax contrast with all columns, in linear memory.

    Equal to ``contrast(q, k, scale=scale, ids=ids, extra=extra, unit=unit).loss.mean()``; on the
    CPU, and for wide bfloat16 rows on a GPU, with one product less, as the gradients are taken
    together with the loss. Where both, the mean of that and of the same down the columns; then a
    product less while all similarities take 6 MB at most.

    Args:
        q: Rows `[n, d]`.
        k: Columns `[m, d]`.
        scale: One over the temperature: a float, or a tensor of one element that receives a
            gradient.
        ids: int64 of the rows and of the columns, `([n], [m])`, or one `[n]` for both.
        extra: Similarity `[n]` of one more positive per row, see `contrast`; not where both.
        both: Also contrast every column with all rows.
        unit: All rows have length one at most. False costs a running maximum.
        normalize: Divide rows and columns by their length on the way in; False uses them as they
            are.

    Returns:
        A scalar, float32 (float64 for float64 rows).

    Raises:
        ValueError: Shapes, devices or ids do not fit, or the scale is not finite and positive.
        TypeError: A dtype does not fit.
    """
    row_ids, col_ids = ids if isinstance(ids, tuple) else (ids, ids)
    logit_scale = scale if isinstance(scale, Tensor) else None
    # A learned scale of rows as they are, or of extra, needs them once more in the backward.
    whole = logit_scale is None or (normalize and extra is None)
    if not (whole and mean_takes_gradient(q, k, scale, unit or normalize, both)):
        if normalize and extra is None and ids is not None:
            loss, _, col_loss = raw_contrast(q, k=k, scale=scale, ids=(row_ids, col_ids), both=both)
        else:
            if normalize:
                q, k, unit = unit_rows(q), unit_rows(k), True
            found = contrast(q, k, scale=scale, ids=ids, extra=extra, both=both, unit=unit)
            loss, col_loss = found.loss, found.col_loss
        return (loss.mean() + col_loss.mean()) / 2 if both else loss.mean()
    _check.contrast(q, k, scale, row_ids, col_ids, extra, None, False, both)
    arguments = (
        q.contiguous(), k.contiguous(), None if extra is None else extra.contiguous(),
        logit_scale, 1.0 if logit_scale is not None else float(scale),
    )  # fmt: skip
    col_ids = None if col_ids is row_ids else col_ids.contiguous()
    row_ids = None if row_ids is None else row_ids.contiguous()
    if not needs_gradient(*arguments[:4]):
        ids = row_ids, row_ids if col_ids is None else col_ids
        q, k, extra, *scales = arguments
        return ops.info_nce_mean(
            q, k, scales[1], scales[0], *ids, extra, unit, normalize, False, False, both
        )[0]
    return _MeanContrast.apply(*arguments, row_ids, col_ids, unit, normalize, both)
