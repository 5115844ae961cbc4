"""The queue in plain PyTorch."""

import torch
from torch import Tensor

from .common import accumulate_dtype
from .unit_rows import SHORTEST


def queue_push_(
    queue: Tensor,  # [K, d]
    pointer: Tensor,  # [] int64: rows pushed so far
    rows: Tensor,  # [b, d]
    normalize: bool = False,
) -> None:
    """Write rows at pointer modulo K, the last K of them where b > K, and advance pointer by b.

    With normalize each is divided by its length, rounded once, to the dtype of the queue.
    """
    size, pushed = queue.shape[0], rows.shape[0]
    kept = min(size, pushed)
    new = rows[pushed - kept :]
    if normalize:
        new = new.to(accumulate_dtype(rows.dtype))
        new = torch.nn.functional.normalize(new, dim=1, eps=SHORTEST)
    offset = torch.arange(pushed - kept, pushed, device=queue.device)
    queue.index_copy_(0, (pointer + offset) % size, new.to(queue.dtype))
    pointer.add_(pushed)
