"""Rows of all ranks on every rank, with and without gradients; nothing happens in one process.

Plain torch.distributed over the default group. Ranks may hold different numbers of rows.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """How many ranks there are; 1 where torch.distributed is not initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is; 0 where torch.distributed is not initialised."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def _counts(x: Tensor, equal: bool) -> list[int]:
    """The number of rows of every rank."""
    if equal:
        return [x.shape[0]] * world_size()
    count = torch.tensor([x.shape[0]], device=x.device)
    counts = [torch.empty_like(count) for _ in range(world_size())]
    dist.all_gather(counts, count)
    return torch.cat(counts).tolist()


def _all_gather(x: Tensor, counts: list[int]) -> Tensor:
    """Shorter ranks are padded: not every backend gathers unequal shapes."""
    most = max(counts)
    padded = x.contiguous()
    if x.shape[0] < most:
        padded = x.new_zeros(most, *x.shape[1:])
        padded[: x.shape[0]] = x
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


@torch.no_grad()
def gather(x: Tensor, *, equal: bool = False) -> Tensor:  # [b, ...] -> [sum of b, ...]
    """The rows of all ranks in rank order, without gradient.

    Equal to ``x.detach()`` in a single process.

    Args:
        x: `[b, ...]`; b may differ between ranks, the other sizes and the dtype may not.
        equal: b is the same everywhere: saves exchanging the counts, for which the host waits.
            Wrong where they differ.

    Returns:
        `[sum of b, ...]`, the same on every rank.
    """
    if world_size() == 1:
        return x.detach()
    return _all_gather(x.detach(), _counts(x, equal))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, equal):
        ctx.counts = _counts(x, equal)
        return _all_gather(x, ctx.counts)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        grad, own = grad.contiguous(), rank()
        if len(set(ctx.counts)) == 1 and dist.get_backend() == "nccl":
            mine = grad.new_empty(ctx.counts[own], *grad.shape[1:])
            dist.reduce_scatter_tensor(mine, grad)
            return mine, None
        # Unequal parts, or a backend without reduce_scatter: sum everything, keep the own part.
        total = grad.clone()
        dist.all_reduce(total)
        return total.split(ctx.counts)[own], None


def gather_with_gradient(x: Tensor, *, equal: bool = False) -> Tensor:  # [b, ...]
    """The rows of all ranks in rank order; gradients return to the rank a row came from.

    Equal to ``x`` in a single process.

    The gradient of a row is the sum over the gradients that all ranks send it. Where every rank
    computes a mean over the global batch from the gathered rows, or the mean over its own rows
    against all, the average over ranks that data parallelism takes is then the gradient of one
    process with the global batch: nothing is to be rescaled.

    Args and result are those of `gather`. The backward is a collective: every rank must run it.
    """
    return x if world_size() == 1 else _Gather.apply(x, equal)
