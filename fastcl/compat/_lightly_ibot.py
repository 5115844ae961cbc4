"""lightly's patch losses of iBOT, over the fused soft cross-entropy."""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .. import _check
from ..functional.dino import centered
from ..functional.soft_cross_entropy import soft_cross_entropy


class Center(nn.Module):
    """The moving mean of a teacher's scores, under lightly's names in the state_dict."""

    center: Tensor  # [1, m]

    def __init__(self, width: int, mode: str, momentum: float) -> None:
        super().__init__()
        if mode != "mean":
            raise ValueError(f"Unknown mode '{mode}'. Valid modes are ['mean'].")
        self.momentum = momentum
        self.register_buffer("center", torch.zeros(1, width))

    @property
    def value(self) -> Tensor:
        return self.center

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Move towards the mean of the rows `[n, m]` of all ranks."""
        mean = x.mean(0, keepdim=True)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(mean)
            mean = mean / dist.get_world_size()
        self.center = self.center * self.momentum + mean * (1 - self.momentum)


class IBOTPatchLoss(nn.Module):
    """Masked patches of the student predict the centred softmax of the teacher's.

    Equal to lightly's class of this name, but that a batch without a masked patch leaves the center
    as it is. A teacher that is trained is compared in plain PyTorch.

    Args:
        output_dim: Number of prototypes.
        teacher_temp: The teacher's temperature.
        student_temp: The student's.
        center_mode: "mean".
        center_momentum: What is kept of the center in every call.

    Raises:
        ValueError: Another center_mode.
    """

    def __init__(
        self,
        output_dim: int = 65536,
        teacher_temp: float = 0.04,
        student_temp: float = 0.1,
        center_mode: str = "mean",
        center_momentum: float = 0.9,
    ) -> None:
        super().__init__()
        self.teacher_temp, self.student_temp = teacher_temp, student_temp
        self.center = Center(output_dim, center_mode, center_momentum)

    def forward(
        self,
        teacher_out: Tensor,  # [n, output_dim]
        student_out: Tensor,  # [n, output_dim]
        mask: Tensor,  # [b, height, width] bool
        teacher_temp: float | None = None,
    ) -> Tensor:
        """The mean over images of the mean over their masked patches, a scalar; moves the center.

        Raises:
            ValueError: Shapes differ, or not as many rows as the mask marks.
        """
        mask = mask.bool()
        weight = (1 / mask.sum((1, 2), keepdim=True).clamp(min=1)).expand_as(mask)[mask]
        if torch.compiler.is_compiling():  # as a node of the graph: the count is in mask's values
            torch._check_value(len(weight) == len(teacher_out))
        elif len(weight) != len(teacher_out):
            raise ValueError(
                f"teacher_out must have a row for each of the {len(weight)} patches that mask "
                f"marks, got {len(teacher_out)}"
            )
        return self._mean(teacher_out, student_out, weight, len(mask), teacher_temp)

    def _mean(
        self,
        teacher: Tensor,  # [n, m]
        student: Tensor,  # [n, m]
        weight: Tensor,  # [n]
        images: int,
        teacher_temp: float | None,
    ) -> Tensor:
        """The mean over images of the rows' cross-entropies times their weights; moves the
        center."""
        _check_shapes(teacher, student)
        temperature = self.teacher_temp if teacher_temp is None else teacher_temp
        # In float32, as lightly has it.
        narrow = torch.tensor(temperature, device="cpu").item()
        sharp = 1 / _check.positive("teacher_temp", narrow)
        scale = 1 / _check.positive("student_temp", self.student_temp)
        center = self.center.value
        if not len(teacher):
            return (student * scale).sum().to(torch.promote_types(student.dtype, center.dtype))
        if torch.is_grad_enabled() and teacher.requires_grad:
            target = ((teacher - center) * sharp).softmax(-1) * weight[:, None]
            loss = -(target * (student * scale).log_softmax(-1)).sum() / images
        else:
            target = centered([teacher.detach()], center[0], sharp)[0]
            if torch.float64 in (target.dtype, student.dtype):
                target, student = target.double(), student.double()
            target.mul_(weight[:, None])
            # A mean over the rows.
            share = len(target) / images
            loss = soft_cross_entropy(student, target, scale=scale, weight=share)
        self.center.update(teacher)
        return loss


class IBOTPlusPlusPatchLoss(IBOTPatchLoss):
    """All patches of the student predict the teacher's, masked and visible ones.

    Equal to lightly's class of this name; arguments are those of `IBOTPatchLoss`.
    """

    def forward(
        self,
        teacher_out: Tensor,  # [b, n, output_dim], or [b * n, output_dim] with a mask
        student_out: Tensor,  # the same
        mask: Tensor | None = None,  # [b, height, width] or [b, n]
        teacher_temp: float | None = None,
        visible_loss_weight: float = 1.0,
    ) -> Tensor:
        """The mean over images of the mean over their masked patches and, times its weight, the
        mean over the visible ones; without a mask the mean over all patches. Moves the center.

        Raises:
            ValueError: Shapes that differ or do not fit.
        """
        if teacher_out.dim() not in (2, 3):
            raise ValueError(f"teacher_out must be rank 2 or 3 but got rank {teacher_out.dim()}.")
        if teacher_out.dim() == 2 and mask is None:
            raise ValueError(
                "mask is required when teacher_out has rank 2 so that the batch size B can be "
                "inferred."
            )
        _check_shapes(teacher_out, student_out)
        rows = teacher_out.shape[:-1].numel()
        images = len(teacher_out) if teacher_out.dim() == 3 or mask is None else len(mask)
        if images and rows % images:
            raise ValueError(
                f"teacher_out length {rows} is not divisible by batch size {images} inferred from "
                "mask."
            )
        wide = torch.promote_types(teacher_out.dtype, student_out.dtype)
        wide = torch.promote_types(wide, self.center.value.dtype)
        if mask is None:
            weight = teacher_out.new_full((rows,), images / max(rows, 1), dtype=wide)
        else:
            hidden = mask.reshape(images, rows // max(images, 1)).to(wide)
            weight = (_shares(hidden) + visible_loss_weight * _shares(1 - hidden)).flatten()
        teacher, student = (x.reshape(-1, x.shape[-1]) for x in (teacher_out, student_out))
        return self._mean(teacher, student, weight, images, teacher_temp)


def _check_shapes(teacher: Tensor, student: Tensor) -> None:
    """lightly's error, word for word."""
    if teacher.shape != student.shape:
        raise ValueError(
            "teacher_out and student_out must have the same shape but got "
            f"{tuple(teacher.shape)} and {tuple(student.shape)}."
        )


def _shares(mask: Tensor) -> Tensor:
    """Of every patch in the mean over those of its image that count, `[b, n]`."""
    return mask / mask.sum(1, keepdim=True).clamp(min=1)
