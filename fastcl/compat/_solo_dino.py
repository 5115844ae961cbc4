"""solo-learn's DINO loss, over the fused soft cross-entropy."""

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..functional import dino


class DINOLoss(nn.Module):
    """Student views predict the centred softmax of the teacher's other views.

    Equal to solo-learn's class of this name. The teacher's temperature is that of the attribute
    `epoch`, which a training sets.

    Args:
        num_prototypes: As many as a row has scores.
        warmup_teacher_temp, teacher_temp, warmup_teacher_temp_epochs: Where the teacher's
            temperature begins, where it ends, and after how many epochs.
        num_epochs: Of the training.
        student_temp: The student's temperature.
        num_large_crops: Views of the student; the teacher has two.
        center_momentum: What is kept of the center in every call.
    """

    center: Tensor  # [1, num_prototypes]

    def __init__(
        self,
        num_prototypes: int,
        warmup_teacher_temp: float,
        teacher_temp: float,
        warmup_teacher_temp_epochs: int,
        num_epochs: int,
        student_temp: float = 0.1,
        num_large_crops: int = 2,
        center_momentum: float = 0.9,
    ) -> None:
        super().__init__()
        self.epoch = 0
        self.student_temp, self.center_momentum = student_temp, center_momentum
        self.num_large_crops = num_large_crops
        self.register_buffer("center", torch.zeros(1, num_prototypes))
        rising = np.linspace(warmup_teacher_temp, teacher_temp, warmup_teacher_temp_epochs)
        rest = np.full(num_epochs - warmup_teacher_temp_epochs, float(teacher_temp))
        self.teacher_temp_schedule = np.concatenate((rising, rest))

    def forward(
        self,
        student_output: Tensor,  # [num_large_crops * n, num_prototypes], view after view
        teacher_output: Tensor,  # [2 * n, num_prototypes]
    ) -> Tensor:
        """The mean over samples and pairs of different views, a scalar; moves the center."""
        student = student_output.chunk(self.num_large_crops)
        teacher = teacher_output.detach().chunk(2)
        temperature = self.teacher_temp_schedule[self.epoch]
        fits = len(teacher) <= len(student) and student_output.dtype == teacher_output.dtype
        # A number would be a constant of the graph, which every epoch would compile anew.
        if fits and not torch.compiler.is_compiling():
            loss = dino(
                student, teacher, center=self.center[0], temperature=self.student_temp,
                teacher_temperature=float(temperature),
            )  # fmt: skip
        else:
            loss = self._plain(student, teacher, temperature)
        self.update_center(teacher_output)
        return loss

    def _plain(self, student, teacher, temperature) -> Tensor:
        targets = [((x - self.center) / temperature).softmax(-1) for x in teacher]
        predicted = [(x / self.student_temp).log_softmax(-1) for x in student]
        pairs = [(q, p) for i, q in enumerate(targets) for j, p in enumerate(predicted) if i != j]
        return -torch.stack([(q * p).sum(-1).mean() for q, p in pairs]).mean()

    @torch.no_grad()
    def update_center(self, teacher_output: Tensor) -> None:
        """Move the center towards the mean of the teacher's scores `[n, num_prototypes]`, over all
        ranks."""
        mean = teacher_output.sum(0, keepdim=True)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(mean)
            mean = mean / dist.get_world_size()
        mean = mean / len(teacher_output)
        self.center = self.center * self.center_momentum + mean * (1 - self.center_momentum)
