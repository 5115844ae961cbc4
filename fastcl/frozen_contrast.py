"""The mean of the softmax contrast with a constant key and constant columns: MoCo's loss."""

import torch
from torch import Tensor

from . import _check
from ._gradients import handed_over, needs_gradient, refuse_second_derivative
from ._library import ops


class _FrozenContrastMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, columns, *options):
        loss, dq = ops.frozen_contrast_mean(query, key, columns, *options, True)
        ctx.save_for_backward(dq)
        ctx.dtype = query.dtype
        return loss

    @staticmethod
    def backward(ctx, grad):
        refuse_second_derivative()
        return handed_over(*ctx.saved_tensors, grad, ctx.dtype), *[None] * 7


def frozen_contrast_mean(
    query: Tensor,  # [n, d]
    key: Tensor,  # [n, d]
    columns: Tensor,  # [m, d]
    *,
    scale: float,
    ids: tuple[Tensor, Tensor] | None = None,
    normalize: bool = True,
    normalize_key: bool = True,
) -> Tensor:
    """Mean over the rows of their contrast with a key of their own and constant columns, in linear
    memory.

    Equal to ``contrast(q, columns, scale=scale, ids=ids, extra=row_products(q, k)).loss.mean()``
    with rows q and k of unit length. The gradient comes with the loss, in two products in all, so
    the columns may change before the backward.

    Args:
        query: Rows `[n, d]`.
        key: `[n, d]`, the positive of each row; receives no gradient.
        columns: Negatives `[m, d]` of length one at most; receive no gradient.
        scale: One over the temperature.
        ids: int64 of the rows and of the columns, `([n], [m])`: a row leaves out the columns of its
            id.
        normalize: Divide the query by its length; False where it has unit length already.
        normalize_key: The same of the key.

    Returns:
        A scalar, float32 (float64 for float64 rows).

    Raises:
        ValueError: Shapes, devices or ids do not fit, or the scale is not finite and positive.
        TypeError: A dtype does not fit.
    """
    row_ids, col_ids = (None, None) if ids is None else ids
    _check.contrast(query, columns, scale, row_ids, col_ids, None, None, False, False)
    _check.pairs("key", key, "query", query)
    query, key, columns = (x.contiguous() for x in (query, key, columns))
    ids = (None if x is None else x.contiguous() for x in (row_ids, col_ids))
    options = float(scale), *ids, normalize, normalize_key
    if needs_gradient(query):
        return _FrozenContrastMean.apply(query, key, columns, *options)
    return ops.frozen_contrast_mean(query, key, columns, *options, False)[0]
