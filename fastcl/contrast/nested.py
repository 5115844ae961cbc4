"""The contrast at nested widths, differentiable: loss and gradients come from one pass."""

import torch
from torch import Tensor

from .._library import ops
from .gradients import handed_over, needs_gradient, refuse_second_derivative
from .node import like


class _Nested(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, logit_scale, scale, widths, weights):
        needs = ctx.needs_input_grad[:3]
        loss, *found = ops.nested_contrast_mean.default(
            q, k, logit_scale, scale, widths, weights, *needs
        )
        ctx.save_for_backward(logit_scale, *found)
        ctx.dtype = q.dtype
        return loss

    @staticmethod
    def backward(ctx, grad):
        refuse_second_derivative()
        logit_scale, dq, dk, slope = ctx.saved_tensors
        needs = ctx.needs_input_grad
        dq, dk = (
            handed_over(x, grad, ctx.dtype) if need else None
            for x, need in zip((dq, dk), needs, strict=False)
        )
        d_scale = like(grad * slope / logit_scale, logit_scale) if needs[2] else None
        return dq, dk, d_scale, None, None, None


def nested_mean(
    q: Tensor,  # [n, d]
    k: Tensor,  # [n, d]
    scale: float | Tensor,
    widths: tuple[int, ...],
    weights: tuple[float, ...],
) -> Tensor:
    """The contrast of the first features of q and k, its mean at every width, weighted and summed.

    Args:
        scale: One over the temperature: a float, or a tensor of one element that receives a
            gradient.
        widths: Rising.
        weights: One per width, not negative.

    Returns:
        A scalar, float32 (float64 for float64 rows).
    """
    learned = isinstance(scale, Tensor)
    logit_scale, factor = (scale, 1.0) if learned else (None, float(scale))
    q, k, widths, weights = q.contiguous(), k.contiguous(), list(widths), list(weights)
    if needs_gradient(q, k, logit_scale):
        return _Nested.apply(q, k, logit_scale, factor, widths, weights)
    given = q, k, logit_scale, factor, widths, weights
    return ops.nested_contrast_mean.default(*given, False, False, False)[0]
