"""The sigmoid contrast in plain PyTorch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..contrast.problem import Problem
from .common import accumulate_dtype, logits, no_autocast
from .contrast import divided, undivided


def sigmoid_contrast(
    p: Problem,
    bias: float,
    logit_bias: Tensor | None,  # [] added to bias
    need_q: bool,
    need_k: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sum over all pairs of -log sigmoid(y_ij (s_ij + b)), and its gradients, in one pass.

    s_ij = scale * logit_scale * <q_i, k_j>; b = bias + logit_bias; y_ij is 1 where the ids are
    equal and -1 elsewhere. With t_ij = s_ij + b, dL/dt_ij = -y_ij sigmoid(-y_ij t_ij). Where
    positives_in is False, pairs of equal ids are left out. k is not empty, and of the problem's
    other options none is used.

    Returns:
        loss []; dq [n, d] and dk [m, d] of the rows before they were divided, [0, d] where not
        needed; and [2]: the sums of dL/dt_ij * <q_i, k_j>, the derivative to the whole scale, and
        of dL/dt_ij, the derivative to the bias. All in the accumulation dtype; zeros in [2] where
        neither dq nor dk is needed.
    """
    q, k, _, lengths = divided(p)
    scale, logit_scale, (row_ids, col_ids) = p.scale, p.logit_scale, p.ids
    dtype = accumulate_dtype(q.dtype)
    with no_autocast(q):
        s = logits(q, k, scale, logit_scale)
        t = s + bias if logit_bias is None else s + (bias + logit_bias.to(dtype))
        y = torch.full_like(t, -1)
        if row_ids is not None:
            same = row_ids[:, None] == col_ids[None, :]
            y = torch.where(same, 1, y) if p.positives_in else y.masked_fill(same, 0)
        losses = -F.logsigmoid(y * t)
        loss = losses.masked_fill(y == 0, 0).sum()
        dq, dk = s.new_empty(0, p.width), s.new_empty(0, p.width)
        sums = s.new_zeros(2)
        if need_q or need_k:
            g = -y * torch.sigmoid(-y * t)
            total = scale if logit_scale is None else scale * logit_scale.to(dtype)
            sums = torch.stack([(g * s).sum() / total, g.sum()])
            dq = (g @ k.to(dtype)) * total if need_q else dq
            dk = (g.T @ q.to(dtype)) * total if need_k else dk
    dq, dk = undivided(((dq, p.q), (dk, p.k)), lengths)
    return loss, dq, dk, sums
