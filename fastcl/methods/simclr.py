"""SimCLR: a simple framework for contrastive learning of visual representations."""

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from .. import _check
from ..contrast import contrast
from ..distributed import gather_with_gradient
from ..functional import row_products, unit_rows
from .heads import batch_norm_head


class SimCLR(nn.Module):
    """Two views of every image attract each other and repel all other views of the batch.

    Args:
        backbone: Maps a batch of images to features `[b, width]`.
        width: Features of the backbone.
        version: 1 for the head of two layers (Chen et al. 2020, arXiv 2002.05709), 2 for three
            layers (arXiv 2006.10029).
        hidden: Width inside the head; the backbone's by default.
        dim: Width of the embedding.
        temperature: Positive; divides the cosine similarities.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        width: int,
        version: int = 1,
        hidden: int | None = None,
        dim: int = 128,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        _check.one_of("version", version, (1, 2))
        self.temperature = _check.positive("temperature", temperature)
        self.backbone = backbone
        self.head = batch_norm_head(width, hidden or width, dim, layers=version + 1)
        self.rank: Tensor | None = None  # [2n] other rows that score above the positive

    def forward(self, view1: Tensor, view2: Tensor) -> Tensor:
        """The NT-Xent loss of two views `[n, ...]`, over the global batch when distributed."""
        z = unit_rows(self.head(self.backbone(torch.cat([view1, view2]))))
        z1, z2 = (gather_with_gradient(view) for view in z.chunk(2))
        with record_function("fastcl::loss"):
            ids = torch.arange(z1.shape[0], device=z.device).repeat(2)
            pivot = row_products(z1.detach(), z2.detach()).repeat(2)
            result = contrast(torch.cat([z1, z2]), scale=1 / self.temperature, ids=ids, pivot=pivot)
            self.rank = result.rank
            return result.loss.mean()

    def update(self) -> None:
        """Nothing moves outside the optimiser."""
