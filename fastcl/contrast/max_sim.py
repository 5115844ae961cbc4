"""Late interaction, differentiable: loss and gradients come from one pass."""

import torch
from torch import Tensor

from .._library import ops
from .gradients import handed_over, needs_gradient, refuse_second_derivative
from .node import like


class _MaxSim(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, document, hard, logit_scale, masks, scale, normalize):
        needs = ctx.needs_input_grad[:4]
        loss, *found = ops.max_sim_mean.default(
            query, document, hard, *masks, logit_scale, scale, normalize, *needs
        )
        ctx.save_for_backward(logit_scale, *found)
        ctx.dtype = query.dtype
        return loss

    @staticmethod
    def backward(ctx, grad):
        refuse_second_derivative()
        logit_scale, *found, slope = ctx.saved_tensors
        needs = ctx.needs_input_grad
        gradients = [
            handed_over(x, grad, ctx.dtype) if need else None
            for x, need in zip(found, needs, strict=False)
        ]
        d_scale = like(grad * slope / logit_scale, logit_scale) if needs[3] else None
        return *gradients, d_scale, None, None, None


def max_sim_mean(
    query: Tensor,  # [n, Lq, d]
    document: Tensor,  # [m, Ld, d]
    hard: Tensor | None,  # [n, h, Lh, d]
    masks: tuple[Tensor | None, Tensor | None, Tensor | None],  # [n, Lq], [m, Ld], [n, h, Lh]
    scale: float | Tensor,
    normalize: bool,
) -> Tensor:
    """The contrast of queries against documents that score by their best tokens, its mean.

    Args:
        scale: One over the temperature: a float, or a tensor of one element that receives a
            gradient.

    Returns:
        A scalar, float32 (float64 for float64 tokens).
    """
    logit_scale = scale if isinstance(scale, Tensor) else None
    factor = 1.0 if isinstance(scale, Tensor) else float(scale)
    query, document = query.contiguous(), document.contiguous()
    hard = None if hard is None else hard.contiguous()
    of_query, of_document, of_hard = (None if x is None else x.contiguous() for x in masks)
    masks = of_query, of_document, of_hard
    if needs_gradient(query, document, hard, logit_scale):
        return _MaxSim.apply(query, document, hard, logit_scale, masks, factor, normalize)
    needs = (False,) * 4
    given = query, document, hard, *masks, logit_scale, factor, normalize, *needs
    return ops.max_sim_mean.default(*given)[0]
