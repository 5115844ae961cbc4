"""Negative sampling: one true partner against a few drawn ones, both sides learn."""

import torch
from torch import Tensor

from .. import _check
from .._library import ops
from ..contrast.gradients import refuse_second_derivative
from ..reference import accumulate_dtype
from .nce import _noise_count


class _NegativeSampling(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, bank, index):
        loss, dx = ops.nce(x, bank, index, 1.0, 0.0, None, None, True)
        ctx.save_for_backward(x, bank, index, dx)
        # An infinite logit of the right sign costs nothing; its row must still show.
        return loss + 0 * (x.to(dx.dtype) + dx).sum(1)

    @staticmethod
    def backward(ctx, grad):
        refuse_second_derivative()
        x, bank, index, dx = ctx.saved_tensors
        d_bank = None
        if ctx.needs_input_grad[1]:
            d_bank = _bank_gradient(x, bank, index, grad)
        return (grad[:, None] * dx).to(x.dtype) if ctx.needs_input_grad[0] else None, d_bank, None


def _bank_gradient(x: Tensor, bank: Tensor, index: Tensor, grad: Tensor) -> Tensor:
    """Logits once more, a column of index at a time: `[b, K, d]` is not formed here either."""
    columns = index.shape[1]
    dtype = accumulate_dtype(x.dtype)
    wide = x.to(dtype)
    logits = torch.stack([(wide * bank[index[:, j]].to(dtype)).sum(1) for j in range(columns)], 1)
    g = logits.sigmoid()
    g[:, 0] = -torch.sigmoid(-logits[:, 0])  # p - 1 without cancellation
    g = g * grad[:, None]
    total = wide.new_zeros(bank.shape)
    for j in range(columns):
        part = g[:, j, None] * wide
        if x.is_cuda:  # sorts the rows, where index_add_ would add by atomics
            total.index_put_((index[:, j],), part, accumulate=True)
        else:
            total.index_add_(0, index[:, j], part)
    return total.to(bank.dtype)


def negative_sampling(
    x: Tensor,  # [b, d]
    bank: Tensor,  # [n, d]
    index: Tensor,  # [b, 1 + K] int64
) -> Tensor:
    """Skip-gram with negative sampling: is the row of the bank a true partner, or drawn noise?

    Equal to ``-(F.logsigmoid(s[:, 0]) + F.logsigmoid(-s[:, 1:]).sum(1)).mean()`` with ``s =
    einsum("bd,bkd->bk", x, bank[index])``. Neither rows are normalised, and both receive gradients.

    Args:
        x: `[b, d]`, vectors of the centres.
        bank: `[n, d]`, vectors of all partners, of the dtype of x.
        index: `[b, 1 + K]` int64 in [0, n): the true partner, then K drawn ones (`AliasTable`).

    Returns:
        The mean over the batch, a scalar.

    Raises:
        ValueError: Shapes do not fit, an empty batch, no noise, or an index out of range (on the
            CPU; elsewhere the loss of its row is NaN).
        TypeError: Dtypes differ or are not floating point, or index is not int64.

    Source: Mikolov et al. 2013, "Distributed Representations of Words and Phrases and their
    Compositionality", equation 4.
    """
    _check.no_transform()
    _check.rows("x", x)
    _check.rows("bank", bank, ("x", x))
    _noise_count(index, x, bank)
    return _NegativeSampling.apply(x.contiguous(), bank.contiguous(), index.contiguous()).mean()
