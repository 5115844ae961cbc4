"""The mean of the softmax contrast of rows with each other: its gradient comes with the loss."""

import torch
from torch import Tensor

from . import _check
from ._gradients import handed_over, needs_gradient, refuse_second_derivative
from ._library import ops
from .contrast import contrast, raw_contrast


class _SelfContrastMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scale, ids, positives_in, normalize, paired, *parts):
        loss, rows, dz = ops.self_contrast_mean(
            parts, scale, ids, positives_in, normalize, paired, True
        )
        ctx.save_for_backward(dz)
        ctx.dtype, ctx.sizes = parts[0].dtype, [x.shape[0] for x in parts]
        losses = rows[0]
        ctx.mark_non_differentiable(losses)
        ctx.set_materialize_grads(False)  # zeros for the constant losses would be a launch
        return loss, losses

    @staticmethod
    def backward(ctx, grad, _losses):
        refuse_second_derivative()
        if grad is None:
            return (None,) * (5 + len(ctx.sizes))
        dz = handed_over(*ctx.saved_tensors, grad, ctx.dtype)
        parts = (dz,) if len(ctx.sizes) == 1 else dz.split(ctx.sizes)
        return (*[None] * 5, *parts)


def self_contrast_mean(
    *views: Tensor,  # [n, d] each
    scale: float | Tensor,
    ids: Tensor,  # [sum of n] int64
    positives_in: bool = True,
    normalize: bool = True,
    paired: bool = True,
) -> tuple[Tensor, Tensor]:
    """Mean over the rows of all views of their contrast with the other rows, in linear memory.

    Equal to ``loss = contrast(unit_rows(*views), scale=scale, ids=ids).loss`` and its
    ``loss.mean()``; where all similarities of a triangle take 6 MB at most, the CPU forms them
    once.

    Args:
        views: Rows `[n, d]`, of any number each.
        scale: One over the temperature: a float, or a tensor of one element that receives a
            gradient, which takes a product more.
        ids: int64 `[sum of n]`, the rows of the views one after another; equal ids are positives.
        positives_in: False takes the positives out of the denominator.
        normalize: False where all rows have unit length already.
        paired: Every row has a positive. False: a row may have none, and then counts as zero.

    Returns:
        The mean, and the loss of every row `[sum of n]`, which is a constant; float32 (float64 for
        float64 rows).

    Raises:
        ValueError: Shapes, devices or ids do not fit, or the scale is not finite and positive.
        TypeError: A dtype does not fit.
    """
    if isinstance(scale, Tensor):
        return _of_learned_scale(views, scale, ids, positives_in, normalize, paired)
    _check.raw_contrast(views, None, scale, ids, ids, False)
    parts, ids = [x.contiguous() for x in views], ids.contiguous()
    options = float(scale), ids, positives_in, normalize, paired
    if needs_gradient(*parts):
        return _SelfContrastMean.apply(*options, *parts)
    loss, rows, _ = ops.self_contrast_mean(parts, *options, False)
    return loss, rows[0]


def _of_learned_scale(views, scale, ids, positives_in, normalize, paired):
    """The gradient of the scale takes the losses row by row."""
    if normalize:
        losses, count, _ = raw_contrast(*views, scale=scale, ids=ids, positives_in=positives_in)
    else:
        found = contrast(torch.cat(views), scale=scale, ids=ids, positives_in=positives_in)
        losses, count = found.loss, found.count
    if not paired:
        losses = torch.where(count == 0, 0, losses)
    return losses.mean(), losses.detach()
