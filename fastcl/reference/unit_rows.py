"""Rows of unit length in plain PyTorch."""

import torch
from torch import Tensor

from .common import accumulate_dtype

SHORTEST = 1e-12


def unit_rows_forward(
    parts: list[Tensor],  # [n, d] each, n may differ
) -> tuple[Tensor, Tensor]:
    """The rows of all parts divided by their length, but at least 1e-12, and the lengths.

    Returns:
        y [n, d] in the dtype of the parts, lengths [n] in the accumulation dtype.
    """
    x = torch.cat(parts)
    rows = x.to(accumulate_dtype(x.dtype))
    lengths = torch.linalg.vector_norm(rows, dim=1)
    return (rows / lengths.clamp(min=SHORTEST)[:, None]).to(x.dtype), lengths


def unit_rows_backward(
    grad: Tensor,  # [n, d] in the dtype of the parts
    parts: list[Tensor],  # [n, d] each
    lengths: Tensor,  # [n]
) -> Tensor:
    """dx = (grad - y <y, grad>) / |x|, [n, d]; zero for a row shorter than 1e-12."""
    inverse = torch.where(lengths < SHORTEST, 0, 1 / lengths)[:, None]
    y = torch.cat(parts).to(lengths.dtype) * inverse
    g = grad.to(lengths.dtype)
    return ((g - y * (y * g).sum(1, keepdim=True)) * inverse).to(grad.dtype)
