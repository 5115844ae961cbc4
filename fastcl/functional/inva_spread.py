"""Two views with a penalty on every negative: invariant and spreading instance features."""

import math

import torch
from torch import Tensor

from .. import _check
from ..contrast.gradients import refuse_second_derivative
from ..reference import accumulate_dtype, no_autocast
from .rows import inverse_temperature, softplus, times_scale
from .unit_rows import unit_rows

# Logits formed at once: 8 MB of float32, a few dozen of which live at the same time.
CHUNK = 1 << 21


def inva_spread(
    z0: Tensor,  # [n, d]
    z1: Tensor,  # [n, d]
    *,
    temperature: float | Tensor = 0.1,  # [] or [n]
    negative_weight: float = 1.0,
    normalize: bool = True,
) -> Tensor:
    """Invariant and spreading instance features: recognise the other view, and nobody else.

    Equal to ``-(log(p[partner]) + negative_weight * log(1 - p[negatives]).sum(1)).mean()`` with
    ``p = softmax((z @ z.detach().T / temperature).fill_diagonal_(-inf))`` and ``z =
    unit_rows(cat([z0, z1]))``; in the denominator of p the negatives are multiplied by
    negative_weight.

    As in the authors' code the second factor of every product is constant, so the gradient is
    half of the true one. Where the authors' code is NaN, on pairs that p is sure of, this is not.
    Computed in chunks of rows: the matrix is never formed.

    Args:
        z0: First view `[n, d]`.
        z1: Second view `[n, d]`; row i belongs to row i of z0.
        temperature: Positive; divides the similarities. A tensor of one element, or of one per pair
            `[n]`, receives a gradient.
        negative_weight: Above 0. Below 1, p of a near negative may be above one: then the loss is
            NaN, as the authors'.
        normalize: False where all rows have unit length already.

    Returns:
        The mean over all 2n rows, a scalar.

    Raises:
        ValueError: Shapes do not fit, an empty batch, a temperature or a weight that is not
            positive.
        TypeError: Dtypes differ or are not floating point.

    Source: Ye et al. 2019, "Unsupervised Embedding Learning via Invariant and Spreading Instance
    Feature", equation 5.
    """
    _check.no_transform()
    _check.pairs("z1", z1, "z0", z0)
    scale, row_scale = inverse_temperature(temperature, len(z0), z0.device)
    weight = _check.positive("negative_weight", negative_weight)
    z = unit_rows(z0, z1) if normalize else torch.cat([z0, z1])
    rows = z.to(accumulate_dtype(z.dtype))
    q = rows * scale if row_scale is None else times_scale(rows, row_scale.repeat(2))
    return _InvaSpread.apply(q, rows.detach(), weight).mean()


class _InvaSpread(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, weight):
        n = q.shape[0]
        losses, grads = [], []
        with no_autocast(q):
            for part in torch.arange(n, device=q.device).split(max(1, CHUNK // n)):
                loss, g = _rows(q[part] @ k.T, part, n, weight)
                losses.append(loss)
                grads.append(g @ k)
        ctx.save_for_backward(torch.cat(grads))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx, grad):
        refuse_second_derivative()
        (dq,) = ctx.saved_tensors
        return grad[:, None] * dq, None, None


def _rows(
    s: Tensor,  # [c, n] logits of some rows with all
    i: Tensor,  # [c] which rows they are
    n: int,
    weight: float,
) -> tuple[Tensor, Tensor]:
    """Loss [c] and its gradient to the logits [c, n].

    One negative of a row may hold nearly all of p: where it holds half or more its 1 - p is taken
    from the sum of everything else, two logs whose difference would be all rounding where p is
    small. For all the others p is a half at most where the weight is 1 or more.
    """
    partner = ((i + n // 2) % n)[:, None]
    negative = torch.ones_like(s, dtype=torch.bool)
    negative.scatter_(1, torch.cat([i[:, None], partner], 1), False)
    positive = s.gather(1, partner)[:, 0]
    t = s.masked_fill(~negative, -torch.inf)
    top, where = t.max(1)
    is_top = torch.zeros_like(negative).scatter_(1, where[:, None], True) & negative
    others = t.masked_fill(is_top, -torch.inf)

    log_weight = math.log(weight)
    fair = torch.logaddexp(others.logsumexp(1) + log_weight, positive)  # all but top in z
    rest = fair  # z - exp(top)
    if weight > 1:
        rest = torch.logaddexp(fair, top + math.log(weight - 1))
    if weight < 1:
        rest = fair + torch.log1p((weight - 1) * (top - fair).exp())
    loss = softplus(t.logsumexp(1) + log_weight - positive)  # -log p of the partner
    log_z = positive + loss
    p = (others - log_z[:, None]).exp()  # of the negatives but top
    p_top = (top - log_z).exp()
    log_q = torch.log1p(-p).sum(1) + torch.where(p_top < 0.5, torch.log1p(-p_top), rest - log_z)

    odds = p / (1 - p)  # a half over a half at most, for a weight of 1
    total = odds.sum(1)
    # p of a column times the odds of top, which may be infinite by themselves.
    by_top = (top - rest - log_z)[:, None]
    g = weight * (p * (1 - weight * total[:, None]) + odds - weight * (others + by_top).exp())
    g_top = weight * p_top * (1 + (fair - rest).exp() - weight * total)
    g = torch.where(is_top, g_top[:, None], g)
    p_partner = (-loss).exp()
    g_partner = torch.expm1(-loss) - weight * (p_partner * total + (positive + by_top[:, 0]).exp())
    g.scatter_(1, partner, g_partner[:, None])
    return loss - weight * log_q, g
