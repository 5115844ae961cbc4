"""What the losses of several ranks have in common: agreeing on the batch, and the global mean."""

import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any, overload

import torch
import torch.distributed as dist
from torch import Tensor

from .. import _check
from .._ranks import Ranks
from ._blocks import Plan
from ._contrast import MODES


def agree(
    name: str,
    x: Tensor,  # [b, d]
    mode: str,
    group: dist.ProcessGroup | None,
    equal: bool,
    check: Callable[[], None],
    inputs: Mapping[str, Tensor | float | None],
    same: Mapping[str, object],
    ids: Tensor | None = None,
) -> Plan | None:
    """The rows of every rank; None in one process, which has nobody to agree with.

    Arguments of one rank that do not fit, or are not those of the others, are an error on all
    ranks, unless equal.

    Args:
        name: Of x, for the errors.
        check: Raises where the arguments of this rank do not fit.
        inputs: What may require a gradient, by name: on every rank, or on none.
        same: Numbers and words that every rank must have, by name.
        ids: Given on every rank, or on none.

    Raises:
        ValueError, TypeError: As check; or another rank's rows do not fit, or not to these; ids
            are missing somewhere; something in same differs; an input requires a gradient on some
            ranks alone; mode is unknown, or group does not contain this rank.
    """
    ranks = Ranks(group)
    if ranks.size == 1:
        _check.one_of("mode", mode, tuple(MODES))
        return None
    error = None
    try:
        _check.one_of("mode", mode, tuple(MODES))
        check()
    except (TypeError, ValueError) as reason:
        error = reason
    if equal:
        if error is not None:
            raise error
        return Plan(ranks, [x.shape[0]] * ranks.size, mode)
    same = {"mode": mode, **same}
    mine = [-1] + [0] * (3 + len(inputs) + len(same))
    if error is None:
        mine = [*x.shape, _check.FLOATS.index(x.dtype), ids is not None]
        mine += [_needs(y) for y in inputs.values()] + [_number(y) for y in same.values()]
    device = x.device if isinstance(x, Tensor) else ranks.device
    counts, widths, dtypes, given, *others = zip(*ranks.share(mine, device), strict=True)
    if error is not None:
        raise error
    if min(counts) < 0:
        at = counts.index(min(counts))
        raise ValueError(f"{name} must fit on every rank, rank {at} has raised an error of its own")
    if len(set(widths)) > 1:
        raise ValueError(f"{name} must have the same width on every rank, got {list(widths)}")
    if len(set(dtypes)) > 1:
        names = [str(_check.FLOATS[i]) for i in dtypes]
        raise TypeError(f"{name} must have the same dtype on every rank, got {names}")
    if len(set(given)) > 1:
        raise ValueError(f"ids must be given on every rank or on none, missing on {given.index(0)}")
    for key, needs in zip(inputs, others[: len(inputs)], strict=True):
        if len(set(needs)) > 1:
            raise ValueError(
                f"{key} must require a gradient on every rank or on none, "
                f"it does not on {needs.index(0)}"
            )
    for (key, value), numbers in zip(same.items(), others[len(inputs) :], strict=True):
        if len(set(numbers)) > 1:
            at = next(i for i, number in enumerate(numbers) if number != numbers[0])
            raise ValueError(
                f"{key} must be the same on every rank, rank {at} has another than rank 0; "
                f"here it is {value!r}"
            )
    return Plan(ranks, list(counts), mode)


def _needs(x: object) -> bool:
    return isinstance(x, Tensor) and x.requires_grad and torch.is_grad_enabled()


def _number(x: Any) -> int:
    """An integer that is equal where x is."""
    if x is None or isinstance(x, str):
        return -1 if x is None else zlib.crc32(x.encode())
    number = x.item() if isinstance(x, Tensor) else x
    return struct.unpack("q", struct.pack("d", number))[0]


def global_ids(plan: Plan, device: torch.device) -> Tensor:
    """The position of this rank's rows in the global batch, [b]."""
    start = sum(plan.counts[: plan.ranks.rank])
    return torch.arange(start, start + plan.counts[plan.ranks.rank], device=device)


class _Shared(torch.autograd.Function):
    """The same value; its gradient the mean over ranks."""

    @staticmethod
    def forward(ctx, x, ranks):
        ctx.ranks = ranks
        return x.view_as(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return ctx.ranks.sum(grad) / ctx.ranks.size, None


@overload
def shared(x: Tensor, plan: Plan) -> Tensor: ...
@overload
def shared(x: Tensor | float, plan: Plan) -> Tensor | float: ...
def shared(x: Tensor | float, plan: Plan) -> Tensor | float:  # []
    """A number that every rank has, for use with its own rows: exact gradients on every rank."""
    return _Shared.apply(x, plan.ranks) if isinstance(x, Tensor) else x


class _Sum(torch.autograd.Function):
    """The sum over ranks on every rank; its gradient for ranks that are averaged afterwards."""

    @staticmethod
    def forward(ctx, x, ranks):
        ctx.size = ranks.size
        return ranks.sum(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad * ctx.size, None


def global_mean(x: Tensor, plan: Plan) -> Tensor:  # [b] -> []
    """The mean over the rows of all ranks."""
    return _Sum.apply(x.sum(), plan.ranks) / sum(plan.counts)


def mean_of_parts(
    loss: Tensor, rows: int, plan: Plan, group: dist.ProcessGroup | None, equal: bool
) -> Tensor:
    """The mean over all ranks of a loss [] that is the mean over this rank's rows."""
    if equal:  # of whom nobody has asked how many rows they have
        return mean(loss, rows=rows, group=group)
    return global_mean(loss.double() * rows, plan).to(loss.dtype)


def mean(
    x: Tensor,  # [b, ...], or [] with rows
    *,
    rows: int | None = None,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """The mean over the rows of all ranks, which may hold different numbers, or none.

    Equal to ``x.mean()`` in a single process, and to the mean over the global batch in several:
    the value is the same on every rank, and gradients averaged over the ranks are exact. For
    losses in which a row meets no other row of the batch: BYOL, SimSiam, a queue or a bank.

    Args:
        x: `[b, ...]` losses per row; or `[]`, their mean over this rank's rows.
        rows: With `[]`, how many rows it is the mean of, b.
        group: The ranks that take part; None: all.

    Returns:
        A scalar. The host does not wait.

    Raises:
        ValueError: group does not contain this rank, or rows is given and x is no scalar.
    """
    if rows is not None and x.dim() > 0:
        raise ValueError(f"x must be a scalar where rows is given, got shape {list(x.shape)}")
    ranks = Ranks(group)
    if ranks.size == 1:
        return x.mean()
    count = x.numel() if rows is None else rows
    own = x.double().sum() if rows is None else x.double() * rows
    everyone = ranks.sum(torch.tensor(count, dtype=torch.float64, device=x.device))
    return (_Sum.apply(own, ranks) / everyone).to(x.dtype)
