"""What the fronts share: signed temperatures, the dtype of the result, the plain lse."""

import math

import torch
from torch import Tensor

from ..contrast import contrast


def signed_scale(
    temperature: float | Tensor,  # []
) -> tuple[int, float | Tensor]:
    """The sign of a temperature, and one over its size; the sign of a tensor is not looked at."""
    if isinstance(temperature, Tensor):
        return 1, 1 / temperature
    if temperature == 0 or not math.isfinite(temperature):
        raise ValueError(f"temperature must be finite and not 0, got {temperature}")
    return (1 if temperature > 0 else -1), 1 / abs(temperature)


def in_dtype_of(
    x: Tensor,
    loss: Tensor,
) -> Tensor:
    """The loss in the dtype that a cross-entropy of logits from x has, autocast included."""
    lowered = x.dtype in (torch.float16, torch.bfloat16)
    if lowered and torch.is_autocast_enabled(x.device.type):
        return loss
    return loss.to(x.dtype)


def log_sum(
    q: Tensor,  # [n, d]
    k: Tensor | None,  # [m, d]; None: the rows themselves, self left out
    scale: float | Tensor,
    ids: tuple[Tensor, Tensor] | Tensor | None = None,
    unit: bool = True,
) -> Tensor:
    """The log of the sum of the exponentials of every row's logits, [n], in which columns with
    the row's id are left out."""
    result = contrast(q, k, scale=scale, ids=ids, positives_in=False, unit=unit)
    # Where nothing is left in the sum, the loss is -inf, and so is this.
    return result.loss + result.positive
