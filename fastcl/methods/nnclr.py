"""NNCLR: nearest-neighbour contrastive learning of visual representations."""

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from .. import _check
from ..distributed import gather, gather_with_gradient
from ..functional import info_nce, unit_rows
from ..queue import Queue
from .heads import batch_norm_head
from .state import remember

CHUNK = 2**26  # bytes of similarities with the whole queue that are formed at once


class NNCLR(nn.Module):
    """The positive of an image is the nearest neighbour of its view among older embeddings.

    Args:
        backbone: Maps a batch of images to features `[b, width]`.
        width: Features of the backbone.
        hidden: Width inside the projection head.
        dim: Width of the embedding.
        prediction: Width inside the prediction head.
        queue_size: Embeddings kept as the support set.
        temperature: Positive; divides the cosine similarities.

    Source: Dwibedi et al. 2021, "With a Little Help from My Friends: Nearest-Neighbor Contrastive
    Learning of Visual Representations" (arXiv 2104.14548), section 3.2 and algorithm 1.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        width: int,
        hidden: int = 2048,
        dim: int = 256,
        prediction: int = 4096,
        queue_size: int = 98304,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        self.temperature = _check.positive("temperature", temperature)
        self.backbone = backbone
        self.head = batch_norm_head(width, hidden, dim, layers=3, last="norm")
        self.predictor = batch_norm_head(dim, prediction, dim, layers=2, last="bias")
        self.queue = Queue(queue_size, dim)
        self._keys: list[Tensor] = []  # [n, dim] of every forward since the last update

    def forward(self, view1: Tensor, view2: Tensor) -> Tensor:
        """The loss of two views `[n, ...]`, over the global batch when distributed."""
        z1, z2 = (self.head(self.backbone(view)) for view in (view1, view2))
        p1, p2 = (gather_with_gradient(self.predictor(z)) for z in (z1, z2))
        with torch.no_grad():
            k1, k2 = unit_rows(z1.detach()), unit_rows(z2.detach())
            neighbour1, neighbour2 = (gather(self.nearest(k)) for k in (k1, k2))
        if self.training:
            remember(self._keys, k1)
        with record_function("fastcl::loss"):
            first = info_nce(neighbour1, p2, temperature=self.temperature)
            second = info_nce(neighbour2, p1, temperature=self.temperature)
            return (first + second) / 2

    def nearest(self, z: Tensor) -> Tensor:  # [n, dim] unit rows -> [n, dim]
        """The row of the support set of highest cosine with each row."""
        rows = self.queue.rows.to(z.dtype)
        size = max(CHUNK // (len(rows) * rows.element_size()), 1)
        found = [(part @ rows.T).argmax(1) for part in z.split(size)]
        return rows[torch.cat(found)]

    @torch.no_grad()
    def update(self) -> None:
        """After the optimiser step: queue the first views seen since the last update."""
        with record_function("fastcl::queue"):
            for k in self._keys:
                self.queue.push(k)
        self._keys.clear()
