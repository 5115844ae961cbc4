"""The shape of a set of features: alignment, uniformity, spread, effective rank."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _check
from ..contrast.node import row_losses
from ..contrast.problem import problem
from ..functional import unit_rows

# Rows in one product of float64: 4096 x 2048 numbers are 64 MB.
BLOCK = 4096


def _precise(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def alignment(x: Tensor, y: Tensor, *, alpha: float = 2.0) -> float:
    """How far apart the features of two views of an image are; 0 where they are one.

    Equal to ``(F.normalize(x) - F.normalize(y)).norm(dim=1).pow(alpha).mean()``.

    Args:
        x: Features `[n, d]` of one view, normalised here.
        y: Features `[n, d]` of the other view of the same images.
        alpha: Power of the distance.

    Raises:
        ValueError: Shapes differ, or alpha is not positive.
        TypeError: Dtypes differ or are not floating point.

    Source: Wang and Isola 2020, "Understanding Contrastive Representation Learning through
    Alignment and Uniformity on the Hypersphere", section 4.1.
    """
    _check.pairs("y", y, "x", x)
    alpha = _check.positive("alpha", alpha)
    apart = F.normalize(_precise(x), dim=1) - F.normalize(_precise(y), dim=1)
    return apart.norm(dim=1).pow(alpha).mean().item()


@torch.no_grad()
def uniformity(x: Tensor, *, t: float = 2.0) -> float:
    """How evenly features fill the sphere: from 0, all at one point, towards -2 t.

    Equal to ``torch.pdist(F.normalize(x)).square().mul(-t).exp().mean().log()``, in linear memory:
    for unit rows ``-t |x - y|^2`` is ``2 t <x, y> - 2 t``, so the sum over pairs is the denominator
    of fastcl's own contrast at scale 2 t.

    Args:
        x: Features `[n, d]`, normalised here. Rows of zeros count as one more direction, at right
            angles to all others.
        t: Positive; weight of the squared distance.

    Raises:
        ValueError: Fewer than two rows, or t is not positive.
        TypeError: Rows that are not floating point.

    Source: Wang and Isola 2020 (see `alignment`), section 4.1.
    """
    _check.rows("x", x)
    t, n = _check.positive("t", t), x.shape[0]
    if n < 2:
        raise ValueError(f"x must have two rows or more, got {n}")
    z = unit_rows(_precise(x))
    empty = (z == 0).all(dim=1, keepdim=True)
    if empty.any():
        z = torch.cat([z, empty.to(z.dtype)], dim=1)
    lse = row_losses(
        problem(z, scale=2 * t, normalize=False)
    ).loss  # no ids, so no positive is subtracted
    return (lse.double().logsumexp(0) - math.log(n * (n - 1)) - 2 * t).item()


def dimension_spread(x: Tensor) -> Tensor:
    """Deviation of every dimension of the normalised rows, as a share of an even spread.

    Equal to ``F.normalize(x).std(0, correction=0) * d**0.5``: all zero where the rows are one
    direction, about one where they point everywhere.

    Args:
        x: Features `[n, d]`.

    Returns:
        `[d]` in float32 (float64 for float64 rows).

    Source: Chen and He 2021, "Exploring Simple Siamese Representation Learning", section 4.1.
    """
    _check.rows("x", x)
    return F.normalize(_precise(x), dim=1).std(0, correction=0) * x.shape[1] ** 0.5


def singular_values(x: Tensor, *, center: bool = False) -> Tensor:
    """Singular values of the rows, falling.

    Equal to ``torch.linalg.svdvals(x - x.mean(0) if center else x)``, from the d x d products
    summed in float64 a block of rows at a time; values below 1e-8 of the largest are noise.

    Args:
        x: Features `[n, d]`.
        center: Take the mean off first.

    Returns:
        `[d]` float64, of which at most n are not zero.
    """
    _check.rows("x", x)
    d = x.shape[1]
    mean = x.double().mean(0) if center else x.new_zeros(d, dtype=torch.float64)
    products = x.new_zeros(d, d, dtype=torch.float64)
    for block in x.split(BLOCK):
        block = block.double() - mean
        products += block.T @ block
    if not products.isfinite().all():
        return torch.full_like(mean, float("nan"))
    return torch.linalg.eigvalsh(products).clamp(min=0).sqrt().flip(0)


def effective_rank(x: Tensor, *, center: bool = False) -> float:
    """Over how many directions the rows spread: exp of the entropy of their singular values.

    Equal to ``exp(-(p * p.log()).sum())`` with ``s = torch.linalg.svdvals(x); p = s / s.sum()``;
    d where all directions are equally strong, 1 where there is one, 0 where all rows are zero.

    Args:
        x: Features `[n, d]`.
        center: Take the mean off first; RankMe does not.

    Source: Garrido et al. 2023, "RankMe: Assessing the Downstream Performance of Pretrained
    Self-Supervised Representations by Their Rank", equation 1 without its 1e-7.
    """
    values = singular_values(x, center=center)
    total = values.sum()
    if total == 0:
        return 0.0
    p = values / total
    return torch.special.entr(p).sum().exp().item()
