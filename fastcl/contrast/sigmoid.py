"""The sigmoid contrast under SigLIP, differentiable: loss and gradients come from one pass."""

import torch
from torch import Tensor

from .. import _check
from .._library import ops
from .gradients import needs_gradient, refuse_second_derivative
from .node import Layout, like
from .problem import Problem, joined


class _Sigmoid(torch.autograd.Function):
    @staticmethod
    def forward(ctx, bias, logit_bias, *apart):
        p, inputs = joined(*apart), ctx.needs_input_grad
        ctx.layout = Layout.of(p, inputs[2:])
        needs = ctx.layout.needs
        loss, dq, dk, sums = ops.sigmoid_contrast.default(
            *p, bias, logit_bias, needs.q or inputs[1], needs.k
        )
        ctx.save_for_backward(dq, dk, sums, p.logit_scale, logit_bias)
        ctx.scale = p.scale
        return loss

    @staticmethod
    def backward(ctx, grad):
        refuse_second_derivative()
        dq, dk, sums, logit_scale, logit_bias = ctx.saved_tensors
        inputs = ctx.needs_input_grad
        d_bias = like(grad * sums[1], logit_bias) if inputs[1] else None
        d_scale = None
        if ctx.layout.needs.scale:
            d_scale = like(grad * sums[0] * ctx.scale, logit_scale)
        return None, d_bias, *ctx.layout.gradients(dq, dk, None, d_scale, grad)


def sigmoid_sum(p: Problem, bias: float | Tensor = 0.0) -> Tensor:
    """Logistic loss of every row with every column in linear memory, summed over all pairs.

    Equal to ``-F.logsigmoid(sign * (scale * q @ k.T + bias)).sum()`` with sign 1 where the ids
    are equal and -1 elsewhere; without ids, as for the negatives of another rank, -1 everywhere.
    Where positives_in is False, pairs of equal ids are left out.

    Args:
        p: See `problem.problem`; with columns, and neither own nor both.
        bias: Added to every logit: a float, or a tensor of one element that receives a gradient.

    Returns:
        A scalar, float32 (float64 for float64 rows).

    Raises:
        ValueError: bias is not finite, has several elements or is on another device.
        TypeError: bias has a dtype that does not fit.
    """
    learned = isinstance(bias, Tensor)
    if learned:
        _check.scalar("bias", bias, p.q[0].device)
    else:
        _check.finite("bias", bias)
    biases = (0.0, bias) if learned else (float(bias), None)
    if needs_gradient(*p.q, *p.k, p.logit_scale, biases[1]):
        return _Sigmoid.apply(*biases, *p.apart())
    return ops.sigmoid_contrast.default(*p, *biases, False, False)[0]
