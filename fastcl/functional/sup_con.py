"""Labels: the supervised contrastive loss."""

from typing import Any

from torch import Tensor

from .. import _check
from ..contrast.node import mean_loss
from ..contrast.problem import problem
from .contrast import contrast
from .rows import inverse_temperature


def sup_con(
    z: Tensor,  # [n, d]
    labels: Tensor,  # [n] int64
    *,
    temperature: float | Tensor = 0.07,  # [] or [n]
    base_temperature: float | None = None,
    normalize: bool = True,
) -> Tensor:
    """Supervised contrastive loss: all other rows of the same label are positives.

    Equal to ``-(log_softmax(s) * same / same.sum(1)).sum(1).mean() * temperature /
    base_temperature`` with ``s = (z @ z.T / temperature).fill_diagonal_(-inf)``.

    Args:
        z: `[n, d]`; several views of a sample are several rows.
        labels: `[n]` int64.
        temperature: Positive; divides the similarities. A tensor of one element, or of one per row
            `[n]`, receives a gradient.
        base_temperature: Positive; the loss is multiplied by temperature / base_temperature.
            None: the same as temperature.
        normalize: False where all rows have unit length already.

    Returns:
        The mean over all rows, a scalar; a row without a positive counts as zero.

    Raises:
        ValueError: Shapes do not fit, an empty batch, or a temperature that is not positive.
        TypeError: Dtypes do not fit.

    Source: Khosla et al. 2020, "Supervised Contrastive Learning", equation 2.
    """
    _check.rows("z", z)
    scale, row_scale = inverse_temperature(temperature, len(z), z.device)
    _check.vector("labels", labels, z.shape[0], z.device, integer=True)
    base = (
        None if base_temperature is None else _check.positive("base_temperature", base_temperature)
    )
    if row_scale is not None:
        weight = None if base is None else temperature / base
        options: dict[str, Any] = {"labels": labels, "row_weight": weight, "normalize": normalize}
        return contrast(z, temperature=temperature, **options)
    mean, _ = mean_loss(problem(z, scale=scale, ids=labels, normalize=normalize, paired=False))
    return mean if base is None else mean * (temperature / base)
