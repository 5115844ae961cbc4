"""BYOL: bootstrap your own latent."""

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from .. import functional
from ..distributed import mean
from ..momentum import Momentum
from .heads import batch_norm_head
from .state import Steps, check_schedule, move, rising_momentum


class BYOL(nn.Module):
    """Each view predicts what a slowly moving twin makes of the other; there are no negatives.

    The twin normalises by the batch it sees and keeps running statistics of its own.

    Args:
        backbone: Maps a batch of images to features `[b, width]`.
        width: Features of the backbone.
        hidden: Width inside the projection and the prediction head.
        dim: Width of the embedding.
        momentum: Share of its own weights that the twin keeps at the first update.
        steps: Of the training, over which the momentum rises to one; None: it stays.

    Source: Grill et al. 2020, "Bootstrap Your Own Latent: A New Approach to Self-Supervised
    Learning" (arXiv 2006.07733), algorithm 1.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        width: int,
        hidden: int = 4096,
        dim: int = 256,
        momentum: float = 0.996,
        steps: int | None = None,
    ) -> None:
        super().__init__()
        check_schedule(momentum, steps)
        self.momentum, self.total_steps = momentum, steps
        self.backbone = backbone
        self.head = batch_norm_head(width, hidden, dim, layers=2, last="none")
        self.predictor = batch_norm_head(dim, hidden, dim, layers=2, last="none")
        self.target = Momentum(nn.Sequential(self.backbone, self.head), momentum=momentum)
        self.steps = Steps()

    def forward(self, view1: Tensor, view2: Tensor) -> Tensor:
        """The loss of two views `[n, ...]`, its mean over the global batch when distributed."""
        p1, p2 = (self.predictor(self.head(self.backbone(view))) for view in (view1, view2))
        with torch.no_grad():
            z1, z2 = self.target(view1), self.target(view2)
        with record_function("fastcl::loss"):
            return mean(functional.byol(p1, p2, z1, z2), rows=len(view1))

    @torch.no_grad()
    def update(self) -> None:
        """After the optimiser step: move the twin."""
        with record_function("fastcl::momentum"):
            share = rising_momentum(self.momentum, self.steps.count, self.total_steps)
            move(self.target, self.backbone, self.head, momentum=share)
        self.steps.count += 1
