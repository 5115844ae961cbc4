"""Negatives that may be positives: debiased and hard-negative weighted contrastive losses."""

import math
from typing import Any

import torch
from torch import Tensor

from .. import _check
from ..contrast.node import row_losses
from ..contrast.problem import problem
from .rows import row_products, softplus
from .unit_rows import unit_rows


def debiased(
    z0: Tensor,  # [n, d]
    z1: Tensor,  # [n, d]
    *,
    temperature: float | Tensor = 0.5,
    tau_plus: float = 0.1,
    normalize: bool = True,
) -> Tensor:
    """Debiased contrastive loss: NT-Xent less the positives among the negatives, as expected.

    Equal to ``-log(pos / (pos + g)).mean()`` over both views with ``pos = exp(s[positive])``, ``g =
    ((exp(s[negatives]).sum(1) - tau_plus * N * pos) / (1 - tau_plus)).clamp(min=N * exp(-1 /
    temperature))`` and ``N = 2 * n - 2`` negatives of every row.

    Args:
        z0: First view `[n, d]`.
        z1: Second view `[n, d]`; row i belongs to row i of z0.
        temperature: Positive; divides the similarities. A tensor of one element receives a
            gradient.
        tau_plus: From 0 to below 1, the share of negatives that are positives in truth.
        normalize: False where all rows have unit length already.

    Returns:
        The mean over all 2n rows, a scalar.

    Raises:
        ValueError: Shapes do not fit, less than two pairs, a temperature that is not positive, or
            tau_plus out of range.
        TypeError: Dtypes differ or are not floating point.

    Source: Chuang et al. 2020, "Debiased Contrastive Learning", equation 8, with the authors'
    estimator of one positive.
    """
    return _weighted(z0, z1, temperature, tau_plus, 0.0, normalize)


def hcl(
    z0: Tensor,  # [n, d]
    z1: Tensor,  # [n, d]
    *,
    temperature: float | Tensor = 0.5,
    tau_plus: float = 0.1,
    beta: float = 1.0,
    normalize: bool = True,
) -> Tensor:
    """Hard-negative weighted contrastive loss: `debiased` with negatives that count the more the
    nearer they are.

    Equal to `debiased` with ``(w * exp(s[negatives])).sum(1) / w.mean(1)`` in place of the sum, and
    weights ``w = exp(beta * s[negatives])``.

    Args:
        z0: First view `[n, d]`.
        z1: Second view `[n, d]`; row i belongs to row i of z0.
        temperature: Positive; divides the similarities. A tensor of one element receives a
            gradient.
        tau_plus: From 0 to below 1, the share of negatives that are positives in truth.
        beta: Not negative: 0 is `debiased`.
        normalize: False where all rows have unit length already.

    Returns:
        The mean over all 2n rows, a scalar.

    Raises:
        ValueError: As for `debiased`, or a beta that is negative.
        TypeError: Dtypes differ or are not floating point.

    Source: Robinson et al. 2021, "Contrastive Learning with Hard Negative Samples", equation 4. As
    in the authors' code the weights receive gradients too.
    """
    if _check.finite("beta", beta) < 0:
        raise ValueError(f"beta must not be negative, got {beta}")
    return _weighted(z0, z1, temperature, tau_plus, beta, normalize)


def _weighted(z0, z1, temperature, tau_plus, beta, normalize) -> Tensor:
    _check.pairs("z1", z1, "z0", z0)
    scale = _check.inverse("temperature", temperature, z0.device)
    if not 0 <= _check.finite("tau_plus", tau_plus) < 1:
        raise ValueError(f"tau_plus must be from 0 to below 1, got {tau_plus}")
    _check.at_least("z0", z0, 2, "a single pair has no negative")
    n = len(z0)
    z = unit_rows(z0, z1) if normalize else torch.cat([z0, z1])
    count = math.log(2 * n - 2)

    def log_sum(factor: float) -> Tensor:
        ids = torch.arange(2 * n, device=z.device).remainder_(n)
        options: dict[str, Any] = {"ids": ids, "positives_in": False, "normalize": False}
        found = row_losses(problem(z, scale=scale * factor, **options))
        return found.loss + found.positive

    negatives = log_sum(1 + beta)
    if beta > 0:
        negatives = negatives - log_sum(beta) + count
    positive = scale * row_products(z[:n], z[n:]).repeat(2)
    away = negatives - positive  # logarithms from here on: exponentials may overflow
    if tau_plus > 0:
        taken = math.log(tau_plus) + count
        left = away > taken
        share = torch.where(left, torch.exp(taken - torch.where(left, away, taken + 1)), 0)
        away = torch.where(left, away + torch.log1p(-share), -torch.inf) - math.log(1 - tau_plus)
    least = count - scale - positive
    return softplus(torch.where(away > least, away, least)).mean()
