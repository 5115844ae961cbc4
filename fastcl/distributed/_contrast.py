"""The softmax contrast of this rank's rows with the columns of all ranks, differentiable.

Each pair is computed on one rank and serves its row and its column, as in one process: the work of
a rank is that of one process divided by the number of ranks.
"""

import torch
from torch import Tensor

from .._gradients import refuse_second_derivative
from ..reference import accumulate_dtype
from . import _gather, _ring
from ._blocks import Plan, Problem

MODES = {"gather": _gather, "ring": _ring}


class _Contrast(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, logit_scale, ids, both, positives_in, negatives_only, scale, plan):
        symmetric = k is None
        options = symmetric, both, positives_in, negatives_only, scale
        x = Problem(q, q if symmetric else k, ids, *options, logit_scale)
        rows, cols, kept = MODES[plan.mode].forward(x, plan)
        ctx.save_for_backward(q, k, ids, logit_scale, rows, cols, *kept)
        ctx.options, ctx.plan = options, plan
        dtype = accumulate_dtype(q.dtype)
        loss, count = x.result(rows).to(dtype), rows[:, 3].to(dtype)
        ctx.mark_non_differentiable(count)
        return loss, count, x.result(cols).to(dtype) if both else None

    @staticmethod
    def backward(ctx, grad, _count, grad_cols):
        refuse_second_derivative()
        q, k, ids, logit_scale, rows, cols, *kept = ctx.saved_tensors
        need_q, need_k, need_scale = ctx.needs_input_grad[:3]
        symmetric = k is None
        x = Problem(q, q if symmetric else k, ids, *ctx.options, logit_scale)
        rows = torch.cat([rows, grad.double()[:, None]], dim=1)
        if symmetric:
            cols = rows
        elif x.both:
            cols = torch.cat([cols, grad_cols.double()[:, None]], dim=1)
        dq, dk = MODES[ctx.plan.mode].backward(
            x, ctx.plan, rows, cols, need_q or need_scale, need_k or symmetric, *kept
        )
        dq = dq + dk if symmetric else dq
        d_scale = None
        if need_scale:
            # Each logit is linear in the scale. The mean over ranks: every rank returns the whole.
            dot = (q.to(dq.dtype) * dq).sum() * (0.5 if symmetric else 1.0)
            dot = ctx.plan.ranks.sum(dot) / ctx.plan.ranks.size
            d_scale = (dot / logit_scale).to(logit_scale.dtype).reshape(logit_scale.shape)
        return (
            dq.to(q.dtype) if need_q else None,
            dk.to(k.dtype) if need_k and not symmetric else None,
            d_scale,
            *[None] * 6,
        )


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
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Loss [n] and number of positives [n] of this rank's rows, and loss [n] of its columns.

    Equal to this rank's part of ``fastcl.contrast.contrast`` over the rows of all ranks; with
    negatives_only, in place of the losses, to the logarithms of the sums over negatives. The
    gradient is that of the sum over ranks; of the scale, its mean over ranks, the same on all.
    """
    logit_scale = scale if isinstance(scale, Tensor) else None
    return _Contrast.apply(
        q.contiguous(), None if k is None else k.contiguous(), logit_scale, ids.contiguous(),
        both, positives_in and not negatives_only, negatives_only,
        1.0 if logit_scale is not None else float(scale), plan,
    )  # fmt: skip
