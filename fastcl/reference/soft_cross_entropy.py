"""Cross-entropy with soft targets in plain PyTorch."""

import torch
from torch import Tensor

from .common import accumulate_dtype


def soft_cross_entropy(
    scores: Tensor,  # [n, m]
    target: Tensor,  # [n, m] in the dtype of scores or the accumulation dtype
    scale: float,
    factor: float,
    need_scores: bool,
) -> tuple[Tensor, Tensor]:
    """Sum over the rows of the cross-entropy of scaled scores with targets of any weight.

        t_ij = scale * scores_ij,   w_i = sum_j q_ij,   p_i = softmax(t_i)
        loss = sum_i -sum_j q_ij log p_ij,   d loss / d t_ij = w_i p_ij - q_ij

    Returns:
        loss [] in the accumulation dtype, and factor * d loss / d t [n, m] in the dtype of scores,
        [0, m] where not needed.
    """
    dtype = accumulate_dtype(scores.dtype)
    log_p, q = torch.log_softmax(scores.to(dtype) * scale, 1), target.to(dtype)
    loss = -(q * log_p).sum()
    if not need_scores:
        return loss, scores.new_empty(0, scores.shape[1])
    grad = (q.sum(1, keepdim=True) * log_p.exp() - q) * factor
    return loss, grad.to(scores.dtype)
