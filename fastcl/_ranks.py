"""The ranks of a process group and the few collectives on rows that fastcl uses.

Plain torch.distributed, and the only file that calls it. Ranks may hold different numbers of rows.
All rank arithmetic is within the group. Nothing happens where there is one rank.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """How many ranks there are; 1 where torch.distributed is not initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is; 0 where torch.distributed is not initialised."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class Exchange:
    """Messages under way. Holds what is sent until it has left."""

    def __init__(self, works: Sequence, sent: Sequence[Tensor]) -> None:
        self._works, self._sent = works, sent

    def wait(self) -> None:
        for work in self._works:
            work.wait()
        self._sent = ()


class Ranks:
    """The ranks of a group, the default one where it is None.

    Raises:
        ValueError: group does not contain this rank.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.size, self.rank = 1, 0
        if not (dist.is_available() and dist.is_initialized()):
            return
        self._group = dist.group.WORLD if group is None else group
        if not isinstance(self._group, dist.ProcessGroup) or dist.get_rank(self._group) < 0:
            raise ValueError(f"group must contain this rank, {dist.get_rank()}")
        self.size, self.rank = dist.get_world_size(self._group), dist.get_rank(self._group)

    @property
    def device(self) -> torch.device:
        """One that the group's messages can be on."""
        name = "cuda" if "nccl" in dist.get_backend(self._group) else "cpu"
        return torch.device(name)

    def share(self, numbers: Sequence[int], device: torch.device) -> list[list[int]]:
        """The integers of every rank, a list for each. The host waits."""
        mine = torch.tensor([numbers], device=device)
        return self.gather(mine, [1] * self.size).tolist()

    def sum(self, x: Tensor) -> Tensor:
        """The sum over ranks."""
        total = x.clone(memory_format=torch.contiguous_format)
        if self.size > 1:
            dist.all_reduce(total, group=self._group)
        return total

    def gather(self, x: Tensor, counts: list[int]) -> Tensor:  # [b, ...] -> [sum of b, ...]
        """The rows of all ranks. Shorter ranks are padded: backends gather equal shapes."""
        if self.size == 1:
            return x
        most = max(counts)
        everyone = x.new_empty(self.size * most, *x.shape[1:])
        _all_gather()(everyone, _padded(x, most), group=self._group)
        if min(counts) == most:
            return everyone
        parts = everyone.split(most)
        return torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)])

    def scatter_sum(self, x: Tensor, counts: list[int]) -> Tensor:  # [sum of b, ...] -> [b, ...]
        """The sum over ranks of the rows that are this rank's: the transpose of gather."""
        if self.size == 1:
            return x
        most, x = max(counts), x.contiguous()
        if min(counts) < most:
            x = torch.cat([_padded(part, most) for part in x.split(counts)])
        mine = x.new_empty(most, *x.shape[1:])
        _reduce_scatter()(mine, x, group=self._group)
        return mine[: counts[self.rank]]

    def transpose(self, x: Tensor, counts: list[int]) -> Tensor:  # [sum of b, c] -> [ranks, b, c]
        """What every rank has for this one: rows go to the rank that they belong to."""
        own = counts[self.rank]
        out = x.new_empty(self.size * own, *x.shape[1:])
        dist.all_to_all_single(out, x.contiguous(), [own] * self.size, counts, group=self._group)
        return out.unflatten(0, (self.size, own))

    def exchange(
        self, sends: Sequence[tuple[Tensor, int]], receives: Sequence[tuple[Tensor, int]]
    ) -> Exchange:
        """Start to send tensors to ranks and to fill tensors from ranks, in this order."""
        messages = [(dist.isend, x.contiguous(), to) for x, to in sends]
        messages += [(dist.irecv, x, source) for x, source in receives]
        if not messages:
            return Exchange((), ())
        operations = [
            dist.P2POp(function, x, group=self._group, group_peer=peer)
            for function, x, peer in messages
        ]
        return Exchange(dist.batch_isend_irecv(operations), [x for _, x, _ in messages])


def _padded(x: Tensor, most: int) -> Tensor:
    if x.shape[0] == most:
        return x.contiguous()
    padded = x.new_zeros(most, *x.shape[1:])
    padded[: x.shape[0]] = x
    return padded


def _all_gather():
    # Renamed in torch 2.13; the older name warns there.
    return getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


def _reduce_scatter():
    return getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def _counts(ranks: Ranks, x: Tensor, equal: bool) -> list[int]:
    """The number of rows of every rank."""
    if equal or ranks.size == 1:
        return [x.shape[0]] * ranks.size
    return [n for (n,) in ranks.share([x.shape[0]], x.device)]


def row_counts(x: Tensor) -> list[int]:  # [b, ...]
    """The number of rows of every rank. The host waits, except in a single process."""
    return _counts(Ranks(), x, equal=False)


@torch.no_grad()
def gather(
    x: Tensor,  # [b, ...]
    *,
    equal: bool = False,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """The rows of all ranks in rank order, without gradient.

    Equal to ``x.detach()`` in a single process.

    Args:
        x: `[b, ...]`; b may differ between ranks, the other sizes and the dtype may not.
        equal: b is the same everywhere: saves exchanging the counts, for which the host waits.
            Wrong where they differ.
        group: The ranks that take part; None: all.

    Returns:
        `[sum of b, ...]`, the same on every rank.

    Raises:
        ValueError: group does not contain this rank.
    """
    ranks = Ranks(group)
    return ranks.gather(x.detach(), _counts(ranks, x, equal))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, ranks, equal):
        ctx.ranks, ctx.counts = ranks, _counts(ranks, x, equal)
        return ranks.gather(x, ctx.counts)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return ctx.ranks.scatter_sum(grad, ctx.counts), None, None


def gather_with_gradient(
    x: Tensor,  # [b, ...]
    *,
    equal: bool = False,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """The rows of all ranks in rank order; gradients return to the rank a row came from.

    Equal to ``x`` in a single process.

    The gradient of a row is the sum over the gradients that all ranks send it. Where every rank
    computes a mean over the global batch from the gathered rows, the average over ranks that data
    parallelism takes is then the gradient of one process with the global batch: nothing is to be
    rescaled. Every rank then computes the whole loss; the functions of `fastcl.distributed` share
    that work.

    Args, result and errors are those of `gather`. The backward is a collective: every rank must
    run it.
    """
    ranks = Ranks(group)
    return x if ranks.size == 1 else _Gather.apply(x, ranks, equal)
