"""Views of a student predict what a teacher makes of the other views: DINO."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _check, _ranks
from .._library import ops
from .sinkhorn import assignments
from .soft_cross_entropy import soft_cross_entropy
from .swav import divided, predicted

ASSIGNMENTS = ("center", "sinkhorn")


def dino(
    student: Sequence[Tensor],  # [n, m] each
    teacher: Sequence[Tensor],  # [n, m] each
    *,
    center: Tensor | None = None,  # [m]
    temperature: float | Tensor = 0.1,  # []
    teacher_temperature: float = 0.04,
    assignment: str = "center",
    iterations: int = 3,
) -> Tensor:
    """DINO loss: what the teacher makes of each of the first views, predicted by the student from
    all other views.

    Equal to the mean over teacher views a and student views v != a of
    ``F.cross_entropy(student[v] / temperature, softmax((teacher[a] - center) /
    teacher_temperature, 1))``. Beside the gradients it makes one matrix `[n, m]` per teacher view.

    Args:
        student: Of every view, the scores `[n, m]` of its n samples with m prototypes.
        teacher: The same of the teacher for the first of these views, in the dtype of student;
            receives no gradient.
        center: Optional `[m]`, taken off the teacher's scores; zero by default. It is a moving
            mean of them: `losses.DINOLoss` keeps it.
        temperature: Positive; divides the student's scores. A tensor of one element receives a
            gradient.
        teacher_temperature: Positive; divides the teacher's.
        assignment: "center": softmax of what is left of the teacher's scores; "sinkhorn": balanced
            assignments of each view in its place, over the samples of all ranks, without center.
        iterations: Of `sinkhorn`, 1 or more.

    Returns:
        The mean over samples and pairs of views, a scalar.

    Raises:
        ValueError: Less than two views of the student, none or more of the teacher, shapes that do
            not fit, a temperature that is not positive, an unknown assignment, or a center where
            none is taken off.
        TypeError: Dtypes differ or are not floating point.

    Source: Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers",
    equations 2 and 3 and algorithm 1; Sinkhorn's assignment: table 9.
    """
    views, known = _checked(student, teacher)
    predictions, scale = divided(views, temperature)
    sharp = 1 / _check.positive("teacher_temperature", teacher_temperature)
    _check.one_of("assignment", assignment, ASSIGNMENTS)
    _check.count("iterations", iterations)
    if assignment == "sinkhorn":
        if center is not None:
            raise ValueError("center must be None with assignment 'sinkhorn', got a tensor")
        everywhere = _ranks.world_size() > 1
        targets = [
            assignments(x, None, scale=sharp, iterations=iterations, everywhere=everywhere)
            for x in known
        ]
    else:
        targets = centered(known, center, sharp)
    pairs = len(targets) * len(views) - len(targets)
    loss = views[0].new_zeros((), dtype=targets[0].dtype)
    for v, target in predicted(targets, len(views), reuse=True):
        loss = loss + soft_cross_entropy(predictions[v], target, scale=scale, weight=1 / pairs)
    return loss


@torch.no_grad()
def centered(teacher: list[Tensor], center: Tensor | None, scale: float) -> list[Tensor]:
    """softmax(scale * (x - center)) of every view: the last pass of Sinkhorn's algorithm, with
    the center as the potential of its columns."""
    first = teacher[0]
    dtype = torch.promote_types(first.dtype, torch.float32)
    if center is None:
        potential = first.new_zeros(first.shape[1], dtype=dtype)
    else:
        _check.vector("center", center, first.shape[1], first.device)
        potential = center.detach().to(dtype) * -scale
    return [ops.sinkhorn_assign(x.contiguous(), scale, potential) for x in teacher]


def _checked(
    student: Sequence[Tensor], teacher: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    views, known = list(student), list(teacher)
    if len(views) < 2:
        raise ValueError(f"student must hold 2 views at least, got {len(views)}")
    if not 1 <= len(known) <= len(views):
        raise ValueError(
            f"teacher must hold 1 to {len(views)} views, as many as student at most, "
            f"got {len(known)}"
        )
    for name, scores in (("student", views), ("teacher", known)):
        for v, s in enumerate(scores):
            _check.pairs(f"{name}[{v}]", s, "student[0]", views[0])
    return views, [x.detach() for x in known]
