"""The contrast of rows cut to several widths, in plain PyTorch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import accumulate_dtype, no_autocast
from .unit_rows import SHORTEST


def _cut(x: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The first features of rows divided by their length, and one over it: 0 where it is none."""
    x = x[:, :width].to(accumulate_dtype(x.dtype))
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / length.clamp(min=SHORTEST), torch.where(length < SHORTEST, 0, 1 / length)


def _one_width(s: Tensor) -> tuple[Tensor, Tensor]:
    """Mean loss of logits s [n, n], whose positives are on the diagonal, and its gradient.

    Summed relative to the positive, as in `contrast`: its p - 1 is e^-loss - 1.
    """
    positive = s.diagonal()[:, None]
    away = (s - positive).fill_diagonal_(-torch.inf)
    loss = -F.logsigmoid(-away.logsumexp(1))
    ds = (away - loss[:, None]).exp()
    ds.diagonal().copy_(torch.expm1(-loss))
    return loss.mean(), ds / len(s)


def nested_contrast_mean(
    q: Tensor,  # [n, d]
    k: Tensor,  # [n, d]
    logit_scale: Tensor | None,  # []
    scale: float,
    widths: list[int],  # rising
    weights: list[float],  # one per width
    need_q: bool,
    need_k: bool,
    need_scale: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Softmax contrast of rows q against columns k at several widths, weighted and summed.

        s_ij = scale * logit_scale * cosine of the first w features of q_i and k_j
        loss_w = mean_i (log sum_j exp(s_ij) - s_ii)

    Kusupati et al. 2022, equation 1.

    Returns:
        loss [], dq [n, d] and dk [n, d] in the accumulation dtype, [0, d] where not needed, and
        [1] the derivative to the logarithm of the scale, else [0]. A row without a length at a
        width takes no part in gradients of that width.
    """
    dtype = accumulate_dtype(q.dtype)
    total = scale if logit_scale is None else scale * logit_scale.to(dtype)
    loss, slope = q.new_zeros((), dtype=dtype), q.new_zeros(1, dtype=dtype)
    dq, dk = (torch.zeros_like(x, dtype=dtype) for x in (q, k))
    with no_autocast(q):
        for width, weight in zip(widths, weights, strict=True):
            (y, row), (z, col) = _cut(q, width), _cut(k, width)
            cosines = y @ z.T
            mean, ds = _one_width(cosines * total)
            loss += weight * mean
            ds = weight * ds
            slope += (ds * cosines).sum() * total
            for x, ours, inverse, other, g in ((dq, y, row, z, ds), (dk, z, col, y, ds.T)):
                dy = (g @ other) * total
                x[:, :width] += (dy - ours * (ours * dy).sum(1, keepdim=True)) * inverse
    return loss, dq if need_q else dq[:0], dk if need_k else dk[:0], slope[: int(need_scale)]
