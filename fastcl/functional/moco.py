"""A queue of keys: MoCo."""

from torch import Tensor

from .. import _check
from ..mean_contrast import mean_contrast
from .rows import row_products, unit_rows


def moco(
    query: Tensor,  # [n, d]
    key: Tensor,  # [n, d]
    queue: Tensor,  # [K, d] unit rows
    *,
    temperature: float = 0.07,
    normalize: bool = True,
) -> Tensor:
    """MoCo loss: every query against its key and a queue of older keys.

    Equal to ``F.cross_entropy(cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / temperature,
    zeros(n))`` with unit rows q and constant unit rows k.

    Args:
        query: `[n, d]`.
        key: `[n, d]`; receives no gradient.
        queue: `[K, d]` unit rows; receives no gradient. Rows of another dtype are converted.
        temperature: Positive; divides the similarities.
        normalize: False where query and key have unit length already.

    Returns:
        The mean over queries, a scalar.

    Raises:
        ValueError: Shapes do not fit, an empty batch or queue, a temperature that is not
            positive, or a queue that requires a gradient.
        TypeError: Dtypes do not fit.

    Source: He et al. 2020, "Momentum Contrast for Unsupervised Visual Representation Learning",
    equation 1.
    """
    _check.pairs("key", key, "query", query)
    _check.rows("queue", queue)
    if queue.requires_grad:
        raise ValueError("queue must not require a gradient")
    scale = 1 / _check.positive("temperature", temperature)
    q, k = (unit_rows(query), unit_rows(key.detach())) if normalize else (query, key.detach())
    return mean_contrast(q, queue.to(q.dtype), scale=scale, extra=row_products(q, k))
