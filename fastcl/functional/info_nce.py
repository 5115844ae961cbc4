"""InfoNCE."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _check
from ..contrast.node import mean_loss, row_losses
from ..contrast.problem import problem
from ..reference import accumulate_dtype
from .contrast import contrast
from .rows import inverse_temperature, reduced, row_products, times_scale
from .unit_rows import unit_rows


def info_nce(
    query: Tensor,  # [n, d]
    key: Tensor,  # [n, d]
    negatives: Tensor | None = None,  # [m, d], or [n, m, d] where paired
    *,
    temperature: float | Tensor = 0.1,  # [] or [n]
    negative_mode: str = "unpaired",
    reduction: str = "mean",
    ids: Tensor | None = None,  # [n] int64
    duplicates: str = "positive",
    label_smoothing: float = 0.0,
    normalize: bool = True,
) -> Tensor:
    """InfoNCE of every query against its key and the negatives.

    Equal to ``F.cross_entropy(unit_rows(query) @ unit_rows(key).T / temperature, arange(n))``.

    Args:
        query: `[n, d]`.
        key: `[n, d]`; row i is the positive of query i, and without negatives the other rows are
            its negatives.
        negatives: Rows that replace the other keys: `[m, d]` for all queries ("unpaired"), or
            `[n, m, d]` with a set for each ("paired").
        temperature: Positive; divides the similarities. A tensor of one element, or of one per
            query `[n]`, receives a gradient.
        negative_mode: "unpaired" or "paired".
        reduction: "mean", "sum", or "none" for one loss per query, `[n]`.
        ids: Optional integers `[n]` of the pairs, without negatives: keys of equal id are
            duplicates.
        duplicates: "positive": they are positives of each other, of which the mean counts; or
            "ignore": they are no negatives.
        label_smoothing: From 0 to 1, as of ``F.cross_entropy``: the part of the target that is
            spread over all keys.
        normalize: False where all rows have unit length already.

    Returns:
        The loss, a scalar, or `[n]` for reduction "none".

    Raises:
        ValueError: Shapes do not fit, an empty batch, a temperature that is not positive, an
            unknown mode, reduction or way with duplicates, ids together with negatives, or label
            smoothing together with negatives or with duplicates that are ignored.
        TypeError: Dtypes differ or are not floating point.

    Source: van den Oord et al. 2018, "Representation Learning with Contrastive Predictive
    Coding", equation 4.
    """
    _check.pairs("key", key, "query", query)
    _check.one_of("negative_mode", negative_mode, ("unpaired", "paired"))
    _check.one_of("reduction", reduction, ("mean", "sum", "none"))
    scale, row_scale = inverse_temperature(temperature, len(query), query.device)
    _check.one_of("duplicates", duplicates, _check.DUPLICATES)
    if negatives is not None and ids is not None:
        raise ValueError("ids must be None where negatives are given: they replace the other keys")
    if _check.share("label_smoothing", label_smoothing):
        if negatives is not None or (ids is not None and duplicates == "ignore"):
            raise ValueError(
                "label_smoothing must be 0 where negatives are given or duplicates are ignored"
            )
        return contrast(
            query, key, temperature=temperature, labels=None if ids is None else (ids, ids),
            label_smoothing=label_smoothing, reduction=reduction, normalize=normalize,
        )  # fmt: skip
    if negatives is not None and negative_mode == "paired":
        q, k = (unit_rows(query), unit_rows(key)) if normalize else (query, key)
        q = times_scale(q, row_scale)
        return reduced(_paired(q, k, negatives, scale, normalize), reduction)
    options: dict[str, Any] = {"scale": scale, "normalize": normalize}
    if row_scale is not None:
        query = times_scale(unit_rows(query) if normalize else query, row_scale)
        options |= {"normalize": False, "unit": False}
        options |= {"normalize_k": normalize, "normalize_own": normalize}
    if negatives is not None:
        _check.rows("negatives", negatives, ("query", query))
        p = problem(query, negatives, own=key, **options)
    elif ids is not None:
        own = key if duplicates == "ignore" else None
        p = problem(query, key, ids=ids, own=own, **options)
    else:
        p = problem(query, key, diagonal=True, **options)
    if reduction == "none":
        return row_losses(p).loss
    mean, _ = mean_loss(p)
    return mean * query.shape[0] if reduction == "sum" else mean


def _paired(q, k, negatives, scale, normalize):
    """Negatives [n, m, d] are as large as anything formed here: plain products serve."""
    if negatives.dim() != 3 or negatives.shape[0] != q.shape[0]:
        raise ValueError(
            f"negatives must have shape [{q.shape[0]}, m, {q.shape[1]}] where paired, "
            f"got {list(negatives.shape)}"
        )
    _check.rows("negatives", negatives.flatten(0, 1), ("query", q))
    dtype = accumulate_dtype(q.dtype)
    rows = negatives.to(dtype)
    if normalize:
        rows = F.normalize(rows, dim=2, eps=1e-12)
    with torch.autocast(q.device.type, enabled=False):
        s = torch.einsum("nd,nmd->nm", q.to(dtype), rows)
    s = torch.cat([row_products(q, k)[:, None], s], dim=1) * scale
    # logsumexp less the positive would lose near convergence what either of them is rounded by.
    return -s.log_softmax(1)[:, 0]
