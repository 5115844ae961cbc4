"""Two views and a momentum encoder without a queue: MoCo v3."""

from typing import Any

from torch import Tensor

from .. import _check
from .info_nce import info_nce


def moco_v3(
    q1: Tensor,  # [n, d]
    q2: Tensor,  # [n, d]
    k1: Tensor,  # [n, d]
    k2: Tensor,  # [n, d]
    *,
    temperature: float | Tensor = 0.2,  # [] or [n]
    normalize: bool = True,
) -> Tensor:
    """MoCo v3 loss: the queries of each view against the momentum keys of the other.

    Equal to ``2 * temperature * (info_nce(q1, k2.detach()) + info_nce(q2, k1.detach()))`` with
    the same temperature.

    Args:
        q1: Predictions of the first view `[n, d]`.
        q2: Predictions of the second view `[n, d]`.
        k1: Momentum projections of the first view `[n, d]`; receive no gradient.
        k2: Momentum projections of the second view `[n, d]`; receive no gradient.
        temperature: Positive; divides the similarities, and the loss is multiplied by twice of it.
            A tensor of one element, or of one per row `[n]`, receives a gradient.
        normalize: False where all rows have unit length already.

    Returns:
        The sum of the means of both directions, a scalar.

    Raises:
        ValueError: Shapes do not fit, an empty batch, or a temperature that is not positive.
        TypeError: Dtypes differ or are not floating point.

    Source: Chen et al. 2021, "An Empirical Study of Training Self-Supervised Vision
    Transformers", algorithm 1.
    """
    _check.pairs("q2", q2, "q1", q1)
    _check.pairs("k1", k1, "q1", q1)
    _check.pairs("k2", k2, "q1", q1)
    several = isinstance(temperature, Tensor) and temperature.numel() > 1
    options: dict[str, Any] = {"temperature": temperature, "normalize": normalize}
    options["reduction"] = "none" if several else "mean"
    loss = info_nce(q1, k2.detach(), **options) + info_nce(q2, k1.detach(), **options)
    if isinstance(temperature, Tensor):
        temperature = temperature.to(loss.dtype).reshape(loss.shape)
    loss = 2 * temperature * loss
    return loss.mean() if several else loss
