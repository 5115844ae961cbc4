"""Embeddings that can be cut short: InfoNCE at several widths."""

from collections.abc import Sequence

from torch import Tensor

from .. import _check
from ..contrast.nested import nested_mean

# Widths of one pass: their tiles of similarities exist at the same time.
TOGETHER = 16


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
    weights))``; rows are divided by their length at every width. On the CPU all widths go
    through the tiles together: similarities of one are the narrower one's plus a few products.

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
    _check.no_transform()
    _check.pairs("key", key, "query", query)
    by_width = _checked(widths, weights, query.shape[1])
    scale = _check.inverse("temperature", temperature, query.device)
    groups = [by_width[i : i + TOGETHER] for i in range(0, len(by_width), TOGETHER)]
    first, *more = [nested_mean(query, key, scale, *zip(*x, strict=True)) for x in groups]
    return sum(more, first)


def _listed(name: str, x) -> list:
    if not isinstance(x, Sequence):
        raise TypeError(f"{name} must be a sequence of numbers, got {type(x).__name__}")
    return list(x)


def _checked(widths, weights, d: int) -> list[tuple[int, float]]:
    """Rising widths and their weights; what has weight zero takes no part."""
    widths = _listed("widths", widths)
    if not widths:
        raise ValueError("widths must hold one width at least")
    for w in widths:
        _check.count("widths", w)
        if w > d:
            raise ValueError(f"widths must be {d} at most, got {w}")
    weights = [1.0] * len(widths) if weights is None else _listed("weights", weights)
    if len(weights) != len(widths):
        raise ValueError(f"weights must be as many as widths, {len(widths)}, got {len(weights)}")
    for weight in weights:
        if _check.finite("weights", weight) < 0:
            raise ValueError(f"weights must not be negative, got {weight}")
    total = dict.fromkeys(sorted(widths), 0.0)
    for w, weight in zip(widths, weights, strict=True):
        total[w] += weight
    found = [(w, weight) for w, weight in total.items() if weight > 0]
    return found or list(total.items())[:1]
