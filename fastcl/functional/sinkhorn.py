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
    ``q = q / q.sum(1, keepdim=True)``. Nothing overflows, whatever epsilon
    and dtype. Where torch.distributed runs several ranks, the sums over samples are those of all.

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
    everywhere = _ranks.world_size() > 1
    return assignments(scores, None, scale=scale, iterations=iterations, everywhere=everywhere)


@torch.no_grad()
def assignments(
    scores: Tensor,  # [n, m]
    older: Tensor | None,  # [r, m]
    *,
    scale: float,
    iterations: int,
    everywhere: bool,
) -> Tensor:
    """`sinkhorn` without its checks, `[n, m]`; older scores take part in it as more samples, and
    the sums over samples are those of all ranks where everywhere."""
    scores = scores.contiguous()
    older = None if older is None else older.contiguous()
    if not everywhere:
        return ops.sinkhorn(scores, older, scale, iterations)
    known = scores if older is None else torch.cat([scores, older])
    logarithms = ops.sinkhorn_columns(known, scale)
    potential = -_ranks.gather(logarithms[None], equal=True).logsumexp(0)
    for _ in range(iterations - 1):
        masses = ops.sinkhorn_masses(known, scale, potential)
        dist.all_reduce(masses)
        potential = potential - masses.log()
    return ops.sinkhorn_assign(scores, scale, potential)
