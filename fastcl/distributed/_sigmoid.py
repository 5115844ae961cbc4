"""The sigmoid contrast of this rank's rows with the columns of all ranks, differentiable.

Loss and gradients come from one pass, so all communication is in the forward.
"""

import torch
from torch import Tensor

from .._gradients import refuse_second_derivative
from .._library import ops
from ..reference import accumulate_dtype
from ._blocks import Plan
from ._schedule import ring


class _SigmoidContrast(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, logit_scale, logit_bias, scale, bias, ids, positives_in, plan):
        need_q, need_k, need_scale, need_bias = ctx.needs_input_grad[:4]
        need_q = need_q or need_scale or need_bias
        dtype = accumulate_dtype(q.dtype)
        dq = torch.zeros(q.shape if need_q else (0,), dtype=dtype, device=q.device)
        sums = torch.zeros(3, dtype=torch.float64, device=q.device)

        def visit(columns: Tensor, col_ids: Tensor) -> Tensor:
            loss, gq, gk, parts = ops.sigmoid_contrast(
                q, columns, scale, logit_scale, bias, logit_bias, ids, col_ids, need_q, need_k,
                positives_in,
            )  # fmt: skip
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
        ctx.save_for_backward(dq, dk, sums, logit_scale, logit_bias)
        ctx.options = scale, q.dtype, k.dtype, plan.ranks.size
        return sums[0].to(dtype)

    @staticmethod
    def backward(ctx, grad):
        refuse_second_derivative()
        dq, dk, sums, logit_scale, logit_bias = ctx.saved_tensors
        scale, q_dtype, k_dtype, size = ctx.options
        need_q, need_k, need_scale, need_bias = ctx.needs_input_grad[:4]
        d_scale = d_bias = None
        if need_scale:
            d_scale = (grad * sums[1] * scale).to(logit_scale.dtype).reshape(logit_scale.shape)
        if need_bias:
            d_bias = (grad * sums[2]).to(logit_bias.dtype).reshape(logit_bias.shape)
        return (
            (grad * size * dq).to(q_dtype) if need_q else None,
            (grad * size * dk).to(k_dtype) if need_k else None,
            d_scale,
            d_bias,
            *[None] * 5,
        )


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
    tensors = [x if isinstance(x, Tensor) else None for x in (scale, bias)]
    numbers = [1.0 if tensors[0] is not None else float(scale)]
    numbers += [0.0 if tensors[1] is not None else float(bias)]
    return _SigmoidContrast.apply(
        q.contiguous(), k.contiguous(), *tensors, *numbers, ids.contiguous(), positives_in, plan
    )
