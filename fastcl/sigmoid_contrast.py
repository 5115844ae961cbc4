"""The sigmoid contrast under SigLIP, differentiable: loss and gradients come from one pass."""

import torch
from torch import Tensor

from . import _check
from ._gradients import handed_over, refuse_forward_mode, refuse_second_derivative
from ._library import ops


class _SigmoidContrast(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, q, k, logit_scale, logit_bias, scale, bias, row_ids, col_ids, positives_in, normalize
    ):  # fmt: skip
        # None stands for a tensor given already: Dynamo takes no tensor twice.
        col_ids = row_ids if col_ids is None else col_ids
        need_q, need_k, need_scale, need_bias = ctx.needs_input_grad[:4]
        operator = ops.raw_sigmoid_contrast if normalize else ops.sigmoid_contrast
        loss, dq, dk, sums = operator(
            q, k, scale, logit_scale, bias, logit_bias, row_ids, col_ids,
            need_q or need_scale or need_bias, need_k, positives_in,
        )  # fmt: skip
        ctx.save_for_backward(dq, dk, sums, logit_scale, logit_bias)
        ctx.options = scale, q.dtype, k.dtype
        return loss

    @staticmethod
    def backward(ctx, grad):
        refuse_second_derivative()
        dq, dk, sums, logit_scale, logit_bias = ctx.saved_tensors
        scale, q_dtype, k_dtype = ctx.options
        need_q, need_k, need_scale, need_bias = ctx.needs_input_grad[:4]
        d_scale = d_bias = None
        if need_scale:
            d_scale = (grad * sums[0] * scale).to(logit_scale.dtype).reshape(logit_scale.shape)
        if need_bias:
            d_bias = (grad * sums[1]).to(logit_bias.dtype).reshape(logit_bias.shape)
        return (
            handed_over(dq, grad, q_dtype) if need_q else None,
            handed_over(dk, grad, k_dtype) if need_k else None,
            d_scale,
            d_bias,
            *[None] * 6,
        )


def sigmoid_contrast(
    q: Tensor,  # [n, d]
    k: Tensor,  # [m, d]
    *,
    scale: float | Tensor,
    bias: float | Tensor = 0.0,
    ids: tuple[Tensor, Tensor] | Tensor | None = None,
    positives_in: bool = True,
    normalize: bool = False,
) -> Tensor:
    """Logistic loss of every row with every column in linear memory, summed over all pairs.

    Equal to ``-F.logsigmoid(sign * (scale * q @ k.T + bias)).sum()`` with sign 1 where the ids
    are equal and -1 elsewhere.

    Args:
        q: Rows `[n, d]`.
        k: Columns `[m, d]`.
        scale: One over the temperature: a float, or a tensor of one element that receives a
            gradient.
        bias: Added to every logit: a float, or a tensor of one element that receives a gradient.
        ids: int64 of the rows and of the columns, `([n], [m])`, or one `[n]` for both; None: no
            column is a positive, as for the negatives of another rank.
        positives_in: False leaves pairs of equal ids out of the sum.
        normalize: Divide rows and columns by their length on the way in; False uses them as they
            are.

    Returns:
        A scalar, float32 (float64 for float64 rows).

    Raises:
        ValueError: Shapes, devices or ids do not fit, or the scale is not finite and positive.
        TypeError: A dtype does not fit.
    """
    row_ids, col_ids = ids if isinstance(ids, tuple) else (ids, ids)
    _check.contrast(q, k, scale, row_ids, col_ids, None, None, False, False)
    if isinstance(bias, Tensor):
        _check.scalar("bias", bias, q.device)
    else:
        _check.finite("bias", bias)
    tensors = [x if isinstance(x, Tensor) else None for x in (scale, bias)]
    refuse_forward_mode(q, k, *tensors)
    numbers = [1.0 if tensors[0] is not None else float(scale)]
    numbers += [0.0 if tensors[1] is not None else float(bias)]
    col_ids = None if col_ids is row_ids else col_ids.contiguous()
    row_ids = None if row_ids is None else row_ids.contiguous()
    return _SigmoidContrast.apply(
        q.contiguous(),
        k.contiguous(),
        *tensors,
        *numbers,
        row_ids,
        col_ids,
        positives_in,
        normalize,
    )
