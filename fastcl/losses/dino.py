"""DINO's loss with the moving center of its teacher."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _check
from .. import functional as F
from .._ranks import Ranks
from ..functional.dino import ASSIGNMENTS
from .base import TemperatureLoss


class DINOLoss(TemperatureLoss):
    """`functional.dino`: views predict what a teacher makes of the others.

    Every forward in training moves the center towards the mean of the teacher's scores, over all
    ranks where distributed, after the loss was taken with the one before.

    Args:
        prototypes: How many, m, 2 or more.
        temperature: Positive; divides the student's scores.
        teacher_temperature: Positive; divides the teacher's, unless the call names another.
        momentum: Share of itself that the center keeps, from 0 to 1.
        assignment, iterations: As for the function; there is no center with "sinkhorn".

    Attributes:
        center: `[m]`, zero at first, or None.

    Source: Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers",
    equation 4.
    """

    center: Tensor | None

    def __init__(
        self,
        prototypes: int,
        temperature: float = 0.1,
        *,
        teacher_temperature: float = 0.04,
        momentum: float = 0.9,
        assignment: str = "center",
        iterations: int = 3,
    ) -> None:
        super().__init__(temperature)
        _check.count("prototypes", prototypes, 2)
        self.teacher_temperature = _check.positive("teacher_temperature", teacher_temperature)
        self.momentum = _check.share("momentum", momentum)
        _check.one_of("assignment", assignment, ASSIGNMENTS)
        _check.count("iterations", iterations)
        self.assignment, self.iterations = assignment, iterations
        center = torch.zeros(prototypes) if assignment == "center" else None
        self.register_buffer("center", center)

    def forward(
        self,
        student: Sequence[Tensor],  # [n, m] each
        teacher: Sequence[Tensor],  # [n, m] each
        teacher_temperature: float | None = None,
    ) -> Tensor:
        loss = F.dino(
            student,
            teacher,
            center=self.center,
            temperature=self.temperature,
            teacher_temperature=(
                self.teacher_temperature if teacher_temperature is None else teacher_temperature
            ),
            assignment=self.assignment,
            iterations=self.iterations,
        )
        if self.training and self.center is not None:
            self._follow(self.center, teacher)
        return loss

    @torch.no_grad()
    def _follow(self, center: Tensor, teacher: Sequence[Tensor]) -> None:
        """center = momentum * center + (1 - momentum) * mean of the teacher's rows."""
        total = sum((x.sum(0, dtype=center.dtype) for x in teacher), torch.zeros_like(center))
        rows = center.new_tensor([sum(len(x) for x in teacher)])
        total = Ranks().sum(torch.cat([total, rows]))  # ranks may hold different numbers of rows
        center.lerp_(total[:-1] / total[-1], 1 - self.momentum)

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, teacher_temperature={self.teacher_temperature}, "
            f"momentum={self.momentum}, assignment={self.assignment!r}"
        )
