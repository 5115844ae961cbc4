"""The mean of this rank's rows' contrast with the gathered columns, over all ranks.

With all columns there, a row's lse is final and loss and gradients come together, with a product
less than one by one; all communication is in the forward.
"""

import torch
from torch import Tensor

from .._library import ops
from ..contrast.gradients import handed_over, refuse_second_derivative
from ..contrast.problem import problem
from ._blocks import Plan


class _MeanContrast(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, ids, scale, plan):
        need_q, need_k = ctx.needs_input_grad[:2]
        columns, col_ids = (plan.ranks.gather(x, plan.counts) for x in (k, ids))
        p = problem(q, columns, scale=scale, ids=(ids, col_ids), normalize=False)
        loss, _, dq, dk, *_ = ops.contrast_mean(*p, need_q, need_k, False, False)
        share = q.shape[0] / sum(plan.counts)  # of this mean in that over all rows
        weight = share * plan.ranks.size  # gradients are averaged over the ranks afterwards
        dk = plan.ranks.scatter_sum(dk.mul_(weight), plan.counts) if need_k else None
        ctx.save_for_backward(dq.mul_(weight), dk)
        ctx.dtypes = q.dtype, k.dtype
        return plan.ranks.sum(loss.double() * share).to(loss.dtype)

    @staticmethod
    def backward(ctx, grad):
        refuse_second_derivative()
        (dq, dk), (q_dtype, k_dtype) = ctx.saved_tensors, ctx.dtypes
        need_q, need_k = ctx.needs_input_grad[:2]
        return (
            handed_over(dq, grad, q_dtype) if need_q else None,
            handed_over(dk, grad, k_dtype) if need_k else None,
            *[None] * 3,
        )


def mean_contrast(
    q: Tensor,  # [n, d] unit rows of this rank
    k: Tensor,  # [n, d] unit columns of this rank
    ids: Tensor,  # [n] int64, comparable between ranks
    plan: Plan,
    *,
    scale: float,
) -> Tensor:
    """``global_mean(contrast(q, k, ids, plan, scale=scale)[0], plan)`` for mode "gather"."""
    return _MeanContrast.apply(q.contiguous(), k.contiguous(), ids.contiguous(), scale, plan)
