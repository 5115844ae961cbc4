"""Two modalities: CLIP."""

import torch
from torch import Tensor

from .. import _check
from ..contrast import contrast, raw_contrast


def clip(
    image: Tensor,  # [n, d]
    text: Tensor,  # [n, d]
    logit_scale: Tensor | float,  # []
    *,
    ids: Tensor | None = None,  # [n] int64
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
        ids: Optional integers `[n]`: pairs of equal id are positives of each other (duplicates).
        normalize: False where all rows have unit length already.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: Shapes do not fit, an empty batch, or a scale that is not positive.
        TypeError: Dtypes do not fit.

    Source: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
    Supervision", figure 3.
    """
    _check.pairs("text", text, "image", image)
    if ids is None:
        ids = torch.arange(image.shape[0], device=image.device)
    if normalize:
        loss, _, col_loss = raw_contrast(image, k=text, scale=logit_scale, ids=ids, both=True)
    else:
        result = contrast(image, text, scale=logit_scale, ids=ids, both=True)
        loss, col_loss = result.loss, result.col_loss
    return (loss.mean() + col_loss.mean()) / 2
