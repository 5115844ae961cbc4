"""The sigmoid contrast in plain PyTorch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import accumulate_dtype, logits, no_autocast


def sigmoid_contrast(
    q: Tensor,  # [n, d]
    k: Tensor,  # [m, d]
    scale: float,
    logit_scale: Tensor | None,  # [] multiplies scale
    bias: float,
    logit_bias: Tensor | None,  # [] added to bias
    row_ids: Tensor | None,  # [n] int64; None: no column is a positive
    col_ids: Tensor | None,  # [m] int64
    need_q: bool,
    need_k: bool,
    positives_in: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sum over all pairs of -log sigmoid(y_ij (s_ij + b)), and its gradients, in one pass.

    s_ij = scale * logit_scale * <q_i, k_j>; b = bias + logit_bias; y_ij is 1 where the ids are
    equal and -1 elsewhere. With t_ij = s_ij + b, dL/dt_ij = -y_ij sigmoid(-y_ij t_ij). Where
    positives_in is False, pairs of equal ids are left out.

    Returns:
        loss []; dq [n, d] and dk [m, d], [0, d] where not needed; and [2]: the sums of
        dL/dt_ij * <q_i, k_j>, the derivative to the whole scale, and of dL/dt_ij, the derivative
        to the bias. All in the accumulation dtype; zeros in [2] where neither dq nor dk is needed.
    """
    dtype = accumulate_dtype(q.dtype)
    with no_autocast(q):
        s = logits(q, k, scale, logit_scale)
        t = s + bias if logit_bias is None else s + (bias + logit_bias.to(dtype))
        y = torch.full_like(t, -1)
        if row_ids is not None:
            same = row_ids[:, None] == col_ids[None, :]
            y = torch.where(same, 1, y) if positives_in else y.masked_fill(same, 0)
        losses = -F.logsigmoid(y * t)
        loss = losses.masked_fill(y == 0, 0).sum()
        dq = dk = s.new_empty(0, q.shape[1])
        sums = s.new_zeros(2)
        if need_q or need_k:
            g = -y * torch.sigmoid(-y * t)
            total = scale if logit_scale is None else scale * logit_scale.to(dtype)
            sums = torch.stack([(g * s).sum() / total, g.sum()])
            dq = (g @ k.to(dtype)) * total if need_q else dq
            dk = (g.T @ q.to(dtype)) * total if need_k else dk
    return loss, dq, dk, sums
