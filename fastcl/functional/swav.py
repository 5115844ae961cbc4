"""Views predict each other's assignments: SwAV."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _check
from ..reference import accumulate_dtype
from .sinkhorn import sinkhorn


def swav(
    scores: Sequence[Tensor],  # [n, m] each
    *,
    assign: int = 2,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
    queue: Sequence[Tensor] | None = None,  # [r, m] each
) -> Tensor:
    """SwAV loss: the assignment of each of the first views, predicted from all other views.

    Equal to the mean over a < assign and v != a of ``F.cross_entropy(scores[v] / temperature,
    sinkhorn(scores[a]))``.

    Args:
        scores: Of every view, the cosines `[n, m]` of its n samples with m prototypes.
        assign: How many views, from the first on, are assigned; the others only predict.
        temperature: Positive; divides the scores in the predictions.
        epsilon: Positive; divides the scores in the assignments.
        iterations: Of `sinkhorn`, 1 or more.
        queue: Optional scores `[r, m]` of older samples for each of the assigned views: they
            take part in the assignment and not in the loss.

    Returns:
        The mean over samples and pairs of views, a scalar.

    Raises:
        ValueError: Less than two views, shapes that do not fit, assign out of range, a
            temperature or epsilon that is not positive.
        TypeError: Dtypes differ or are not floating point.

    Source: Caron et al. 2020, "Unsupervised Learning of Visual Features by Contrasting Cluster
    Assignments", equations 1 and 2.
    """
    views = _checked(scores, assign, queue)
    scale = 1 / _check.positive("temperature", temperature)
    targets = []
    for a in range(assign):
        known = views[a] if queue is None else torch.cat([queue[a].detach(), views[a].detach()])
        targets.append(sinkhorn(known, epsilon=epsilon, iterations=iterations)[-len(views[a]) :])
    dtype, total = accumulate_dtype(views[0].dtype), sum(targets)
    loss = views[0].new_zeros((), dtype=dtype)
    for v, s in enumerate(views):
        # All the assignments that view v predicts, in one cross-entropy.
        target = total - targets[v] if v < assign else total
        if v >= assign or assign > 1:
            loss = loss + F.cross_entropy(s.to(dtype) * scale, target)
    return loss / (assign * (len(views) - 1))


def _checked(scores, assign, queue) -> list[Tensor]:
    views = list(scores)
    if len(views) < 2:
        raise ValueError(f"scores must hold 2 views at least, got {len(views)}")
    _check.count("assign", assign)
    if assign > len(views):
        raise ValueError(f"assign must be {len(views)} at most, the number of views, got {assign}")
    for v, s in enumerate(views):
        _check.pairs(f"scores[{v}]", s, "scores[0]", views[0])
    if queue is not None:
        if len(queue) != assign:
            raise ValueError(f"queue must hold {assign} tensors, one per assigned view, "
                             f"got {len(queue)}")  # fmt: skip
        for a, s in enumerate(queue):
            _check.rows(f"queue[{a}]", s, ("scores[0]", views[0]))
    return views
