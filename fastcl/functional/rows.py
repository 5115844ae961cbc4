"""What the losses do with rows before and after the contrast."""

import torch
from torch import Tensor

from .. import _check
from .._gradients import needs_gradient, refuse_second_derivative
from .._library import ops
from ..contrast import contrast, raw_contrast
from ..reference import accumulate_dtype


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


def row_products(a: Tensor, b: Tensor) -> Tensor:
    """Products of the rows of two matrices that belong together.

    Equal to ``(a.float() * b.float()).sum(1)``.

    Args:
        a: `[n, d]`.
        b: `[n, d]`.

    Returns:
        `[n]` in float32 (float64 for float64 rows).
    """
    dtype = accumulate_dtype(a.dtype)
    return (a.to(dtype) * b.to(dtype)).sum(1)


def crossed_cosines(
    p1: Tensor,  # [n, d]
    p2: Tensor,  # [n, d]
    z1: Tensor,  # [n, d]
    z2: Tensor,  # [n, d]
    normalize: bool,
) -> Tensor:
    """The mean over the batch of cos(p1, z2) + cos(p2, z1) with constant z1 and z2."""
    _check.pairs("p2", p2, "p1", p1)
    _check.pairs("z1", z1, "p1", p1)
    _check.pairs("z2", z2, "p1", p1)
    p, z = torch.cat([p1, p2]), torch.cat([z2, z1]).detach()
    if normalize:
        p, z = unit_rows(p), unit_rows(z)
    return row_products(p, z).sum() / p1.shape[0]


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """The mean or the sum of a loss per row [n], or all of it."""
    if reduction == "mean":
        return loss.mean()
    return loss.sum() if reduction == "sum" else loss


def self_contrast(
    *views: Tensor,  # [n, d] each
    scale: float,
    ids: Tensor,  # [sum of n] int64
    normalize: bool,
    positives_in: bool = True,
) -> tuple[Tensor, Tensor]:
    """Loss and number of positives of every row of all views against the other rows."""
    if normalize:
        return raw_contrast(*views, scale=scale, ids=ids, positives_in=positives_in)[:2]
    result = contrast(torch.cat(views), scale=scale, ids=ids, positives_in=positives_in)
    return result.loss, result.count
