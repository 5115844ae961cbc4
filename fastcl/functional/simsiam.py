"""Predictions against constant projections of the same encoder: SimSiam."""

from torch import Tensor

from .rows import crossed_cosines


def simsiam(
    p1: Tensor,  # [n, d]
    p2: Tensor,  # [n, d]
    z1: Tensor,  # [n, d]
    z2: Tensor,  # [n, d]
    *,
    normalize: bool = True,
) -> Tensor:
    """SimSiam loss: the negative cosine of each prediction and the other view's projection.

    Equal to ``-(F.cosine_similarity(p1, z2.detach()) + F.cosine_similarity(p2,
    z1.detach())).mean() / 2``.

    Arguments and errors are those of `byol`; z1 and z2 come from the encoder itself.

    Returns:
        The mean over the batch and both orders, a scalar from -1 to 1.

    Source: Chen and He 2021, "Exploring Simple Siamese Representation Learning", equation 2.
    """
    return -0.5 * crossed_cosines(p1, p2, z1, z2, normalize)
