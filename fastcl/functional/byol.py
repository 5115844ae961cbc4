"""Predictions against the projections of a momentum encoder, without negatives: BYOL."""

from torch import Tensor

from .rows import crossed_cosines


def byol(
    p1: Tensor,  # [n, d]
    p2: Tensor,  # [n, d]
    z1: Tensor,  # [n, d]
    z2: Tensor,  # [n, d]
    *,
    normalize: bool = True,
) -> Tensor:
    """BYOL loss: the squared distance of each prediction to the other view's projection.

    Equal to ``(4 - 2 * F.cosine_similarity(p1, z2.detach()) - 2 * F.cosine_similarity(p2,
    z1.detach())).mean()``.

    Args:
        p1: Predictions of the first view `[n, d]`.
        p2: Predictions of the second view `[n, d]`.
        z1: Momentum projections of the first view `[n, d]`; receive no gradient.
        z2: Momentum projections of the second view `[n, d]`; receive no gradient.
        normalize: False where all rows have unit length already.

    Returns:
        The mean over the batch of both distances, a scalar from 0 to 8.

    Raises:
        ValueError: Shapes do not fit, or an empty batch.
        TypeError: Dtypes differ or are not floating point.

    Source: Grill et al. 2020, "Bootstrap Your Own Latent: A New Approach to Self-Supervised
    Learning", equation 2, for both orders of the views.
    """
    return 4 - 2 * crossed_cosines(p1, p2, z1, z2, normalize)
