"""Embeddings that can be cut short: InfoNCE at several widths."""

from collections.abc import Sequence

from torch import Tensor

from .. import _check
from .info_nce import info_nce


def matryoshka(
    query: Tensor,  # [n, d]
    key: Tensor,  # [n, d]
    *,
    widths: Sequence[int],
    weights: Sequence[float] | None = None,
    temperature: float | Tensor = 0.05,  # []
) -> Tensor:
    """InfoNCE of the first features of query and key, at every width by itself.

    Equal to ``sum(weight * info_nce(query[:, :w], key[:, :w]) for w, weight in zip(widths,
    weights))``; rows are divided by their length at every width.

    Args:
        query: `[n, d]`.
        key: `[n, d]`; row i is the positive of query i.
        widths: How many features each time, from 1 to d.
        weights: One per width, not negative; None: ones.
        temperature: Positive; divides the similarities. A tensor of one element receives a
            gradient.

    Returns:
        The weighted sum, a scalar.

    Raises:
        ValueError: Shapes do not fit, an empty batch, no width or one out of range, weights that do
            not fit, or a temperature that is not positive.
        TypeError: Dtypes differ or are not floating point.

    Source: Kusupati et al. 2022, "Matryoshka Representation Learning", equation 1.
    """
    _check.pairs("key", key, "query", query)
    widths = list(widths)
    if not widths:
        raise ValueError("widths must hold one width at least")
    for w in widths:
        _check.count("widths", w)
        if w > query.shape[1]:
            raise ValueError(f"widths must be {query.shape[1]} at most, got {w}")
    weights = [1.0] * len(widths) if weights is None else list(weights)
    if len(weights) != len(widths):
        raise ValueError(f"weights must be as many as widths, {len(widths)}, got {len(weights)}")
    for weight in weights:
        if _check.finite("weights", weight) < 0:
            raise ValueError(f"weights must not be negative, got {weight}")
    losses = (info_nce(query[:, :w], key[:, :w], temperature=temperature) for w in widths)
    return sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
