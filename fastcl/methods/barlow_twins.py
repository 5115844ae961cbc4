"""Barlow Twins: self-supervised learning via redundancy reduction."""

from torch import Tensor, nn
from torch.profiler import record_function

from .. import _check, functional
from ..distributed import gather_with_gradient
from .heads import batch_norm_head


class BarlowTwins(nn.Module):
    """The features of two views agree one by one, and different features do not correlate.

    Args:
        backbone: Maps a batch of images to features `[b, width]`.
        width: Features of the backbone.
        hidden: Width inside the projection head.
        dim: Width of the embedding.
        off_diagonal: Weight of the correlations of different features, 0 or more.

    Source: Zbontar et al. 2021, "Barlow Twins: Self-Supervised Learning via Redundancy
    Reduction" (arXiv 2103.03230), algorithm 1.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        width: int,
        hidden: int = 8192,
        dim: int = 8192,
        off_diagonal: float = 0.0051,
    ) -> None:
        super().__init__()
        if _check.finite("off_diagonal", off_diagonal) < 0:
            raise ValueError(f"off_diagonal must be 0 or more, got {off_diagonal}")
        self.off_diagonal = off_diagonal
        self.backbone = backbone
        self.head = batch_norm_head(width, hidden, dim, layers=3, last="none")

    def forward(self, view1: Tensor, view2: Tensor) -> Tensor:
        """The loss of two views `[n, ...]`, over the global batch when distributed."""
        z1, z2 = (gather_with_gradient(self.head(self.backbone(v))) for v in (view1, view2))
        with record_function("fastcl::loss"):
            return functional.barlow_twins(z1, z2, off_diagonal=self.off_diagonal)

    def update(self) -> None:
        """Nothing moves outside the optimiser."""
