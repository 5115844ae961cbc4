"""Views predict each other's assignments: SwAV."""

from collections.abc import Iterator, Sequence
from functools import reduce

import torch
from torch import Tensor

from .. import _check, _ranks
from .sinkhorn import assignments
from .soft_cross_entropy import soft_cross_entropy


def swav(
    scores: Sequence[Tensor],  # [n, m] each
    *,
    assign: int = 2,
    temperature: float | Tensor = 0.1,  # []
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
        temperature: Positive; divides the scores in the predictions. A tensor of one element
            receives a gradient.
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
    predictions, scale = divided(views, temperature)
    inverse = 1 / _check.positive("epsilon", epsilon)
    _check.count("iterations", iterations)
    everywhere = _ranks.world_size() > 1
    targets = [
        assignments(s, older, scale=inverse, iterations=iterations, everywhere=everywhere)
        for s, older in zip(views, [None] * assign if queue is None else queue, strict=False)
    ]
    weight = 1 / (assign * (len(views) - 1))
    loss = views[0].new_zeros((), dtype=targets[0].dtype)
    for v, target in predicted(targets, len(views), reuse=True):
        loss = loss + soft_cross_entropy(predictions[v], target, scale=scale, weight=weight)
    return loss


def divided(
    views: list[Tensor],  # [n, m] each
    temperature: float | Tensor,  # []
) -> tuple[list[Tensor], float]:
    """Scores and a scale whose product are the scores over the temperature, which receives a
    gradient where it is a tensor."""
    scale = _check.inverse("temperature", temperature, views[0].device)
    if isinstance(scale, Tensor):  # in the dtype of the scores, as these are
        return [(s * scale).to(s.dtype) for s in views], 1.0
    return views, scale


def predicted(
    targets: list[Tensor],  # [n, m] each
    views: int,
    *,
    reuse: bool = False,
) -> Iterator[tuple[int, Tensor]]:
    """The sum of the targets that every view predicts, those of all others; the first views have
    one each, a single view predicts nothing.

    Takes out of the list what serves no view any more, so that its memory is free; with reuse, the
    first target becomes their sum in the end.
    """
    assigned = len(targets)
    for v in range(min(assigned, views)):
        others = targets[:v] + targets[v + 1 :]
        if v == views - 1:
            targets[:] = others
        if others:
            yield v, reduce(torch.add, others)
    if views > assigned:
        total = reduce(Tensor.add_ if reuse else torch.add, targets)
        targets.clear()
        for v in range(assigned, views):
            yield v, total


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
