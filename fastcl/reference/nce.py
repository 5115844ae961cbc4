"""Noise-contrastive estimation against rows of a bank in plain PyTorch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import accumulate_dtype, no_autocast


def nce(
    x: Tensor,  # [b, d]
    bank: Tensor,  # [n, d] of any floating-point dtype
    index: Tensor,  # [b, 1 + K] int64 rows of bank, the positive first
    scale: float,
    bias: float,
    log_normalizer: Tensor | None,  # [] taken from bias
    offset: Tensor | None,  # [n] added to the logits of a bank row
    need_x: bool,
) -> tuple[Tensor, Tensor]:
    """Logistic loss of every row with its positive and its K noise rows, and its gradient.

        t_ij = scale * <x_i, bank[index_ij]> + bias - log_normalizer + offset[index_ij]
        loss_i = log(1 + exp(-t_i0)) + sum_{j > 0} log(1 + exp(t_ij))

    Returns:
        loss [b] and d loss_i / d x_i [b, d], [0, d] where not needed, in the accumulation dtype.
    """
    dtype = accumulate_dtype(x.dtype)
    with no_autocast(x):
        rows = bank[index].to(dtype)
        t = torch.einsum("bd,bkd->bk", x.to(dtype), rows) * scale + bias
        if log_normalizer is not None:
            t = t - log_normalizer.to(dtype)
        if offset is not None:
            t = t + offset[index].to(dtype)
        sign = torch.ones_like(t)
        sign[:, 0] = -1
        loss = F.softplus(sign * t).sum(1)
        dx = t.new_empty(0, x.shape[1])
        if need_x:
            g = sign * torch.sigmoid(sign * t)
            dx = torch.einsum("bk,bkd->bd", g, rows) * scale
    return loss, dx
