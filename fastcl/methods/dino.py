"""DINO: self-distillation with no labels."""

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from .. import _check
from ..distributed import mean
from ..functional import unit_rows
from ..losses import DINOLoss
from ..momentum import Momentum
from .crops import features
from .heads import Prototypes, gelu_head
from .state import Steps, check_schedule, move, rising_momentum


class DINO(nn.Module):
    """Every crop of an image predicts what a slowly moving teacher makes of its two full views.

    As in the authors' code, crops of one size pass through the backbone together and all of them
    through the head, so that batch normalisation, where there is any, sees them as one batch.

    Args:
        backbone: Maps a batch of images to features `[b, width]`, at any resolution of the crops.
        width: Features of the backbone.
        hidden: Width inside the head.
        dim: Width of the embedding.
        prototypes: How many.
        layers: Linear layers of the head before the prototypes.
        batch_norm: Whether the head has it, as for convolutional backbones.
        temperature: Positive; divides the student's cosines.
        teacher_temperature: Positive; divides the teacher's, after the warmup.
        first_teacher_temperature: The same at the first step.
        warmup: Share of the steps in which it rises from the one to the other, in a line.
        assignment: "center": the softmax of the teacher's cosines less their moving mean;
            "sinkhorn": balanced assignments in its place.
        momentum: Share of its own weights that the teacher keeps at the first update.
        center_momentum: Share of itself that the center keeps at every forward.
        steps: Of the training, over which the momentum rises to one; None: momentum and teacher
            temperature stay.
        freeze: Steps during which the prototypes stay.

    Source: Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers"
    (arXiv 2104.14294), algorithm 1, with multi-crop; the schedules as in the authors' code.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        width: int,
        hidden: int = 2048,
        dim: int = 256,
        prototypes: int = 65536,
        layers: int = 3,
        batch_norm: bool = False,
        temperature: float = 0.1,
        teacher_temperature: float = 0.07,
        first_teacher_temperature: float = 0.04,
        warmup: float = 0.3,
        assignment: str = "center",
        momentum: float = 0.996,
        center_momentum: float = 0.9,
        steps: int | None = None,
        freeze: int = 1251,
    ) -> None:
        super().__init__()
        check_schedule(momentum, steps)
        self.momentum, self.total_steps, self.freeze = momentum, steps, freeze
        first = _check.positive("first_teacher_temperature", first_teacher_temperature)
        self.temperatures = first, _check.positive("teacher_temperature", teacher_temperature)
        self.warmup = _check.share("warmup", warmup)
        self.backbone = backbone
        self.head = gelu_head(width, hidden, dim, layers=layers, batch_norm=batch_norm)
        self.prototypes = Prototypes(dim, prototypes)
        self.loss = DINOLoss(
            prototypes, temperature, teacher_temperature=teacher_temperature,
            momentum=center_momentum, assignment=assignment,
        )  # fmt: skip
        twin = nn.Sequential(self.backbone, self.head, self.prototypes)
        self.target = Momentum(twin, momentum=momentum)
        self.steps = Steps()

    @property
    def teacher_temperature(self) -> float:
        """That of the next step."""
        first, last = self.temperatures
        rising = 0.0 if self.total_steps is None else self.warmup * self.total_steps
        return first + (last - first) * min(1.0, self.steps.count / rising) if rising else last

    def forward(self, *crops: Tensor) -> Tensor:
        """The loss of crops `[n, ...]`: two full views of one size, then small crops, if any; its
        mean over the global batch when distributed.

        Raises:
            ValueError: Fewer than two crops.
        """
        z = self.head(features(self.backbone, crops))
        c = self.prototypes.unit(frozen=self.steps.count < self.freeze)
        # A product for each crop: gradients of parts of one matrix would be copied into another.
        student = [x @ c.T for x in unit_rows(z).chunk(len(crops))]
        teacher = self.target(torch.cat(crops[:2]))
        with record_function("fastcl::loss"):
            loss = self.loss(student, teacher.chunk(2), self.teacher_temperature)
            return mean(loss, rows=len(crops[0]))

    @torch.no_grad()
    def update(self) -> None:
        """After the optimiser step: move the teacher."""
        with record_function("fastcl::momentum"):
            share = rising_momentum(self.momentum, self.steps.count, self.total_steps)
            move(self.target, self.backbone, self.head, self.prototypes, momentum=share)
        self.steps.count += 1
