"""The sigmoid contrast of this rank's rows with the columns of all ranks, differentiable.

Loss and gradients come from one pass, so all communication is in the forward.
"""

import torch
from torch import Tensor

from .._library import ops
from ..contrast.gradients import refuse_second_derivative
from ..contrast.node import Layout, like
from ..contrast.problem import joined, problem
from ..reference import accumulate_dtype
from ._blocks import Plan
from ._schedule import ring


class _Sigmoid(torch.autograd.Function):
    @staticmethod
    def forward(ctx, bias, logit_bias, plan, *apart):
        p = joined(*apart)
        ctx.layout = Layout.of(p, ctx.needs_input_grad[3:])
        needs = ctx.layout.needs
        need_q, need_k = needs.q or ctx.needs_input_grad[1], needs.k
        (q,), (k,), ids = p.q, p.k, p.row_ids
        dtype = accumulate_dtype(q.dtype)
        dq = torch.zeros(q.shape if need_q else (0,), dtype=dtype, device=q.device)
        sums = torch.zeros(3, dtype=torch.float64, device=q.device)

        def visit(columns: Tensor, col_ids: Tensor) -> Tensor:
            block = p._replace(k=(columns,), col_ids=col_ids)
            loss, gq, gk, parts = ops.sigmoid_contrast(*block, bias, logit_bias, need_q, need_k)
            sums.add_(torch.cat([loss[None], parts]))
            if need_q:
                dq.add_(gq)
            return gk

        if plan.mode == "ring":
            news = torch.empty(0, k.shape[1], dtype=dtype, device=k.device) if need_k else None
            dk = ring(
                plan.ranks, plan.counts, (k, ids), False,
                lambda step, block: visit(*block), torch.add, news,
            )  # fmt: skip
        else:
            dk = visit(*(plan.ranks.gather(x, plan.counts) for x in (k, ids)))
            dk = plan.ranks.scatter_sum(dk, plan.counts) if need_k else None
        sums = plan.ranks.sum(sums)
        ctx.save_for_backward(dq, dk, sums, p.logit_scale, logit_bias)
        ctx.options = p.scale, plan.ranks.size
        return sums[0].to(dtype)

    @staticmethod
    def backward(ctx, grad):
        refuse_second_derivative()
        dq, dk, sums, logit_scale, logit_bias = ctx.saved_tensors
        (scale, size), inputs = ctx.options, ctx.needs_input_grad
        d_bias = like(grad * sums[2], logit_bias) if inputs[1] else None
        d_scale = None
        if ctx.layout.needs.scale:
            d_scale = like(grad * sums[1] * scale, logit_scale)
        gradients = ctx.layout.gradients(dq, dk, None, d_scale, grad * size)
        return None, d_bias, None, *gradients


def sigmoid_contrast(
    q: Tensor,  # [n, d] unit rows of this rank
    k: Tensor,  # [n, d] unit columns of this rank
    ids: Tensor,  # [n] int64, comparable between ranks
    plan: Plan,
    *,
    scale: float | Tensor,
    bias: float | Tensor,
    positives_in: bool = True,
) -> Tensor:
    """The logistic loss summed over all pairs of all ranks, or all of unequal id, the same on every
    rank.

    The gradient of the rows is that of the sum over ranks of the results; of scale and bias, its
    mean over ranks, the same on all.
    """
    p = problem(q, k, scale=scale, ids=ids, positives_in=positives_in, normalize=False)
    biases = (0.0, bias) if isinstance(bias, Tensor) else (float(bias), None)
    return _Sigmoid.apply(*biases, plan, *p.apart())
