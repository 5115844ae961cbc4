"""Cross-entropy with soft targets, differentiable: one pass over scores and targets."""

import torch
from torch import Tensor

from .. import _check
from .._library import ops
from ..contrast.gradients import handed_over, needs_gradient, refuse_second_derivative


class _SoftCrossEntropy(torch.autograd.Function):
    """The gradient is taken in the forward, while a row is in cache: neither scores nor targets
    are kept for the backward, only the gradient, which is in the dtype of the scores."""

    @staticmethod
    def forward(ctx, scores, target, scale, share):
        # 16 bits round once more when upstream comes, and float16 has no room for the gradient of
        # a mean before a loss scaler has raised it: theirs waits unscaled.
        ctx.rest = scale * share if scores.dtype.itemsize == 2 else None
        factor = scale * share if ctx.rest is None else 1.0
        total, grad = ops.soft_cross_entropy(scores, target, scale, factor, True)
        ctx.save_for_backward(grad)
        return total * share

    @staticmethod
    def backward(ctx, grad):
        refuse_second_derivative()
        (ds,) = ctx.saved_tensors
        if ctx.rest is None:
            ds = handed_over(ds, grad)
        else:
            ds = (ds.to(grad.dtype) * (grad * ctx.rest)).to(ds.dtype)
        return ds, None, None, None


def soft_cross_entropy(
    scores: Tensor,  # [n, m]
    target: Tensor,  # [n, m]
    *,
    scale: float,
    weight: float = 1.0,
) -> Tensor:
    """Mean over the rows of the cross-entropy of scaled scores with a target of any weight.

    Equal to ``-weight * (target * (scale * scores).log_softmax(1)).sum(1).mean()``; the one matrix
    it makes is the gradient.

    Args:
        scores: `[n, m]`, not empty.
        target: `[n, m]` in the dtype of scores, or in float32 for 16-bit scores; receives no
            gradient. Rows need not sum to one.
        scale: One over the temperature, finite.
        weight: Of the mean, finite.

    Returns:
        A scalar, float32 (float64 for float64 scores).
    """
    _check.no_transform()
    _check.tensor("scores", scores)
    _check.tensor("target", target)
    scores, target = scores.contiguous(), target.detach().contiguous()
    share = weight / scores.shape[0]
    if needs_gradient(scores):
        return _SoftCrossEntropy.apply(scores, target, scale, share)
    return ops.soft_cross_entropy(scores, target, scale, 1.0, False)[0] * share
