"""Two modalities: CLIP."""

import torch.nn.functional as F
from torch import Tensor

from .. import _check
from ..contrast.node import mean_loss, row_losses
from ..contrast.problem import problem
from .rows import row_products
from .unit_rows import unit_rows


def clip(
    image: Tensor,  # [n, d]
    text: Tensor,  # [n, d]
    logit_scale: Tensor | float,  # []
    *,
    ids: Tensor | None = None,  # [n] int64
    duplicates: str = "positive",
    normalize: bool = True,
) -> Tensor:
    """CLIP loss: the mean of image to text and text to image.

    Equal to ``(F.cross_entropy(s, arange(n)) + F.cross_entropy(s.T, arange(n))) / 2`` with
    ``s = logit_scale * unit_rows(image) @ unit_rows(text).T``.

    Args:
        image: `[n, d]`.
        text: `[n, d]`; row i belongs to row i of image.
        logit_scale: One over the temperature, already exponentiated: a tensor of one element,
            which receives a gradient, or a float.
        ids: Optional integers `[n]` of the pairs: pairs of equal id are duplicates.
        duplicates: "positive": they are positives of each other, of which the mean counts; or
            "ignore": they are no negatives.
        normalize: False where all rows have unit length already.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: Shapes do not fit, an empty batch, a scale that is not positive, or an
            unknown way with duplicates.
        TypeError: Dtypes do not fit.

    Source: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
    Supervision", figure 3.
    """
    _check.pairs("text", text, "image", image)
    _check.one_of("duplicates", duplicates, _check.DUPLICATES)
    if ids is not None and duplicates == "ignore":
        rows = (unit_rows(image), unit_rows(text)) if normalize else (image, text)
        return _without_duplicates(*rows, logit_scale, ids)
    options = {"scale": logit_scale, "both": True, "normalize": normalize}
    return mean_loss(problem(image, text, ids=ids, diagonal=ids is None, **options))[0]


def _without_duplicates(image, text, scale, ids):
    """Pairs of equal id are in no sum; a row's own pair comes back beside it."""
    options = {"both": True, "positives_in": False, "normalize": False}
    result = row_losses(problem(image, text, scale=scale, ids=ids, **options))
    own = scale * row_products(image, text)
    others = result.loss + result.positive, result.col_loss + result.col_positive
    return sum(F.softplus(lse - own).mean() for lse in others) / 2
