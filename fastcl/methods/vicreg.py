"""VICReg: variance-invariance-covariance regularisation."""

from torch import Tensor, nn
from torch.profiler import record_function

from .. import _check, functional
from ..distributed import gather_with_gradient
from .heads import batch_norm_head


class VICReg(nn.Module):
    """Two views agree, every feature of the batch varies, and different features do not covary.

    Args:
        backbone: Maps a batch of images to features `[b, width]`.
        width: Features of the backbone.
        hidden: Width inside the projection head.
        dim: Width of the embedding.
        invariance: Weight of the distance of both views, 0 or more.
        variance: Weight of the hinge at a standard deviation of 1, 0 or more.
        covariance: Weight of the covariances of different features, 0 or more.

    Source: Bardes et al. 2022, "VICReg: Variance-Invariance-Covariance Regularization for
    Self-Supervised Learning" (arXiv 2105.04906), algorithm 1.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        width: int,
        hidden: int = 8192,
        dim: int = 8192,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
    ) -> None:
        super().__init__()
        self.weights = {"invariance": invariance, "variance": variance, "covariance": covariance}
        for name, weight in self.weights.items():
            if _check.finite(name, weight) < 0:
                raise ValueError(f"{name} must be 0 or more, got {weight}")
        self.backbone = backbone
        self.head = batch_norm_head(width, hidden, dim, layers=3, last="none")

    def forward(self, view1: Tensor, view2: Tensor) -> Tensor:
        """The loss of two views `[n, ...]`, over the global batch when distributed."""
        z1, z2 = (gather_with_gradient(self.head(self.backbone(v))) for v in (view1, view2))
        with record_function("fastcl::loss"):
            return functional.vicreg(z1, z2, **self.weights)

    def update(self) -> None:
        """Nothing moves outside the optimiser."""
