"""The three passes of Sinkhorn-Knopp in plain PyTorch, in the log domain.

With s_ij = scale * scores_ij the assignment is exp(s_ij + u_j + v_i); v follows from u, because
rows sum to one. Only the potential u of the columns is kept.
"""

import torch
from torch import Tensor

from .common import accumulate_dtype


def _logits(scores: Tensor, scale: float) -> Tensor:
    return scores.to(accumulate_dtype(scores.dtype)) * scale


def sinkhorn_columns(
    scores: Tensor,  # [n, m]
    scale: float,
) -> Tensor:
    """log sum_i exp(s_ij) of every column, [m]: minus it, u after the first scaling of columns."""
    return _logits(scores, scale).logsumexp(0)


def sinkhorn_masses(
    scores: Tensor,  # [n, m]
    scale: float,
    potential: Tensor,  # [m] u, in the accumulation dtype
) -> Tensor:
    """Column sums of the assignment whose rows are scaled to one, [m].

    After a scaling of the columns they lie in [1 / m, n]: every row of the scaled matrix sums to
    m at most, and every column to one. So log(masses) is what the next scaling takes from u.
    """
    return sinkhorn_assign(scores, scale, potential).sum(0)


def sinkhorn_assign(
    scores: Tensor,  # [n, m]
    scale: float,
    potential: Tensor,  # [m]
) -> Tensor:
    """The assignment [n, m]: softmax over the columns of s_ij + u_j, in the accumulation dtype."""
    return torch.softmax(_logits(scores, scale) + potential, dim=1)


def sinkhorn(
    scores: Tensor,  # [n, m]
    older: Tensor | None,  # [r, m] rows that take part and are not assigned
    scale: float,
    iterations: int,  # 1 or more
) -> Tensor:
    """The assignment [n, m] of the scores, in the accumulation dtype, after so many rounds.

    Made of the operators above, of which a device may have kernels where it has none for all.
    """
    known = scores if older is None else torch.cat([scores, older])
    potential = -torch.ops.fastcl.sinkhorn_columns(known, scale)
    for _ in range(iterations - 1):
        masses = torch.ops.fastcl.sinkhorn_masses(known, scale, potential)
        potential = potential - masses.log()
    return torch.ops.fastcl.sinkhorn_assign(scores, scale, potential)
