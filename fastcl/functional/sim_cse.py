"""Sentences: SimCSE, with hard negatives."""

from typing import Any

import torch
from torch import Tensor

from .. import _check
from ..contrast.node import row_losses
from ..contrast.problem import problem
from .info_nce import info_nce
from .rows import inverse_temperature, row_products, softplus, times_scale
from .unit_rows import unit_rows


def sim_cse(
    z0: Tensor,  # [n, d]
    z1: Tensor,  # [n, d]
    hard: Tensor | None = None,  # [n, d]
    *,
    temperature: float | Tensor = 0.05,  # [] or [n]
    hard_weight: float = 0.0,
    ids: Tensor | None = None,  # [n] int64
    duplicates: str = "positive",
    normalize: bool = True,
) -> Tensor:
    """SimCSE loss: every sentence against the positives, and the hard negatives, of the batch.

    Equal to ``F.cross_entropy(cat([z0 @ z1.T, z0 @ hard.T], 1) / temperature + hard_weight *
    cat([zeros(n, n), eye(n)], 1), arange(n))`` of unit rows.

    Args:
        z0: `[n, d]`.
        z1: `[n, d]`; row i is the positive of row i of z0.
        hard: Optional `[n, d]`; row i is a negative chosen for row i of z0.
        temperature: Positive; divides the similarities. A tensor of one element, or of one per row
            `[n]`, receives a gradient.
        hard_weight: Added to the logit of a row and its own hard negative.
        ids: Optional integers `[n]` of the pairs: rows of z1 of equal id are duplicates; hard
            negatives stay negatives of all.
        duplicates: "positive": they are positives of each other, of which the mean counts; or
            "ignore": they are no negatives.
        normalize: False where all rows have unit length already.

    Returns:
        The mean over z0, a scalar.

    Raises:
        ValueError: Shapes do not fit, an empty batch, a temperature that is not positive, a
            weight that is not finite, or an unknown way with duplicates.
        TypeError: Dtypes differ or are not floating point.

    Source: Gao et al. 2021, "SimCSE: Simple Contrastive Learning of Sentence Embeddings",
    equations 1, 5 and 8; the weight is the logarithm of alpha in equation 8.
    """
    if hard is None:
        return info_nce(
            z0, z1, temperature=temperature, ids=ids, duplicates=duplicates, normalize=normalize
        )
    _check.pairs("z1", z1, "z0", z0)
    _check.pairs("hard", hard, "z0", z0)
    scale, row_scale = inverse_temperature(temperature, len(z0), z0.device)
    _check.finite("hard_weight", hard_weight)
    _check.one_of("duplicates", duplicates, _check.DUPLICATES)
    n = z0.shape[0]
    q = times_scale(unit_rows(z0) if normalize else z0, row_scale)
    options: dict[str, Any] = {"scale": scale, "unit": row_scale is None, "normalize": False}
    if ids is not None:
        k, h = (unit_rows(z1), unit_rows(hard)) if normalize else (z1, hard)
        own = k if duplicates == "ignore" else None
        return _with_duplicates(q, k, h, options, hard_weight, ids, own)
    k = unit_rows(z1, hard) if normalize else torch.cat([z1, hard])
    # A row's own two columns share its id and are left out; both come back one by one.
    rows = torch.arange(n, device=q.device)
    found = row_losses(problem(q, k, own=k[:n], ids=(rows, rows.repeat(2)), **options))
    away = scale * row_products(q, k[n:]) - found.positive
    return (found.loss + softplus(away + hard_weight - found.loss)).mean()


def _with_duplicates(q, k, hard, options, hard_weight, ids, own):
    """The sum over positives and the sum over hard negatives, one pass each; own: the only
    positives where the others are ignored."""
    near = row_losses(problem(q, k, own=own, ids=ids, **options))
    rows = torch.arange(q.shape[0], device=q.device)
    far = row_losses(problem(q, hard, ids=rows, positives_in=False, **options))
    lse = torch.logaddexp(far.loss + far.positive, far.positive + hard_weight)
    return (near.loss + softplus(lse - (near.loss + near.positive))).mean()
