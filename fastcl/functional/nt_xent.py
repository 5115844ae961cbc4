"""Two views of every sample: NT-Xent and its decoupled variants."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _check
from ..contrast.node import mean_loss, row_losses
from ..contrast.problem import problem
from .contrast import contrast
from .rows import inverse_temperature, row_products, times_scale
from .unit_rows import unit_rows


def _contrast(
    z0: Tensor,  # [n, d]
    z1: Tensor,  # [n, d]
    temperature: float | Tensor,  # [] or [n]
    normalize: bool,
    positives_in: bool = True,
) -> tuple[Tensor, Tensor]:
    """The mean over both views, and the loss of every row, [2n], a constant."""
    _check.pairs("z1", z1, "z0", z0)
    n = z0.shape[0]
    scale, row_scale = inverse_temperature(temperature, n, z0.device)
    if n == 1 and not positives_in:
        raise ValueError("z0 must have 2 rows at least, got 1: a single pair has no negative")
    ids = torch.arange(2 * n, device=z0.device).remainder_(n)  # a row shares it with its other view
    if row_scale is not None:
        return _row_by_row(z0, z1, row_scale, ids, normalize, positives_in)
    options: dict[str, Any] = {
        "scale": scale,
        "ids": ids,
        "normalize": normalize,
        "positives_in": positives_in,
    }
    return mean_loss(problem((z0, z1), **options))


def _row_by_row(z0, z1, row_scale, ids, normalize, positives_in=True) -> tuple[Tensor, Tensor]:
    """The same with a temperature per pair: rows are no columns then, and a row shares its id with
    itself and its other view, which comes back."""
    z = unit_rows(z0, z1) if normalize else torch.cat([z0, z1])
    q, own = times_scale(z, row_scale.repeat(2)), z.roll(z0.shape[0], 0)
    options: dict[str, Any] = {"scale": 1.0, "ids": ids, "unit": False, "normalize": False}
    if positives_in:
        return mean_loss(problem(q, z, own=own, **options))
    found = row_losses(problem(q, z, positives_in=False, **options))
    losses = found.loss + found.positive - row_products(q, own)
    return losses.mean(), losses.detach()


def nt_xent(
    z0: Tensor,  # [n, d]
    z1: Tensor,  # [n, d]
    *,
    temperature: float | Tensor = 0.5,  # [] or [n]
    ids: Tensor | None = None,  # [n] int64
    duplicates: str = "positive",
    normalize: bool = True,
) -> Tensor:
    """NT-Xent, the loss of SimCLR: every row against the 2n - 1 other rows of both views.

    Equal to ``F.cross_entropy((z @ z.T / temperature).fill_diagonal_(-inf), partner)``
    with ``z = unit_rows(cat([z0, z1]))`` and ``partner = arange(2 * n).roll(n)``.

    Args:
        z0: First view `[n, d]`.
        z1: Second view `[n, d]`; row i belongs to row i of z0.
        temperature: Positive; divides the similarities. A tensor of one element, or of one per
            pair `[n]`, receives a gradient.
        ids: Optional integers `[n]` of the pairs: pairs of equal id are duplicates.
        duplicates: "positive": all their views are positives of each other, of which the mean
            counts; or "ignore": they are no negatives.
        normalize: False where all rows have unit length already.

    Returns:
        The mean over all 2n rows, a scalar.

    Raises:
        ValueError: Shapes do not fit, an empty batch, or a temperature that is not positive.
        TypeError: Dtypes differ or are not floating point.

    Source: Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual
    Representations", equation 1.
    """
    _check.one_of("duplicates", duplicates, _check.DUPLICATES)
    if ids is None:
        return _contrast(z0, z1, temperature, normalize)[0]
    _check.pairs("z1", z1, "z0", z0)
    scale, row_scale = inverse_temperature(temperature, z0.shape[0], z0.device)
    _check.vector("ids", ids, z0.shape[0], z0.device, integer=True)
    ids = ids.repeat(2)
    if row_scale is not None and duplicates == "ignore":
        return _row_by_row(z0, z1, row_scale, ids, normalize)[0]
    if row_scale is not None:
        each = torch.as_tensor(temperature).repeat(2)
        return contrast(torch.cat([z0, z1]), labels=ids, temperature=each, normalize=normalize)
    # Where columns of a row's id are left out, the other view comes back.
    own = torch.cat([z1, z0]) if duplicates == "ignore" else None
    options: dict[str, Any] = {"scale": scale, "ids": ids, "own": own, "normalize": normalize}
    return mean_loss(problem((z0, z1), **options))[0]


def dcl(
    z0: Tensor,  # [n, d]
    z1: Tensor,  # [n, d]
    *,
    temperature: float | Tensor = 0.1,  # [] or [n]
    normalize: bool = True,
) -> Tensor:
    """Decoupled contrastive loss: NT-Xent with the positive left out of the denominator.

    Equal to ``(s.masked_fill(self | positive, -inf).logsumexp(1) - s[positive]).mean()`` with
    ``s = z @ z.T / temperature`` and ``z = unit_rows(cat([z0, z1]))``.

    Arguments but for ids and duplicates, result and errors are those of `nt_xent`; a single pair,
    which has no negative, is an error too.

    Source: Yeh et al. 2022, "Decoupled Contrastive Learning", equation 6.
    """
    return _contrast(z0, z1, temperature, normalize, positives_in=False)[0]


def flat_nce(
    z0: Tensor,  # [n, d]
    z1: Tensor,  # [n, d]
    *,
    temperature: float | Tensor = 0.1,  # [] or [n]
    normalize: bool = True,
) -> Tensor:
    """FlatNCE: the value of NT-Xent with the gradient of the decoupled loss.

    Equal to ``nt_xent(z0, z1).detach() + dcl(z0, z1) - dcl(z0, z1).detach()``.

    Arguments, result and errors are those of `dcl`.

    Source: Chen et al. 2021, "Simpler, Faster, Stronger: Breaking The log-K Curse On Contrastive
    Learners With FlatNCE", equation 8.
    """
    loss, losses = _contrast(z0, z1, temperature, normalize, positives_in=False)
    # With v the decoupled loss, NT-Xent is log(1 + exp(v)).
    return -F.logsigmoid(-losses).mean() + loss - loss.detach()
