"""Views that may be wrong: robust InfoNCE."""

import math

import torch
from torch import Tensor

from .. import _check
from ..contrast.node import row_losses
from ..contrast.problem import problem
from .rows import row_products
from .unit_rows import unit_rows


def rince(
    z0: Tensor,  # [n, d]
    z1: Tensor,  # [n, d]
    *,
    temperature: float | Tensor = 0.5,
    q: float = 0.5,
    lam: float = 0.01,
    normalize: bool = True,
) -> Tensor:
    """Robust InfoNCE: pairs that do not agree pull less than in NT-Xent.

    Equal to ``((lam * (pos + neg)) ** q - pos ** q).mean() / q`` over both views with ``pos =
    exp(s[positive])`` and ``neg = exp(s[negatives]).sum(1)``.

    Args:
        z0: First view `[n, d]`.
        z1: Second view `[n, d]`; row i belongs to row i of z0.
        temperature: Positive; divides the similarities. A tensor of one element receives a
            gradient.
        q: Above 0, at most 1: towards 0 InfoNCE, at 1 the most robust. The loss grows as exp(q /
            temperature), which float32 holds up to 88.
        lam: Positive, the weight of all columns beside the positive.
        normalize: False where all rows have unit length already.

    Returns:
        The mean over all 2n rows, a scalar, which may be negative.

    Raises:
        ValueError: Shapes do not fit, an empty batch, a temperature or lam that is not positive, or
            q out of range.
        TypeError: Dtypes differ or are not floating point.

    Source: Chuang et al. 2022, "Robust Contrastive Learning against Noisy Views", equation 4.
    """
    _check.pairs("z1", z1, "z0", z0)
    scale = _check.inverse("temperature", temperature, z0.device)
    if _check.positive("q", q) > 1:
        raise ValueError(f"q must be 1 at most, got {q}")
    log_lam, n = math.log(_check.positive("lam", lam)), len(z0)
    z = unit_rows(z0, z1) if normalize else torch.cat([z0, z1])
    ids = torch.arange(2 * n, device=z.device).remainder_(n)
    found = row_losses(problem(z, scale=scale, ids=ids, normalize=False))
    positive = scale * row_products(z[:n], z[n:]).repeat(2)
    # The second factor of e^a - e^b = e^b (e^(a - b) - 1) knows a loss near zero to all digits.
    return ((q * positive).exp() * torch.expm1(q * (log_lam + found.loss))).mean() / q
