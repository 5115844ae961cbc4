"""The decoupled loss with weighted positives: DCLW."""

import torch
from torch import Tensor

from .. import _check
from ..contrast.node import row_losses
from ..contrast.problem import problem
from .rows import row_products
from .unit_rows import unit_rows


def dclw(
    z0: Tensor,  # [n, d]
    z1: Tensor,  # [n, d]
    *,
    temperature: float | Tensor = 0.1,
    sigma: float = 0.5,
    normalize: bool = True,
) -> Tensor:
    """Decoupled contrastive loss in which pairs that agree already count less.

    Equal to ``dcl(z0, z1) + ((1 - w) * s).mean()`` with ``s`` the cosine of every pair divided by
    the temperature and constant weights ``w = 2 - n * softmax(s * temperature / sigma)``.

    Args:
        z0: First view `[n, d]`.
        z1: Second view `[n, d]`; row i belongs to row i of z0.
        temperature: Positive; divides the similarities. A tensor of one element receives a
            gradient.
        sigma: Positive; divides the similarities in the weights: the smaller, the more they
            differ.
        normalize: False where all rows have unit length already.

    Returns:
        The mean over all 2n rows, a scalar.

    Raises:
        ValueError: Shapes do not fit, less than two pairs, a temperature or sigma that is not
            positive.
        TypeError: Dtypes differ or are not floating point.

    Source: Yeh et al. 2022, "Decoupled Contrastive Learning", section 3.2; the weights are those
    of a von Mises-Fisher distribution.
    """
    _check.pairs("z1", z1, "z0", z0)
    scale = _check.inverse("temperature", temperature, z0.device)
    _check.positive("sigma", sigma)
    _check.at_least("z0", z0, 2, "a single pair has no negative")
    n = z0.shape[0]
    z = unit_rows(z0, z1) if normalize else torch.cat([z0, z1])
    ids = torch.arange(2 * n, device=z.device).remainder_(n)
    result = row_losses(problem(z, scale=scale, ids=ids, positives_in=False, normalize=False))
    with torch.no_grad():
        surplus = n * (row_products(z[:n], z[n:]) / sigma).softmax(0) - 1  # 1 - w
    return (result.loss + surplus.repeat(2) * result.positive).mean()
