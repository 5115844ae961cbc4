"""The contrast in plain PyTorch, a block of rows at a time: what no operator knows.

Memory is that of one block and its gradient, whatever the number of rows; a block is formed again
in the backward.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import checkpoint

from ..contrast.gradients import refuse_second_derivative
from ..reference import accumulate_dtype, no_autocast
from .asked import Asked
from .product import product
from .rows import held_to
from .unit_rows import unit_rows

# Logits of a block: 8 MB of float32, a few of which live at the same time.
BLOCK = 1 << 21


class Side(NamedTuple):
    """One direction: rows and columns in the accumulation dtype, and what belongs to each."""

    q: Tensor  # [n, d]
    k: Tensor  # [m, d]
    itself: bool  # columns are the rows, and no row meets itself
    scales: tuple[Tensor | None, Tensor | None]  # [n], [m]
    biases: tuple[Tensor | None, Tensor | None]
    labels: tuple[Tensor, Tensor] | None
    targets: tuple[Tensor, Tensor] | None
    pairs: tuple[Tensor, Tensor] | None
    guide: tuple[Tensor, Tensor] | None  # unit rows

    def turned(self) -> "Side":
        """Columns as rows."""
        swapped = (x if x is None else x[::-1] for x in self[3:])
        return Side(self.k, self.q, self.itself, *swapped)


def losses(x: Asked, query: Tensor, key: Tensor | None) -> list[Tensor]:
    """The loss of every row [n], and of every column [m] where both, of rows as they go into the
    products."""
    dtype = accumulate_dtype(query.dtype)
    q = query.to(dtype)
    guide = None if x.guide is None else tuple(unit_rows(g.to(dtype)) for g in x.guide)
    side = Side(
        q, q if key is None else key.to(dtype), key is None, (x.row_scale, None),
        (None, x.column_bias), x.labels, x.targets, None if x.pairs is None else x.pairs[:2], guide,
    )  # fmt: skip
    sides = [side, side.turned()] if x.both else [side]
    # What a side has, or no block takes.
    x = x._replace(**dict.fromkeys(
        ("row_scale", "labels", "targets", "row_weight", "column_bias", "guide")
    ))  # fmt: skip
    return [_of_rows(x, side) for side in sides]


def _of_rows(x: Asked, side: Side) -> Tensor:
    blocks = _slices(len(side.q), len(side.k))
    if torch.compiler.is_compiling():
        found = [checkpoint(_block, x, side, rows, use_reentrant=False) for rows in blocks]
        return torch.cat(found)
    leaves, spec = tree_flatten((x, side))
    is_tensor = [isinstance(leaf, Tensor) for leaf in leaves]
    others = [None if this else leaf for this, leaf in zip(is_tensor, leaves, strict=True)]
    tensors = [leaf for this, leaf in zip(is_tensor, leaves, strict=True) if this]

    def block(rows: slice, tensors) -> Tensor:
        tensors = iter(tensors)
        whole = [next(tensors) if this else leaf
                 for this, leaf in zip(is_tensor, others, strict=True)]  # fmt: skip
        return _block(*tree_unflatten(whole, spec), rows)

    return _InBlocks.apply(block, blocks, *tensors)


def _slices(n: int, m: int) -> list[slice]:
    step = max(1, BLOCK // m)
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


class _InBlocks(torch.autograd.Function):
    """What checkpoints would do, but nothing small is left between the large pieces of memory that
    a block frees: the allocator takes them for the next one."""

    @staticmethod
    def forward(ctx, block, blocks, *tensors):
        losses = None
        for rows in blocks:
            found = block(rows, tensors)
            losses = found.new_empty(blocks[-1].stop) if losses is None else losses
            losses[rows] = found
        ctx.block, ctx.blocks = block, blocks
        ctx.save_for_backward(*tensors)
        return losses

    @staticmethod
    def backward(ctx, grad):
        refuse_second_derivative()
        needs = ctx.needs_input_grad[2:]
        tensors = [
            x.detach().requires_grad_(need)
            for x, need in zip(ctx.saved_tensors, needs, strict=True)
        ]
        wanted = [x for x in tensors if x.requires_grad]
        sums = [torch.zeros_like(x) for x in wanted]
        for rows in ctx.blocks:
            with torch.enable_grad():
                losses = ctx.block(rows, tensors)
            if not losses.requires_grad:
                continue
            found = torch.autograd.grad(losses, wanted, grad[rows], allow_unused=True)
            for total, part in zip(sums, found, strict=True):
                if part is not None:
                    total += part
        sums = iter(sums)
        return None, None, *(next(sums) if need else None for need in needs)


def _block(x: Asked, side: Side, rows: slice) -> Tensor:
    with no_autocast(side.q):
        cosine = product(side.q[rows], side.k, b_turned=True)
        judge = cosine
        if side.guide is not None:
            judge = product(side.guide[0][rows], side.guide[1], b_turned=True)
        inside = torch.ones_like(cosine, dtype=torch.bool)
        if side.itself:
            index = torch.arange(len(cosine), device=cosine.device)
            inside[index, index + rows.start] = False
        s = cosine * x.scale
        if side.scales[0] is not None:
            s = s * side.scales[0][rows, None]
        if side.scales[1] is not None:
            s = s * side.scales[1]
        if side.biases[0] is not None:
            s = s + side.biases[0][rows, None]
        if side.biases[1] is not None:
            s = s + side.biases[1]
        levels = _targets(x, side, rows, inside)
        if x.margin is not None:
            inside = inside & ~_left_out(x, judge.detach(), levels[0][1])
    lse = torch.where(inside, s, -torch.inf).logsumexp(1)
    total = 0
    for share, y in levels:
        weight = y.sum(1)
        some = weight > 0
        if x.summed:
            logits = torch.where(y > 0, s + torch.where(y > 0, y, 1).log(), -torch.inf)
            positive = torch.where(some[:, None], logits, 0).logsumexp(1)
        else:
            positive = (torch.where(y > 0, y * s, 0)).sum(1) / torch.where(some, weight, 1)
        total = total + share * torch.where(some, torch.where(some, lse, 0) - positive, 0)
    return total


def _targets(x: Asked, side: Side, rows: slice, inside: Tensor):
    """The share of every level and its y [rows, m]."""
    if side.labels is not None:
        a, b = side.labels
        found = [(a[rows, level, None] == b[:, level]) for level in range(a.shape[1])]
    elif side.targets is not None:
        found = [product(side.targets[0][rows], side.targets[1], b_turned=True)]
    elif side.pairs is not None:
        row, column = side.pairs
        here = (row >= rows.start) & (row < rows.stop)
        y = torch.zeros(inside.shape, dtype=side.q.dtype, device=inside.device)
        index = row[here] - rows.start, column[here]
        found = [y.index_put(index, x.pairs[2][here], accumulate=True)]
    else:
        index = torch.arange(rows.start, rows.stop, device=inside.device)
        found = [index[:, None] == torch.arange(len(side.k), device=inside.device)]
    shares = x.shares(len(found), side.q)
    found = [torch.where(inside, y, 0).to(side.q.dtype) for y in found]
    return list(zip(shares, found, strict=True))


def _left_out(x: Asked, judge: Tensor, y: Tensor) -> Tensor:
    """Columns above the one positive of the row by more than the margin."""
    several = (y > 0).sum(1)
    if not torch.compiler.is_compiling() and y.device.type == "cpu" and not (several == 1).all():
        kind = "pairs" if x.pairs is not None else "labels"
        raise ValueError(f"margin and guide take one positive per row, {kind} name more or none")
    limit = held_to((judge * (y > 0)).sum(1, keepdim=True), x.margin)
    return (judge > limit) & (y == 0)
