"""Two views of a scene with a bank each: contrastive multiview coding."""

from typing import Any

from torch import Tensor

from .. import _check
from .nce import nce


def cmc(
    l: Tensor,  # [b, d]  # noqa: E741
    ab: Tensor,  # [b, d]
    bank_l: Tensor,  # [n, d]
    bank_ab: Tensor,  # [n, d]
    index: Tensor,  # [b, 1 + K] int64
    *,
    temperature: float | Tensor = 0.07,  # [] or [b]
    normalizer_l: float | Tensor,  # []
    normalizer_ab: float | Tensor,  # []
    normalize: bool = True,
) -> Tensor:
    """CMC loss: the rows of each view against the bank of the other.

    Equal to ``nce(l, bank_ab, index, normalizer=normalizer_l) + nce(ab, bank_l, index,
    normalizer=normalizer_ab)``.

    Args:
        l: Rows of the first view, lightness in the paper, `[b, d]`.
        ab: Rows of the second view, colour in the paper, `[b, d]`.
        bank_l: `[n, d]`, the samples' rows of the first view; receives no gradient.
        bank_ab: `[n, d]`, the same of the second view.
        index: `[b, 1 + K]` int64 in [0, n): the row's own sample, then K noise samples.
        temperature: Positive; divides the similarities. A tensor of one element, or of one per row
            `[b]`, receives a gradient.
        normalizer_l: The constant of the rows l, positive: a number or a tensor of one element.
        normalizer_ab: The constant of the rows ab.
        normalize: False where l and ab have unit length already.

    Returns:
        The sum of both means, a scalar.

    Raises:
        ValueError, TypeError: As for `nce`.

    Source: Tian et al. 2020, "Contrastive Multiview Coding", equations 3 and 8.
    """
    _check.pairs("ab", ab, "l", l)
    _check.bank("bank_l", bank_l, l)
    _check.bank("bank_ab", bank_ab, l)
    if bank_l.shape[0] != bank_ab.shape[0]:
        raise ValueError(
            f"bank_ab must have as many rows as bank_l, {bank_l.shape[0]}, got {bank_ab.shape[0]}"
        )
    options: dict[str, Any] = {"temperature": temperature, "normalize": normalize}
    return nce(l, bank_ab, index, normalizer=normalizer_l, **options) + nce(
        ab, bank_l, index, normalizer=normalizer_ab, **options
    )
