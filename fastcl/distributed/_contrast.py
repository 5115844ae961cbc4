"""The softmax contrast of this rank's rows with the columns of all ranks, differentiable.

Each pair is computed on one rank and serves its row and its column, as in one process: the work of
a rank is that of one process divided by the number of ranks.
"""

from typing import Any

import torch
from torch import Tensor

from ..contrast.gradients import refuse_second_derivative
from ..contrast.node import Layout, like
from ..contrast.problem import joined, problem
from ..reference import accumulate_dtype
from . import _gather, _ring
from ._blocks import Plan, Shared

MODES = {"gather": _gather, "ring": _ring}


class _Contrast(torch.autograd.Function):
    @staticmethod
    def forward(ctx, negatives_only, plan, *apart):
        p = joined(*apart)
        x = Shared(p, negatives_only)
        rows, cols, kept = MODES[plan.mode].forward(x, plan)
        ctx.options, *tensors = p.apart()
        ctx.save_for_backward(rows, cols, *tensors, *kept)
        ctx.layout = Layout.of(p, ctx.needs_input_grad[2:])
        ctx.negatives_only, ctx.plan = negatives_only, plan
        ctx.saved = len(tensors)
        dtype = accumulate_dtype(x.q.dtype)
        loss, count = x.result(rows).to(dtype), rows[:, 3].to(dtype)
        ctx.mark_non_differentiable(count)
        return loss, count, x.result(cols).to(dtype) if p.both else None

    @staticmethod
    def backward(ctx, grad, _count, grad_cols):
        refuse_second_derivative()
        rows, cols, *tensors = ctx.saved_tensors
        tensors, kept = tensors[: ctx.saved], tensors[ctx.saved :]
        x = Shared(joined(ctx.options, *tensors), ctx.negatives_only)
        needs, symmetric = ctx.layout.needs, x.symmetric
        rows = torch.cat([rows, grad.double()[:, None]], dim=1)
        if symmetric:
            cols = rows
        elif x.p.both:
            cols = torch.cat([cols, grad_cols.double()[:, None]], dim=1)
        dq, dk = MODES[ctx.plan.mode].backward(
            x, ctx.plan, rows, cols, needs.q, needs.k or symmetric, *kept
        )
        dq = dq + dk if symmetric else dq
        d_scale = None
        if needs.scale:
            # Each logit is linear in the scale. The mean over ranks: every rank returns the whole.
            dot = (x.q.to(dq.dtype) * dq).sum() * (0.5 if symmetric else 1.0)
            dot = ctx.plan.ranks.sum(dot) / ctx.plan.ranks.size
            d_scale = like(dot / x.p.logit_scale, x.p.logit_scale)
        return None, None, *ctx.layout.gradients(dq, dk, None, d_scale)


def contrast(
    q: Tensor,  # [n, d] unit rows of this rank
    k: Tensor | None,  # [n, d] unit columns of this rank; None: the rows themselves
    ids: Tensor,  # [n] int64, comparable between ranks
    plan: Plan,
    *,
    scale: float | Tensor,
    both: bool = False,
    positives_in: bool = True,
    negatives_only: bool = False,
) -> tuple[Tensor, Tensor, Any]:
    """Loss [n] and number of positives [n] of this rank's rows, and loss [n] of its columns.

    Equal to this rank's part of `contrast.node.row_losses` over the rows of all ranks; with
    negatives_only, in place of the losses, to the logarithms of the sums over negatives. The
    gradient is that of the sum over ranks; of the scale, its mean over ranks, the same on all.
    """
    p = problem(
        q, k, scale=scale, ids=ids, both=both, positives_in=positives_in and not negatives_only,
        normalize=False,
    )  # fmt: skip
    return _Contrast.apply(negatives_only, plan, *p.apart())
