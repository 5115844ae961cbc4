"""Two modalities: CLIP."""

from typing import Any

from torch import Tensor

from .. import _check
from ..contrast.node import mean_loss, row_losses
from ..contrast.problem import problem
from ..reference import accumulate_dtype
from .contrast import contrast
from .rows import row_products, softplus
from .unit_rows import unit_rows


def clip(
    image: Tensor,  # [n, d]
    text: Tensor,  # [n, d]
    logit_scale: Tensor | float,  # []
    *,
    ids: Tensor | None = None,  # [n] int64
    duplicates: str = "positive",
    label_smoothing: float = 0.0,
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
        label_smoothing: From 0 to 1, as of ``F.cross_entropy``: the part of the target that is
            spread over all columns, in both directions.
        normalize: False where all rows have unit length already.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: Shapes do not fit, an empty batch, a scale that is not positive, an
            unknown way with duplicates, or label smoothing together with ignored ones.
        TypeError: Dtypes do not fit.

    Source: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
    Supervision", figure 3.
    """
    _check.pairs("text", text, "image", image)
    _check.one_of("duplicates", duplicates, _check.DUPLICATES)
    if _check.share("label_smoothing", label_smoothing):
        if ids is not None and duplicates == "ignore":
            raise ValueError("label_smoothing must be 0 where duplicates are ignored")
        _check.scale(logit_scale, image.device)
        if isinstance(logit_scale, Tensor):  # whose inverse is taken twice
            logit_scale = logit_scale.to(accumulate_dtype(image.dtype))
        return contrast(
            image, text, temperature=1 / logit_scale, labels=None if ids is None else (ids, ids),
            label_smoothing=label_smoothing, both=True, normalize=normalize,
        )  # fmt: skip
    if ids is not None and duplicates == "ignore":
        rows = (unit_rows(image), unit_rows(text)) if normalize else (image, text)
        return _without_duplicates(*rows, logit_scale, ids)
    options: dict[str, Any] = {"scale": logit_scale, "both": True, "normalize": normalize}
    return mean_loss(problem(image, text, ids=ids, diagonal=ids is None, **options))[0]


def _without_duplicates(
    image: Tensor, text: Tensor, scale: Tensor | float, ids: Tensor | None
) -> Tensor:
    """Pairs of equal id are in no sum; a row's own pair comes back beside it."""
    options: dict[str, Any] = {"both": True, "positives_in": False, "normalize": False}
    result = row_losses(problem(image, text, scale=scale, ids=ids, **options))
    own = scale * row_products(image, text)
    rows, cols = result.loss + result.positive, result.col_loss + result.col_positive
    return (softplus(rows - own).mean() + softplus(cols - own).mean()) / 2
