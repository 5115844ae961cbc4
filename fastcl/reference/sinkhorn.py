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
