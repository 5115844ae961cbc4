"""Features instead of samples: Barlow Twins."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _check
from ..reference import accumulate_dtype, no_autocast

VARIANCE_EPS = 1e-5  # of the batch normalisation in the authors' code


def barlow_twins(
    z0: Tensor,  # [n, d]
    z1: Tensor,  # [n, d]
    *,
    off_diagonal: float = 0.0051,
) -> Tensor:
    """Barlow Twins loss: the cross-correlation of the features of two views should be the identity.

    Equal to ``((c - eye(d)) ** 2 * (eye(d) + off_diagonal * (1 - eye(d)))).sum()`` with
    ``c = F.batch_norm(z0).T @ F.batch_norm(z1) / n`` in training mode, without parameters.

    Args:
        z0: First view `[n, d]`.
        z1: Second view `[n, d]`; row i belongs to row i of z0.
        off_diagonal: Weight of the d (d - 1) correlations of different features, 0 or more.

    Returns:
        The sum over all pairs of features, a scalar.

    Raises:
        ValueError: Shapes do not fit, less than two rows, or a weight that is negative.
        TypeError: Dtypes differ or are not floating point.

    Source: Zbontar et al. 2021, "Barlow Twins: Self-Supervised Learning via Redundancy
    Reduction", equations 1 and 2.
    """
    _check.pairs("z1", z1, "z0", z0)
    _check.at_least("z0", z0, 2, "a single row has no variance")
    if _check.finite("off_diagonal", off_diagonal) < 0:
        raise ValueError(f"off_diagonal must be 0 or more, got {off_diagonal}")
    dtype = accumulate_dtype(z0.dtype)
    with no_autocast(z0):
        a, b = (
            F.batch_norm(z.to(dtype), None, None, training=True, eps=VARIANCE_EPS) for z in (z0, z1)
        )
        c = a.T @ b / z0.shape[0]
        error = c - torch.eye(c.shape[0], dtype=dtype, device=c.device)
        # The diagonal is part of the first sum: no difference of large sums anywhere.
        diagonal = error.diagonal().square().sum()
        return off_diagonal * error.square().sum() + (1 - off_diagonal) * diagonal
