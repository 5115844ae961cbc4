"""The product of two matrices, with the same bits for any number of threads.

The BLAS of torch divides a product by their number, and sums its parts in another order each time.
"""

import torch
from torch import Tensor

from .._library import ops
from ..contrast.gradients import needs_gradient, refuse_second_derivative


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b, a_turned, b_turned):
        ctx.save_for_backward(a, b)
        ctx.turned = a_turned, b_turned
        return ops.product(a, b, a_turned, b_turned)

    @staticmethod
    def backward(ctx, grad):
        refuse_second_derivative()
        (a, b), (a_turned, b_turned) = ctx.saved_tensors, ctx.turned
        grad, da, db = grad.contiguous(), None, None
        if ctx.needs_input_grad[0]:
            sides = (b, grad, b_turned, True) if a_turned else (grad, b, False, not b_turned)
            da = ops.product(*sides)
        if ctx.needs_input_grad[1]:
            sides = (grad, a, True, a_turned) if b_turned else (a, grad, not a_turned, False)
            db = ops.product(*sides)
        return da, db, None, None


def product(
    a: Tensor,  # [n, c], or [c, n] where turned
    b: Tensor,  # [c, d], or [d, c] where turned
    *,
    a_turned: bool = False,
    b_turned: bool = False,
) -> Tensor:
    """``a @ b``, `[n, d]`, or of what is turned its transpose; float32 or float64."""
    a, b = a.contiguous(), b.contiguous()
    if needs_gradient(a, b):
        return _Product.apply(a, b, a_turned, b_turned)
    return ops.product(a, b, a_turned, b_turned)
