"""Sampled noise from a bank: noise-contrastive estimation, and its constant."""

import math
from typing import Any

import torch
from torch import Tensor

from .. import _check
from .._library import ops
from ..contrast.gradients import handed_over, refuse_second_derivative
from ..contrast.node import row_losses
from ..contrast.problem import problem
from ..reference import accumulate_dtype
from .rows import inverse_temperature, times_scale
from .unit_rows import unit_rows

EPS = 1e-7  # added to both denominators in the authors' code


class _Nce(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, bank, index, log_normalizer, offset, scale, bias):
        need_x = ctx.needs_input_grad[0]
        loss, dx = ops.nce(x, bank, index, scale, bias, log_normalizer, offset, need_x)
        ctx.save_for_backward(dx)
        ctx.dtype = x.dtype
        return loss

    @staticmethod
    def backward(ctx, grad):
        refuse_second_derivative()
        (dx,) = ctx.saved_tensors
        return handed_over(dx, grad[:, None], ctx.dtype), *[None] * 6


def nce(
    x: Tensor,  # [b, d]
    bank: Tensor,  # [n, d]
    index: Tensor,  # [b, 1 + K] int64
    *,
    temperature: float | Tensor = 0.07,  # [] or [b]
    normalizer: float | Tensor,  # []
    noise: Tensor | None = None,  # [n]
    normalize: bool = True,
) -> Tensor:
    """Noise-contrastive estimation of the softmax over a bank: sample or noise?

    Equal to ``-(log(p[:, 0] / (p[:, 0] + c)) + log(c / (p[:, 1:] + c)).sum(1)).mean()`` with ``p =
    exp(einsum("bd,bkd->bk", unit_rows(x), bank[index]) / temperature) / normalizer`` and ``c =
    K / n``. Rows of the bank are read where they lie; `[b, K, d]` is never formed.

    Args:
        x: `[b, d]`.
        bank: `[n, d]`, one row per sample, about unit length; receives no gradient.
        index: `[b, 1 + K]` int64 in [0, n): the row's own sample, then K noise samples
            (`noise_indices`, `AliasTable`).
        temperature: Positive; divides the similarities. A tensor of one element, or of one per row
            `[b]`, receives a gradient.
        normalizer: The constant Z of the softmax, positive: a number, or a tensor of one element,
            whose value is not looked at (`nce_normalizer`).
        noise: Optional probabilities `[n]` the noise was drawn with; None: uniform.
        normalize: False where the rows of x have unit length already.

    Returns:
        The mean over the batch, a scalar.

    Raises:
        ValueError: Shapes do not fit, an empty batch, no noise, an index out of range (on the
            CPU; elsewhere the loss of its row is NaN), a temperature or normalizer that is not
            positive, or a bank that requires a gradient.
        TypeError: Dtypes do not fit.

    Source: Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance
    Discrimination", equations 4 to 7. As in the authors' code, 1e-7 is added to both denominators.
    """
    _check.no_transform()
    _check.rows("x", x)
    _check.bank("bank", bank, x)
    scale, row_scale = inverse_temperature(temperature, len(x), x.device)
    k = _noise_count(index, x, bank)
    log_normalizer, bias = None, 0.0
    if isinstance(normalizer, Tensor):
        _check.scalar("normalizer", normalizer, x.device)
        log_normalizer = normalizer.detach().log()
    else:
        bias = -math.log(_check.positive("normalizer", normalizer))
    offset = None
    if noise is None:
        share = k / bank.shape[0]
        bias -= math.log(share + EPS)
        rest: Tensor | float = k * math.log1p(EPS / share)
    else:
        _check.vector("noise", noise, bank.shape[0], x.device)
        expected = k * noise.detach().to(accumulate_dtype(x.dtype))
        offset = -(expected + EPS).log()
        rest = (EPS / expected)[index[:, 1:]].log1p().sum(1).mean()
    q = unit_rows(x) if normalize else x.contiguous()
    if row_scale is None and isinstance(scale, Tensor):
        row_scale = scale.reshape(1)
    if row_scale is not None:
        q, scale = times_scale(q, row_scale), 1.0
    loss = _Nce.apply(q, bank.contiguous(), index.contiguous(), log_normalizer, offset, scale, bias)
    return loss.mean() + rest


def _noise_count(index, x, bank) -> int:
    if not isinstance(index, Tensor):
        raise TypeError(f"index must be a tensor, got {type(index).__name__}")
    if index.dim() != 2 or index.shape[1] < 2:
        raise ValueError(
            f"index must have shape [{x.shape[0]}, 1 + K] with K of 1 or more, "
            f"got {list(index.shape)}"
        )
    _check.indices("index", index, (x.shape[0], index.shape[1]), "bank", bank)
    return index.shape[1] - 1


@torch.no_grad()
def nce_normalizer(
    x: Tensor,  # [b, d]
    bank: Tensor,  # [n, d]
    *,
    temperature: float = 0.07,
    normalize: bool = True,
) -> Tensor:
    """The constant of `nce`: what the softmax over the bank is divided by, on average.

    Equal to ``(unit_rows(x) @ bank.T / temperature).exp().sum(1).mean()``. The paper estimates it
    from the noise samples of the first batch; here the sum is over the whole bank.

    Args:
        x: `[b, d]`, rows of the first batch.
        bank: `[n, d]`.
        temperature: Positive; divides the similarities.
        normalize: False where the rows of x have unit length already.

    Returns:
        `[]` in float32 (float64 for float64 rows).

    Raises:
        ValueError, TypeError: As for `nce`.
    """
    _check.rows("x", x)
    _check.bank("bank", bank, x)
    scale = 1 / _check.positive("temperature", temperature)
    options: dict[str, Any] = {"scale": scale, "normalize": normalize, "normalize_k": False}
    lse = row_losses(problem(x, bank.to(x.dtype), **options)).loss
    return (lse.logsumexp(0) - math.log(lse.shape[0])).exp()
