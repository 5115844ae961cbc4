"""A queue of keys: MoCo."""

from typing import Any

import torch
from torch import Tensor

from .. import _check
from ..contrast.node import mean_loss, row_losses
from ..contrast.problem import problem
from .rows import inverse_temperature, row_products, times_scale
from .unit_rows import unit_rows


def moco(
    query: Tensor,  # [n, d]
    key: Tensor,  # [n, d]
    queue: Tensor,  # [K, d] unit rows
    *,
    temperature: float | Tensor = 0.07,  # [] or [n]
    ids: Tensor | None = None,  # [n] int64
    queue_ids: Tensor | None = None,  # [K] int64
    duplicates: str = "positive",
    normalize: bool = True,
) -> Tensor:
    """MoCo loss: every query against its key and a queue of older keys.

    Equal to ``F.cross_entropy(cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / temperature,
    zeros(n))`` with unit rows q and constant unit rows k.

    Args:
        query: `[n, d]`.
        key: `[n, d]`; receives no gradient.
        queue: `[K, d]` unit rows; receives no gradient. Rows of another dtype are converted.
        temperature: Positive; divides the similarities. A tensor of one element, or of one per row
            `[n]`, receives a gradient.
        ids: Optional integers `[n]` of the samples, with queue_ids: older keys of a row's id are
            duplicates.
        queue_ids: `[K]`, in the order of the queue; -1, say, where there is no sample yet.
        duplicates: "positive": they are positives beside the key, of which the mean counts (push
            to the queue after the backward); or "ignore": they are no negatives.
        normalize: False where query and key have unit length already.

    Returns:
        The mean over queries, a scalar.

    Raises:
        ValueError: Shapes do not fit, an empty batch or queue, a temperature that is not
            positive, a queue that requires a gradient, one kind of ids without the other, or an
            unknown way with duplicates.
        TypeError: Dtypes do not fit.

    Source: He et al. 2020, "Momentum Contrast for Unsupervised Visual Representation Learning",
    equation 1.
    """
    check_moco(query, key, queue, temperature, ids, queue_ids, duplicates)
    scale, row_scale = inverse_temperature(temperature, len(query), query.device)
    both = None if ids is None else (ids, queue_ids)
    key, columns = key.detach(), queue.to(query.dtype)
    options: dict[str, Any] = {
        "scale": scale,
        "ids": both,
        "unit": row_scale is None,
        "normalize_k": False,
    }
    if row_scale is not None:
        query = times_scale(unit_rows(query) if normalize else query, row_scale)
        key, normalize = unit_rows(key) if normalize else key, False
    if both is None or duplicates == "ignore":
        return mean_loss(problem(query, columns, own=key, normalize=normalize, **options))[0]
    q, k = (unit_rows(query), unit_rows(key)) if normalize else (query, key)
    older = row_losses(problem(q, columns, normalize=False, **options))
    own = scale * row_products(q, k)
    positive = (older.count * older.positive + own) / (older.count + 1)
    return (torch.logaddexp(older.loss + older.positive, own) - positive).mean()


def check_moco(query, key, queue, temperature, ids, queue_ids, duplicates) -> None:
    """What `moco` raises for arguments that do not fit."""
    _check.pairs("key", key, "query", query)
    _check.rows("queue", queue)
    if queue.requires_grad:
        raise ValueError("queue must not require a gradient")
    inverse_temperature(temperature, len(query), query.device)
    _check.one_of("duplicates", duplicates, _check.DUPLICATES)
    if (ids is None) != (queue_ids is None):
        raise ValueError("ids and queue_ids must both be given, or neither")
    _check.rows("queue", queue.to(query.dtype), ("query", query))
    _check.ids(ids, queue_ids, len(query), len(queue), query.device)
