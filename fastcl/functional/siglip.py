"""Two modalities without a softmax: SigLIP."""

import torch
from torch import Tensor

from .. import _check
from ..contrast.problem import problem
from ..contrast.sigmoid import sigmoid_sum
from .rows import row_products, softplus
from .unit_rows import unit_rows


def siglip(
    image: Tensor,  # [n, d]
    text: Tensor,  # [n, d]
    logit_scale: Tensor | float,  # []
    logit_bias: Tensor | float,  # []
    *,
    ids: Tensor | None = None,  # [n] int64
    duplicates: str = "positive",
    normalize: bool = True,
) -> Tensor:
    """SigLIP loss: every pair of the batch is classified as matching or not.

    Equal to ``-F.logsigmoid(sign * (logit_scale * unit_rows(image) @ unit_rows(text).T +
    logit_bias)).sum() / n`` with ``sign = 2 * eye(n) - 1``.

    Args:
        image: `[n, d]`.
        text: `[n, d]`; row i belongs to row i of image.
        logit_scale: One over the temperature, already exponentiated: a tensor of one element,
            which receives a gradient, or a float.
        logit_bias: Added to every logit: a tensor of one element, which receives a gradient, or
            a float.
        ids: Optional integers `[n]` of the pairs: pairs of equal id are duplicates.
        duplicates: "positive": they match each other; or "ignore": they count neither as a match
            nor as none.
        normalize: False where all rows have unit length already.

    Returns:
        The sum over all pairs divided by n, a scalar.

    Raises:
        ValueError: Shapes do not fit, an empty batch, a scale that is not positive, or an
            unknown way with duplicates.
        TypeError: Dtypes do not fit.

    Source: Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training", equation 1.
    """
    _check.pairs("text", text, "image", image)
    _check.one_of("duplicates", duplicates, _check.DUPLICATES)
    ignore = ids is not None and duplicates == "ignore"
    if ids is None:
        ids = torch.arange(image.shape[0], device=image.device)
    if ignore and normalize:
        image, text = unit_rows(image), unit_rows(text)
    pairs = problem(
        image, text, scale=logit_scale, ids=ids, positives_in=not ignore,
        normalize=normalize and not ignore,
    )  # fmt: skip
    total = sigmoid_sum(pairs, logit_bias)
    if ignore:  # pairs of equal id are left out of the sum, and the own pairs come back
        own = logit_scale * row_products(image, text) + logit_bias
        total = total + softplus(-own).sum()
    return total / image.shape[0]
