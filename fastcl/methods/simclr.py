"""SimCLR: a simple framework for contrastive learning of visual representations."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from .. import _check, functional
from ..contrast.node import row_losses
from ..contrast.problem import problem
from ..distributed import gather, gather_with_gradient
from ..functional import row_products, unit_rows
from .heads import batch_norm_head

LOSSES = ("nt_xent", "flat_nce", "dcl", "dclw", "sup_con")


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
        loss: "nt_xent"; "flat_nce" (Chen et al. 2021, arXiv 2107.01152); "dcl" or "dclw", without
            the positive in the denominator (Yeh et al. 2022, arXiv 2110.06848); "sup_con", where
            all images of a label attract each other (Khosla et al. 2020, arXiv 2004.11362).
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
        loss: str = "nt_xent",
    ) -> None:
        super().__init__()
        _check.one_of("version", version, (1, 2))
        _check.one_of("loss", loss, LOSSES)
        self.loss = loss
        self.temperature = _check.positive("temperature", temperature)
        self.backbone = backbone
        self.head = batch_norm_head(width, hidden or width, dim, layers=version + 1)
        self.rank: Tensor | None = None  # [2n] rows above the positive; NT-Xent only

    def forward(self, view1: Tensor, view2: Tensor, labels: Tensor | None = None) -> Tensor:
        """The loss of two views `[n, ...]`, over the global batch when distributed.

        Args:
            view1: `[n, ...]`.
            view2: `[n, ...]`.
            labels: `[n]` int64, for the loss "sup_con" alone; an image of -1, which stands for no
                label, attracts its other view alone.

        Raises:
            ValueError: Labels are missing, or given to another loss.
        """
        if (labels is None) == (self.loss == "sup_con"):
            raise ValueError(f"labels must be given for loss sup_con alone, loss is {self.loss}")
        z = unit_rows(self.head(self.backbone(torch.cat([view1, view2]))))
        z1, z2 = (gather_with_gradient(view) for view in z.chunk(2))
        with record_function("fastcl::loss"):
            if self.loss == "nt_xent":
                return self._nt_xent(z1, z2)
            options: dict[str, Any] = {"temperature": self.temperature, "normalize": False}
            if labels is not None:
                labels = gather(labels)
                alone = -1 - torch.arange(len(labels), device=labels.device)
                labels = torch.where(labels < 0, alone, labels).repeat(2)
                return functional.sup_con(torch.cat([z1, z2]), labels, **options)
            return getattr(functional, self.loss)(z1, z2, **options)

    def _nt_xent(self, z1: Tensor, z2: Tensor) -> Tensor:
        """`functional.nt_xent`, with the ranks of the positives."""
        ids = torch.arange(z1.shape[0], device=z1.device).repeat(2)
        pivot = row_products(z1.detach(), z2.detach()).repeat(2)
        pairs = problem((z1, z2), scale=1 / self.temperature, ids=ids, normalize=False)
        result = row_losses(pairs, pivot=pivot)
        self.rank = result.rank
        return result.loss.mean()

    def update(self) -> None:
        """Nothing moves outside the optimiser."""
