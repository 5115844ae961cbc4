"""Balanced assignments: Sinkhorn-Knopp."""

import torch
import torch.distributed as dist
from torch import Tensor

from .. import _check, _ranks
from .._library import ops


@torch.no_grad()
def sinkhorn(
    scores: Tensor,  # [n, m]
    *,
    epsilon: float = 0.05,
    iterations: int = 3,
) -> Tensor:
    """Assignments of samples to prototypes that use all prototypes alike.

    Equal to ``q = exp(scores / epsilon)``, then iterations times ``q = q / q.sum(0)`` and
    ``q = q / q.sum(1, keepdim=True)``. It runs in the log domain: nothing overflows, whatever
    epsilon and dtype. Where torch.distributed runs several ranks, the sums over samples are those
    of all ranks.

    Args:
        scores: `[n, m]`, of sample i with prototype j; receives no gradient.
        epsilon: Positive; divides the scores. The smaller, the harder the assignments.
        iterations: How often both sides are scaled, 1 or more.

    Returns:
        `[n, m]`, rows that sum to one, in float32 (float64 for float64 scores).

    Raises:
        ValueError: Not a matrix, an empty one, an epsilon that is not positive, or no iteration.
        TypeError: Scores that are not floating point.

    Source: Cuturi 2013, "Sinkhorn Distances"; Caron et al. 2020, "Unsupervised Learning of Visual
    Features by Contrasting Cluster Assignments", equation 3.
    """
    _check.rows("scores", scores)
    scale = 1 / _check.positive("epsilon", epsilon)
    _check.count("iterations", iterations)
    scores = scores.detach().contiguous()
    potential = -_log_total(ops.sinkhorn_columns(scores, scale))
    for _ in range(iterations - 1):
        masses = ops.sinkhorn_masses(scores, scale, potential)
        if _ranks.world_size() > 1:
            dist.all_reduce(masses)
        potential = potential - masses.log()
    return ops.sinkhorn_assign(scores, scale, potential)


def _log_total(
    logarithm: Tensor,  # [m]
) -> Tensor:
    """The logarithm of the sum over ranks, from one collective."""
    if _ranks.world_size() == 1:
        return logarithm
    return _ranks.gather(logarithm[None], equal=True).logsumexp(0)
