"""lightly's DINO loss, over the fused soft cross-entropy."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..functional import dino
from ._common import in_dtype_of, of_one_dtype


class DINOLoss(nn.Module):
    """Student views predict the centred softmax of the teacher's other views.

    Equal to lightly's class of this name. A teacher that is trained, has one view, or more than the
    student, is compared in plain PyTorch.

    Args:
        output_dim: Number of prototypes.
        warmup_teacher_temp, warmup_teacher_temp_epochs: Where the teacher's temperature begins,
            and for how many epochs it moves, for those who pass the epoch.
        teacher_temp: The teacher's temperature afterwards, or always.
        student_temp: The student's.
        center_momentum: What is kept of the center in every call.
        center_mode: "mean".

    Raises:
        ValueError: Another center_mode.
    """

    center: Tensor  # [1, 1, output_dim]

    def __init__(
        self,
        output_dim: int = 65536,
        warmup_teacher_temp: float = 0.04,
        teacher_temp: float = 0.04,
        warmup_teacher_temp_epochs: int = 30,
        student_temp: float = 0.1,
        center_momentum: float = 0.9,
        center_mode: str = "mean",
    ) -> None:
        super().__init__()
        if center_mode != "mean":
            raise ValueError(f"Unknown mode '{center_mode}'. Valid modes are ['mean'].")
        self.teacher_temp, self.student_temp = teacher_temp, student_temp
        self.center_momentum = center_momentum
        self.register_buffer("center", torch.zeros(1, 1, output_dim))
        self.warmup_teacher_temp_epochs = warmup_teacher_temp_epochs
        self.teacher_temp_schedule = torch.linspace(
            warmup_teacher_temp, teacher_temp, warmup_teacher_temp_epochs
        )

    def forward(
        self,
        teacher_out: Sequence[Tensor],  # [n, output_dim] each
        student_out: Sequence[Tensor],  # [n, output_dim] each
        teacher_temp: float | None = None,
        epoch: int | None = None,
    ) -> Tensor:
        """The mean over samples and pairs of different views, a scalar; moves the center.

        Raises:
            ValueError: One view on each side, which has no other.
        """
        teacher, student = (of_one_dtype(views) for views in (teacher_out, student_out))
        terms = len(teacher) * len(student) - min(len(teacher), len(student))
        if terms == 0:
            raise ValueError(
                "DINOLoss requires at least two views in total, of which one predicts another, but "
                f"got {len(teacher)} teacher view(s) and {len(student)} student view(s)"
            )
        temperature = self._temperature(teacher_temp, epoch)
        trained = torch.is_grad_enabled() and any(x.requires_grad for x in teacher)
        # Of a single teacher view the first of the student has no part, and a gradient of zero.
        other = teacher[0].dtype != student[0].dtype
        if trained or other or not 2 <= len(teacher) <= len(student):
            loss = self._plain(teacher, student, temperature) / terms
        else:
            loss = dino(
                student, teacher, center=self.center.flatten(), temperature=self.student_temp,
                teacher_temperature=temperature,
            )  # fmt: skip
        self.update_center(torch.stack(teacher))
        return in_dtype_of(student[0], loss)

    def _temperature(self, teacher_temp: float | None, epoch: int | None) -> float:
        """In float32, as lightly has it."""
        if teacher_temp is None and epoch is not None and epoch < self.warmup_teacher_temp_epochs:
            return float(self.teacher_temp_schedule[epoch])
        return torch.tensor(
            self.teacher_temp if teacher_temp is None else teacher_temp, device="cpu"
        ).item()

    def _plain(self, teacher, student, temperature) -> Tensor:
        """The sum over pairs of views, each the mean over samples."""
        targets = ((torch.stack(teacher) - self.center) / temperature).softmax(-1)
        predicted = (torch.stack(student) / self.student_temp).log_softmax(-1)
        pairs = -torch.einsum("tbd,sbd->ts", targets, predicted) / targets.shape[1]
        return pairs.sum() - pairs.diagonal().sum()

    @torch.no_grad()
    def update_center(
        self,
        teacher_out: Tensor,  # [views, n, output_dim]
    ) -> None:
        """Move the center towards the mean of the teacher's scores, over all ranks."""
        mean = teacher_out.mean((0, 1), keepdim=True)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(mean)
            mean = mean / dist.get_world_size()
        kept = self.center_momentum
        self.center.data = self.center * kept + mean * (1 - kept)
