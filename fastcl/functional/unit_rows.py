"""Rows divided by their length."""

import torch
from torch import Tensor

from .. import _check
from .._library import ops
from ..contrast.gradients import needs_gradient, refuse_second_derivative


class _UnitRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *parts):
        y, lengths = ops.unit_rows_forward(parts)
        ctx.save_for_backward(lengths, *parts)
        return y

    @staticmethod
    def backward(ctx, grad):
        refuse_second_derivative()
        lengths, *parts = ctx.saved_tensors
        dx = ops.unit_rows_backward(grad.contiguous(), parts, lengths)
        return dx if len(parts) == 1 else dx.split([x.shape[0] for x in parts])


def unit_rows(x: Tensor, *more: Tensor) -> Tensor:
    """Rows divided by their length, of one matrix or of several below each other.

    Equal to ``F.normalize(cat([x, *more]).float(), dim=1, eps=1e-12).to(x.dtype)``, but for the
    gradient of a row shorter than 1e-12, which is zero and not a number of 12 digits.

    Args:
        x: `[n, d]`.
        more: Matrices of the same width and dtype.

    Returns:
        `[sum of n, d]` in the dtype of x; a zero row stays zero.

    Raises:
        ValueError: Not matrices of one width on one device, or empty ones.
        TypeError: Not floating point, or different dtypes.
    """
    _check.no_transform()
    _check.rows("x", x)
    for y in more:
        _check.rows("more", y, ("x", x))
    parts = [part.contiguous() for part in (x, *more)]
    return _UnitRows.apply(*parts) if needs_gradient(*parts) else ops.unit_rows_forward(parts)[0]
