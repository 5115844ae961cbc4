"""CPC: contrastive predictive coding of sequences and of images."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import record_function

from .. import _check, functional
from ..distributed import gather, gather_with_gradient


class CPC(nn.Module):
    """The context of a sequence predicts the encodings some steps ahead, among the batch's.

    Args:
        backbone: Maps sequences `[b, channels, time]` to encodings `[b, width, length]`.
        width: Of an encoding.
        context: Width of the recurrent network that sums up the past.
        steps: How many steps ahead are predicted, each by a linear map of its own.

    Source: van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding"
    (arXiv 1807.03748), section 3.1.
    """

    def __init__(
        self, backbone: nn.Module, *, width: int, context: int = 256, steps: int = 12
    ) -> None:
        super().__init__()
        _check.count("steps", steps)
        self.steps = steps
        self.backbone = backbone
        self.context = nn.GRU(width, context, batch_first=True)
        self.weight = nn.Parameter(_linear(steps, width, context))

    def forward(self, sequence: Tensor) -> Tensor:
        """The loss of sequences `[n, channels, time]`, from one random moment of all of them, over
        the global batch when distributed.

        Raises:
            ValueError: Fewer than `steps` + 1 encodings.
        """
        z = self.backbone(sequence).transpose(1, 2)  # [n, length, width]
        length = z.shape[1]
        if length <= self.steps:
            raise ValueError(
                f"sequence must have {self.steps + 1} encodings at least, got {length}"
            )
        moment = torch.randint(length - self.steps, (1,)).to(z.device)
        t = int(gather(moment, equal=True)[0])  # the first rank's, on all of them
        summary = gather_with_gradient(self.context(z[:, : t + 1])[0][:, -1])
        future = gather_with_gradient(z[:, t + 1 : t + 1 + self.steps]).transpose(0, 1)
        with record_function("fastcl::loss"):
            return functional.cpc(future, summary, self.weight)

    def update(self) -> None:
        """Nothing moves outside the optimiser."""


class ImageCPC(nn.Module):
    """The rows of patches above predict the patches some rows below, among the batch's.

    Args:
        backbone: Maps patches `[b, channels, patch, patch]` to features `[b, width]`.
        width: Features of the backbone.
        patch: Side of a patch in pixels; patches overlap by half. 64 for images of 256.
        steps: How many rows ahead are predicted, each by a linear map of its own.
        layers: Of the masked convolutions that sum up the rows above.

    Source: van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding"
    (arXiv 1807.03748), section 3.2.
    """

    def __init__(
        self, backbone: nn.Module, *, width: int, patch: int = 64, steps: int = 5, layers: int = 4
    ) -> None:
        super().__init__()
        _check.count("patch", patch)
        _check.count("steps", steps)
        _check.count("layers", layers)
        self.patch, self.steps = patch, steps
        self.backbone = backbone
        self.context = nn.Sequential(*(_RowsAbove(width) for _ in range(layers)))
        self.weight = nn.Parameter(_linear(steps, width, width))

    def forward(self, images: Tensor) -> Tensor:
        """The loss of images `[n, channels, h, w]`, over the global batch when distributed.

        Raises:
            ValueError: Fewer than `steps` + 1 rows of patches.
        """
        patches = self.patches(images)  # [n, rows, cols, channels, patch, patch]
        n, rows, cols = patches.shape[:3]
        if rows <= self.steps:
            raise ValueError(
                f"images must have {self.steps + 1} rows of patches at least, got {rows}"
            )
        z = self.backbone(patches.flatten(0, 2)).view(n, rows, cols, -1)
        summary = gather_with_gradient(self.context(z.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        z = gather_with_gradient(z)
        with record_function("fastcl::loss"):
            losses = []
            for k in range(1, self.steps + 1):
                future = z[:, k:].flatten(0, 2)
                past = summary[:, : rows - k].flatten(0, 2)
                losses.append(functional.cpc(future[None], past, self.weight[k - 1 : k]))
            return torch.stack(losses).mean()

    def patches(self, images: Tensor) -> Tensor:  # [n, c, h, w] -> [n, rows, cols, c, p, p]
        """All patches, half a patch apart."""
        stride = max(1, self.patch // 2)
        found = images.unfold(2, self.patch, stride).unfold(3, self.patch, stride)
        return found.permute(0, 2, 3, 1, 4, 5)

    def update(self) -> None:
        """Nothing moves outside the optimiser."""


class _RowsAbove(nn.Module):
    """A residual layer that sees its own row and the one above, so that several see all above."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(1, width // 2)
        self.narrow = nn.Conv2d(width, hidden, 1)
        self.above = nn.Conv2d(hidden, hidden, (2, 3), padding=(0, 1))
        self.wide = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:  # [n, width, rows, cols]
        h = F.pad(F.relu(self.narrow(x)), (0, 0, 1, 0))
        return x + self.wide(F.relu(self.above(h)))


def _linear(steps: int, width: int, context: int) -> Tensor:
    """Weights [steps, width, context] as nn.Linear draws them."""
    bound = context**-0.5
    return torch.empty(steps, width, context).uniform_(-bound, bound)
