"""What the losses do with rows before and after the contrast."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _check
from ..reference import accumulate_dtype
from .unit_rows import unit_rows

# By how much rounding may tell two products of unit rows apart that are the same.
ULPS = 16


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


def wide(sides: tuple[Tensor, Tensor], rows: Tensor) -> list[Tensor]:
    """In the dtype that products of the rows accumulate in."""
    return [x.to(accumulate_dtype(rows.dtype)) for x in sides]


def held_to(own: Tensor, margin: float) -> Tensor:  # [n] -> [n]
    """What the similarities of a row are held to: its positive's and the margin.

    Another column of the same similarity stays below, though its product is rounded otherwise.
    """
    return own + (margin + ULPS * torch.finfo(own.dtype).eps)


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


def log_sum(s: Tensor, dim: int) -> Tensor:
    """``s.logsumexp(dim)``, without a gradient where everything is minus infinity."""
    if s.shape[dim] == 0:
        return s.new_full(s.sum(dim).shape, -torch.inf)
    some = ~(s == -torch.inf).all(dim, keepdim=True)
    sums = torch.where(some, s, 0).logsumexp(dim, keepdim=True)
    return torch.where(some, sums, -torch.inf).squeeze(dim)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) to the last digit of float64: torch takes x itself from 20 on."""
    return F.softplus(x, threshold=40)


def inverse_temperature(
    temperature: float | Tensor,  # [] or [n]
    n: int,
    device: torch.device,
) -> tuple[float | Tensor, Tensor | None]:
    """One over the temperature: of all rows, or 1 and that of each row, [n]."""
    if not isinstance(temperature, Tensor) or temperature.numel() == 1:
        return _check.inverse("temperature", temperature, device), None
    _check.vector("temperature", temperature, n, device)
    _check.above_zero("temperature", temperature)
    return 1.0, _check.reciprocal(temperature)


def times_scale(
    x: Tensor,  # [n, d]
    row_scale: Tensor | None,  # [n]
) -> Tensor:
    """Rows times one over their temperatures, in their dtype."""
    return x if row_scale is None else (x * row_scale[:, None]).to(x.dtype)
