"""Features instead of samples: VICReg."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _check
from ..reference import accumulate_dtype, no_autocast

VARIANCE_EPS = 1e-4  # under the root, of the authors' code


def vicreg(
    z0: Tensor,  # [n, d]
    z1: Tensor,  # [n, d]
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
) -> Tensor:
    """VICReg loss: two views agree, every feature varies, and different features do not covary.

    Equal to ``invariance * F.mse_loss(z0, z1) + variance * (v(z0) + v(z1)) / 2 + covariance *
    (c(z0) + c(z1))`` with ``v(z) = (1 - (z.var(0) + 1e-4).sqrt()).relu().mean()`` and ``c(z) =
    (z.T.cov() * (1 - eye(d))).square().sum() / d``.

    With fewer rows than features the n x n products of centred rows stand for the d x d covariance,
    whose squares have the same sum.

    Args:
        z0: First view `[n, d]`.
        z1: Second view `[n, d]`; row i belongs to row i of z0.
        invariance: Weight of the distance of both views, 0 or more.
        variance: Weight of the hinge at a standard deviation of 1, 0 or more.
        covariance: Weight of the covariances of different features, 0 or more.

    Returns:
        A scalar.

    Raises:
        ValueError: Shapes do not fit, less than two rows, or a weight that is negative.
        TypeError: Dtypes differ or are not floating point.

    Source: Bardes et al. 2022, "VICReg: Variance-Invariance-Covariance Regularization for
    Self-Supervised Learning", equations 1 to 6; weights and means as in the authors' code.
    """
    _check.pairs("z1", z1, "z0", z0)
    _check.at_least("z0", z0, 2, "a single row has no variance")
    weights = {"invariance": invariance, "variance": variance, "covariance": covariance}
    for name, weight in weights.items():
        if _check.finite(name, weight) < 0:
            raise ValueError(f"{name} must be 0 or more, got {weight}")
    with no_autocast(z0):
        a, b = (z.to(accumulate_dtype(z.dtype)) for z in (z0, z1))
        loss = invariance * F.mse_loss(a, b)
        for z in (a, b):
            spread, mixed = spread_and_mixed(z)
            loss = loss + variance / 2 * spread + covariance * mixed
        return loss


def spread_and_mixed(
    z: Tensor,  # [n, d]
    eps: float = VARIANCE_EPS,
) -> tuple[Tensor, Tensor]:
    """How far features are from a deviation of one, and how much different ones covary."""
    n, d = z.shape
    z = z - z.mean(0)
    own = z.square().sum(0) / (n - 1)  # the diagonal of the covariance
    spread = F.relu(1 - (own + eps).sqrt()).mean()
    if n < d:  # rows are too few for a covariance that is nearly diagonal: nothing cancels
        return spread, ((z @ z.T / (n - 1)).square().sum() - own.square().sum()) / d
    c = z.T @ z / (n - 1)
    return spread, (c - torch.diag(c.diagonal())).square().sum() / d
