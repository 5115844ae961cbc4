"""SimSiam: exploring simple Siamese representation learning."""

from torch import Tensor, nn
from torch.profiler import record_function

from .. import functional
from ..distributed import mean
from .heads import batch_norm_head


class SimSiam(nn.Module):
    """Each view predicts the other's embedding, which receives no gradient.

    Args:
        backbone: Maps a batch of images to features `[b, width]`.
        width: Features of the backbone.
        hidden: Width inside the projection head; the backbone's by default.
        dim: Width of the embedding.
        prediction: Width inside the prediction head, a bottleneck.
        layers: Of the projection head: 3, on CIFAR 2.

    Source: Chen and He 2021, "Exploring Simple Siamese Representation Learning" (arXiv
    2011.10566), algorithm 1.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        width: int,
        hidden: int | None = None,
        dim: int = 2048,
        prediction: int = 512,
        layers: int = 3,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = batch_norm_head(width, hidden or width, dim, layers=layers, last="unit")
        self.predictor = batch_norm_head(dim, prediction, dim, layers=2, last="bias")

    def forward(self, view1: Tensor, view2: Tensor) -> Tensor:
        """The loss of two views `[n, ...]`, from -1 to 1; its mean over the global batch when
        distributed."""
        z1, z2 = (self.head(self.backbone(view)) for view in (view1, view2))
        p1, p2 = self.predictor(z1), self.predictor(z2)
        with record_function("fastcl::loss"):
            return mean(functional.simsiam(p1, p2, z1, z2), rows=len(view1))

    def update(self) -> None:
        """Nothing moves outside the optimiser."""
