"""The queue in plain PyTorch."""

import torch
from torch import Tensor


def queue_push_(
    queue: Tensor,  # [K, d]
    pointer: Tensor,  # [] int64: rows pushed so far
    rows: Tensor,  # [b, d]
) -> None:
    """Write rows at pointer modulo K, the last K of them where b > K, and advance pointer by b."""
    size, pushed = queue.shape[0], rows.shape[0]
    kept = min(size, pushed)
    offset = torch.arange(pushed - kept, pushed, device=queue.device)
    queue.index_copy_(0, (pointer + offset) % size, rows[pushed - kept :].to(queue.dtype))
    pointer.add_(pushed)
