"""InvaSpread: invariant and spreading instance features."""

from torch import Tensor, nn
from torch.profiler import record_function

from .. import _check, functional
from ..distributed import gather_with_gradient
from .heads import linear_head


class InvaSpread(nn.Module):
    """Every image is recognised from its other view, and from no other image of the batch.

    Args:
        backbone: Maps a batch of images to features `[b, width]`.
        width: Features of the backbone.
        dim: Width of the embedding.
        temperature: Positive; divides the cosine similarities.
        negative_weight: Above 0, what the other images count.

    Source: Ye et al. 2019, "Unsupervised Embedding Learning via Invariant and Spreading Instance
    Feature" (arXiv 1904.03436).
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        width: int,
        dim: int = 128,
        temperature: float = 0.1,
        negative_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.temperature = _check.positive("temperature", temperature)
        self.negative_weight = _check.positive("negative_weight", negative_weight)
        self.backbone = backbone
        self.head = linear_head(width, dim)

    def forward(self, view1: Tensor, view2: Tensor) -> Tensor:
        """The loss of two views `[n, ...]`, over the global batch when distributed."""
        z1, z2 = (gather_with_gradient(self.head(self.backbone(v))) for v in (view1, view2))
        with record_function("fastcl::loss"):
            return functional.inva_spread(
                z1, z2, temperature=self.temperature, negative_weight=self.negative_weight
            )

    def update(self) -> None:
        """Nothing moves outside the optimiser."""
