"""What the losses do with rows before and after the contrast."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _check
from ..reference import accumulate_dtype


def unit_rows(x: Tensor) -> Tensor:
    """Rows divided by their length.

    Equal to ``F.normalize(x.float(), dim=1, eps=1e-12).to(x.dtype)``.

    Args:
        x: `[n, d]`.

    Returns:
        `[n, d]` in the dtype of x; a zero row stays zero.
    """
    return F.normalize(x.to(accumulate_dtype(x.dtype)), dim=1, eps=1e-12).to(x.dtype)


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


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """The mean or the sum of a loss per row [n], or all of it."""
    if reduction == "mean":
        return loss.mean()
    return loss.sum() if reduction == "sum" else loss


def two_views(z0: Tensor, z1: Tensor, normalize: bool) -> tuple[Tensor, Tensor]:
    """Both views as unit rows [2n, d] and the id that a row shares with its other view [2n]."""
    _check.pairs("z1", z1, "z0", z0)
    z = torch.cat([z0, z1])
    ids = torch.arange(z0.shape[0], device=z.device).repeat(2)
    return unit_rows(z) if normalize else z, ids
