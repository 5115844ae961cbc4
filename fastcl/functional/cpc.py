"""Predicting the future of a sequence: contrastive predictive coding."""

import torch
from torch import Tensor

from .. import _check
from ..contrast.node import mean_loss
from ..contrast.problem import problem
from ..reference import no_autocast


def cpc(
    future: Tensor,  # [steps, n, d]
    context: Tensor,  # [n, c]
    weight: Tensor,  # [steps, d, c]
) -> Tensor:
    """CPC loss: which prediction belongs to the encoding of every step ahead.

    Equal to ``stack([F.cross_entropy(future[k] @ (context @ weight[k].T).T, arange(n)) for k in
    range(steps)]).mean()``. Nothing is normalised and nothing scaled.

    Args:
        future: Encodings `[steps, n, d]`: row i of step k is what sequence i shows k + 1 steps
            after its context.
        context: Summary of each sequence so far `[n, c]`.
        weight: `[steps, d, c]`, the linear prediction of every step.

    Returns:
        The mean over steps and sequences, a scalar.

    Raises:
        ValueError: Shapes do not fit, or an empty batch.
        TypeError: Dtypes differ or are not floating point.

    Source: van den Oord et al. 2018, "Representation Learning with Contrastive Predictive
    Coding", equations 3 and 4, with the predictions of the batch as the candidates.
    """
    _check.rows("context", context)
    n, c = context.shape
    _check.array("future", future, 3, "[steps, n, d]", ("context", context))
    _check.array("weight", weight, 3, "[steps, d, c]", ("context", context))
    if future.shape[1] != n:
        raise ValueError(
            f"future must have shape [steps, {n}, d] for {n} contexts, got {list(future.shape)}"
        )
    steps, _, d = future.shape
    if weight.shape != (steps, d, c):
        raise ValueError(f"weight must have shape [{steps}, {d}, {c}], got {list(weight.shape)}")
    losses = []
    for encoding, matrix in zip(future.unbind(), weight.unbind(), strict=True):
        with no_autocast(context):
            prediction = context @ matrix.T
        p = problem(
            encoding, prediction, scale=1.0, diagonal=True, unit=False, normalize=False
        )  # fmt: skip
        losses.append(mean_loss(p)[0])
    return torch.stack(losses).mean()
