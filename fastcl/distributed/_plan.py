"""What the losses of several ranks have in common: agreeing on the batch, and the global mean."""

from collections.abc import Callable

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
    ids: Tensor | None = None,
) -> Plan | None:
    """The rows of every rank; None in one process, which has nobody to agree with.

    Arguments of one rank that do not fit are an error on all ranks.

    Args:
        name: Of x, for the errors.
        check: Raises where the arguments of this rank do not fit.
        ids: Given on every rank, or on none.

    Raises:
        ValueError, TypeError: As check; or another rank's rows do not fit, or not to these; ids
            are missing somewhere; mode is unknown, or group does not contain this rank.
    """
    _check.one_of("mode", mode, tuple(MODES))
    ranks = Ranks(group)
    if ranks.size == 1:
        return None
    error = None
    try:
        check()
    except (TypeError, ValueError) as reason:
        error = reason
    if error is not None and (equal or not isinstance(x, Tensor)):
        raise error
    if equal:
        return Plan(ranks, [x.shape[0]] * ranks.size, mode)
    mine = [-1, 0, 0, 0] if error else [*x.shape, _check.FLOATS.index(x.dtype), ids is not None]
    counts, widths, dtypes, given = zip(*ranks.share(mine, x.device), strict=True)
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
    return Plan(ranks, list(counts), mode)


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
