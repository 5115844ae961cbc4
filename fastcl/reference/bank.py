"""The update of a bank in plain PyTorch."""

import torch
from torch import Tensor

from .common import accumulate_dtype
from .unit_rows import SHORTEST


def bank_update_(
    bank: Tensor,  # [n, d]
    index: Tensor,  # [b] int64 rows of bank
    x: Tensor,  # [b, d] unit rows of any floating-point dtype
    momentum: float,
) -> None:
    """bank[index] = unit(momentum * bank[index] + (1 - momentum) * x), from the bank before.

    Where index has duplicates the last one wins: all of them write its row.
    """
    order = torch.arange(index.shape[0], device=index.device)
    last = torch.where(index[:, None] == index[None, :], order, -1).amax(1)
    dtype = accumulate_dtype(bank.dtype)
    rows = momentum * bank[index].to(dtype) + (1 - momentum) * x[last].to(dtype)
    rows = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp(min=SHORTEST)
    bank.index_copy_(0, index, rows.to(bank.dtype))
