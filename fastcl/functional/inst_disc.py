"""Every sample is a class: instance discrimination with the full softmax."""

import torch
from torch import Tensor

from .. import _check
from ..contrast.node import mean_loss
from ..contrast.problem import problem
from .rows import inverse_temperature, times_scale
from .unit_rows import unit_rows


def inst_disc(
    x: Tensor,  # [b, d]
    bank: Tensor,  # [n, d]
    target: Tensor,  # [b] int64
    *,
    temperature: float | Tensor = 0.07,  # [] or [b]
    normalize: bool = True,
) -> Tensor:
    """Instance discrimination: every row against the bank's entries of all samples.

    Equal to ``F.cross_entropy(unit_rows(x) @ bank.T / temperature, target)``.

    Args:
        x: `[b, d]`.
        bank: `[n, d]`, one row per sample, about unit length; receives no gradient. Rows of
            another dtype are converted.
        target: `[b]` int64 in [0, n): the sample that row i of x shows.
        temperature: Positive; divides the similarities. A tensor of one element, or of one per row
            `[b]`, receives a gradient.
        normalize: False where the rows of x have unit length already.

    Returns:
        The mean over the batch, a scalar.

    Raises:
        ValueError: Shapes do not fit, an empty batch or bank, a target out of range (on the CPU;
            elsewhere indexing itself fails), a temperature that is not positive, or a bank that
            requires a gradient.
        TypeError: Dtypes do not fit.

    Source: Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance
    Discrimination", equation 2.
    """
    _check.rows("x", x)
    _check.bank("bank", bank, x)
    _check.indices("target", target, (x.shape[0],), "bank", bank)
    scale, row_scale = inverse_temperature(temperature, len(x), x.device)
    columns = bank.to(x.dtype)
    # The positive apart from the columns: loss and gradient come from one pass over the bank.
    ids = target, torch.arange(bank.shape[0], device=x.device)
    if row_scale is not None:
        x, normalize = times_scale(unit_rows(x) if normalize else x, row_scale), False
    return mean_loss(
        problem(
            x, columns, own=columns[target], scale=scale, ids=ids, normalize=normalize,
            unit=row_scale is None,
            normalize_k=False, normalize_own=False,
        )
    )[0]  # fmt: skip
