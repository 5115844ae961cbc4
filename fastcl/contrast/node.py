"""The softmax contrast, differentiable: a loss per row, and its mean with gradients at once.

The n x m matrix is never formed. What a device makes of the problem, by triangles, chunks or
strips, with similarities kept or formed again, is decided behind the operators.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _check
from .._library import ops
from .gradients import handed_over, is_one, needs_gradient, refuse_second_derivative
from .problem import TENSORS, Problem, joined


class Contrast(NamedTuple):
    """What `row_losses` returns; loss, positive and their column twins carry gradients."""

    loss: Tensor  # [n] lse over the denominator minus the mean positive logit
    positive: Tensor  # [n] mean positive logit, 0 where a row has none
    count: Tensor  # [n] number of positives
    rank: Tensor  # [n] int64 negatives that score above the pivot, or [0]
    # The same down the columns where both, else None: by what was asked, not by what was found.
    col_loss: Any  # [m]
    col_positive: Any  # [m]
    col_count: Any  # [m]


class Needs(NamedTuple):
    """Which gradients an operator finds; that of the scale takes that of q."""

    q: bool
    k: bool
    own: bool
    scale: bool


class Layout(NamedTuple):
    """What the backward has to know of `Problem.apart`."""

    q: tuple[int, ...]  # rows of each part
    k: tuple[int, ...]
    dtype: torch.dtype
    rows: bool  # whether a row needs a gradient
    needs: Needs

    @classmethod
    def of(cls, p: Problem, inputs: tuple[bool, ...]) -> "Layout":
        """inputs: whether each entry of `Problem.apart` needs a gradient."""
        columns = len(inputs) - len(p.k)
        rows = True in inputs[columns - len(p.q) : columns]
        needs = Needs(rows or inputs[2], True in inputs[columns:], inputs[1], inputs[2])
        q, k = tuple([x.shape[0] for x in p.q]), tuple([x.shape[0] for x in p.k])
        return cls(q, k, p.q[0].dtype, rows, needs)

    def gradients(self, dq, dk, d_own, d_scale, grad=None) -> tuple:
        """One per entry of `Problem.apart`. grad: of a loss whose dq, dk and d_own were found with
        it; None where it is in them. d_scale has its shape and dtype."""
        if grad is not None and is_one(grad):
            grad = None  # asked once for all of them
        d_own = self._times(d_own, grad) if self.needs.own else None
        dq = _split(self._times(dq, grad) if self.rows else None, self.q)
        dk = _split(self._times(dk, grad) if self.needs.k else None, self.k)
        return None, d_own, d_scale, *OTHERS, *dq, *dk

    def _times(self, x: Tensor, grad: Tensor | None) -> Tensor:
        if grad is not None:
            return handed_over(x, grad, self.dtype)
        return x if x.dtype == self.dtype else x.to(self.dtype)


OTHERS = (None,) * (TENSORS - 4)  # tensors of `Problem.apart` without a gradient


def _split(dx: Tensor | None, sizes: tuple[int, ...]) -> tuple:
    """The gradient of each part."""
    if len(sizes) == 1 or dx is None:
        return (dx,) * len(sizes)
    return dx.split(sizes)


def like(x: Tensor, scalar: Tensor) -> Tensor:
    """x in the dtype and the shape of a tensor of one element."""
    return x.to(scalar.dtype).reshape(scalar.shape)


NOTHING = Needs(False, False, False, False)


def _own(statistics: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # [4, n] -> three of [n]
    """Loss, mean positive and count, not as views of one tensor: autograd lets nobody write those,
    and the backward reads that one."""
    loss, _, positive, count = statistics.unbind()
    return loss.clone(), positive.clone(), count.clone()


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pivot, products, *apart):
        p = joined(*apart)
        layout = Layout.of(p, ctx.needs_input_grad[2:])
        p, needs = p.rounded(products), layout.needs
        rows, cols, rank, weighted = ops.contrast_forward.default(*p, pivot, needs.q, needs.k)
        if p.finishes(needs.q, needs.k):
            # The columns are needed no more: MoCo may push to its queue before the backward.
            nothing = dict.fromkeys(("row_ids", "col_ids", "limit", "guide_q", "guide_k"))
            p = p._replace(k=(p.k[0].new_empty(0, p.width),), **nothing)
        ctx.options, *tensors = p.apart()
        ctx.save_for_backward(rows, cols, weighted, *tensors)
        ctx.layout = layout
        ctx.set_materialize_grads(False)
        loss, positive, count = _own(rows)
        ctx.mark_non_differentiable(count, rank)
        if not p.both:
            return loss, positive, count, rank, None, None, None
        col_loss, col_positive, col_count = _own(cols)
        ctx.mark_non_differentiable(col_count)
        return loss, positive, count, rank, col_loss, col_positive, col_count

    @staticmethod
    def backward(ctx, g_loss, g_positive, _count, _rank, g_col_loss, g_col_positive, _col_count):
        refuse_second_derivative()
        rows, cols, weighted, *tensors = ctx.saved_tensors
        p, needs = joined(ctx.options, *tensors), ctx.layout.needs
        grads = [
            None if g is None else g.contiguous()  # .sum() delivers a stride-0 gradient
            for g in (g_loss, g_positive, g_col_loss, g_col_positive)
        ]
        *found, slope = ops.contrast_backward.default(*p, rows, cols, weighted, *grads, *needs)
        d_scale = like(slope / p.logit_scale, p.logit_scale) if needs.scale else None
        return None, None, *ctx.layout.gradients(*found, d_scale)


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, products, *apart):
        p = joined(*apart)
        ctx.layout = Layout.of(p, ctx.needs_input_grad[1:])
        loss, losses, *found = ops.contrast_mean.default(*p.rounded(products), *ctx.layout.needs)
        ctx.save_for_backward(p.logit_scale, *found)
        ctx.mark_non_differentiable(losses)
        ctx.set_materialize_grads(False)  # zeros for the constant losses would be a launch
        return loss, losses

    @staticmethod
    def backward(ctx, grad, _losses):
        refuse_second_derivative()
        if grad is None:
            return (None,) * len(ctx.needs_input_grad)
        logit_scale, *found, slope = ctx.saved_tensors
        d_scale = None
        if ctx.layout.needs.scale:
            d_scale = like(grad * slope / logit_scale, logit_scale)
        return None, *ctx.layout.gradients(*found, d_scale, grad)


def row_losses(
    p: Problem,
    pivot: Tensor | None = None,  # [n]
    products: torch.dtype | None = None,
) -> Contrast:
    """The contrast of every row, and of every column where both, in linear memory.

    Equal to ``F.cross_entropy(scale * q @ k.T, arange(n), reduction="none")`` for
    ``problem(q, k, scale=scale, ids=arange(n), normalize=False)``.

    Args:
        p: See `problem.problem`.
        pivot: Similarity `[n]` (before the scale) that `rank` counts the negatives above, usually
            the positive's.
        products: The dtype of rows in products, which leaves gradients the dtype of the rows that
            are given: whoever adds to these gradients does so before they are rounded.

    Returns:
        A `Contrast`; all of it float32 (float64 for float64 rows).
    """
    if pivot is not None:
        _check.vector("pivot", pivot, p.rows, p.q[0].device)
        pivot = pivot.detach().contiguous()
    if needs_gradient(*p.q, *p.k, p.own, p.logit_scale):
        return Contrast(*_Rows.apply(pivot, products, *p.apart()))
    rows, cols, rank, _ = ops.contrast_forward.default(*p.rounded(products), pivot, False, False)
    loss, _, *others = rows.unbind()
    columns = (cols[0], *cols[2:]) if p.both else (None,) * 3
    return Contrast(loss, *others, rank, *columns)


def mean_loss(p: Problem, products: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """The mean over the rows of their contrast, in linear memory; its gradients come with it.

    Equal to ``row_losses(p).loss.mean()``; where both, to the mean of that and of the same down
    the columns. products: as of `row_losses`.

    Returns:
        The mean, a scalar, and the loss of every row `[n]`, which is a constant; float32 (float64
        for float64 rows).
    """
    if needs_gradient(*p.q, *p.k, p.own, p.logit_scale):
        return _Mean.apply(products, *p.apart())
    loss, losses, *_ = ops.contrast_mean.default(*p.rounded(products), *NOTHING)
    return loss, losses
