"""CMC: contrastive multiview coding."""

from collections.abc import Sequence
from itertools import combinations, permutations
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from .. import _check
from ..bank import Bank
from ..distributed import gather_with_gradient, mean
from ..functional import clip, inst_disc, nce, noise_indices, unit_rows
from .heads import linear_head
from .state import Normalizer


class CMC(nn.Module):
    """The views of an image, each with a network and a memory bank, recognise each other.

    With two views, lightness and colour, this is the paper's main form; with more, all pairs of
    views are contrasted ("full graph").

    An image's own entry of a bank is always a pass over the data old, those of the images of this
    pass are newer. Where a pass is short, what tells old from new lowers the loss without any
    image being recognised; without banks (`samples` is None) there is nothing to tell.

    Args:
        backbones: One for each view; maps a batch of it to features `[b, width]`.
        width: Features of each backbone.
        samples: Images of the data set; None: no banks, a softmax over the batch's other images.
        dim: Width of the embeddings.
        noise: Of banks: noise samples per image of noise-contrastive estimation; None: the full
            softmax over the data set.
        momentum: Of banks: from 0 to 1, what an old entry counts in its update.
        temperature: Positive; divides the cosine similarities.

    Source: Tian et al. 2020, "Contrastive Multiview Coding" (arXiv 1906.05849), equations 6 to 8;
    without banks section 3.2 with the batch for the k other images.
    """

    banks: Any  # an nn.ModuleList of Bank: its items are no more than modules to a type checker

    def __init__(
        self,
        backbones: Sequence[nn.Module],
        *,
        width: int,
        samples: int | None = None,
        dim: int = 128,
        noise: int | None = 16384,
        momentum: float = 0.5,
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        if len(backbones) < 2:
            raise ValueError(f"backbones must be 2 at least, one per view, got {len(backbones)}")
        if noise is not None:
            _check.count("noise", noise)
        self.noise = noise
        self.temperature = _check.positive("temperature", temperature)
        self.backbone = nn.ModuleList(backbones)
        self.heads = nn.ModuleList(linear_head(width, dim) for _ in backbones)
        self.banks = nn.ModuleList()
        if samples is not None:
            options: dict[str, Any] = {"momentum": momentum, "fill": "uniform"}
            self.banks.extend(Bank(samples, dim, **options) for _ in backbones)
        pairs = len(backbones) * (len(backbones) - 1)
        self.normalizers = nn.ModuleList(Normalizer() for _ in range(pairs if self.banks else 0))
        self._seen: list[tuple[Tensor, list[Tensor]]] = []  # since the last update

    def forward(self, views: Sequence[Tensor], index: Tensor | None = None) -> Tensor:
        """The loss of the views `[n, ...]` of images number index `[n]` of the data set, its mean
        over the global batch when distributed. Without banks nothing asks for the numbers.

        Raises:
            ValueError: Not one view for each backbone, or banks and no index.
        """
        if len(views) != len(self.backbone):
            raise ValueError(
                f"views must be {len(self.backbone)}, one for each backbone, got {len(views)}"
            )
        if self.banks and index is None:
            raise ValueError("index must be given where there are banks, got None")
        x = [
            unit_rows(head(backbone(view)))
            for head, backbone, view in zip(self.heads, self.backbone, views, strict=True)
        ]
        if index is None or not self.banks:
            rows = [gather_with_gradient(part) for part in x]
            with record_function("fastcl::loss"):
                return self._batch_loss(rows)
        with record_function("fastcl::loss"):
            loss = mean(self._loss(x, index), rows=len(index))
        if self.training:
            self._seen.append((index, [rows.detach() for rows in x]))
        return loss

    def _batch_loss(self, x: list[Tensor]) -> Tensor:
        """Rows of every view against those of every other in the global batch."""
        scale = 1 / self.temperature
        losses = [clip(one, two, scale, normalize=False) for one, two in combinations(x, 2)]
        return 2 * torch.stack(losses).sum()  # clip is the mean of both directions

    def _loss(self, x: list[Tensor], index: Tensor) -> Tensor:
        """Rows of every view against the bank of every other, with one draw of noise for all."""
        options: dict[str, Any] = {"temperature": self.temperature, "normalize": False}
        pairs = list(permutations(range(len(x)), 2))
        if self.noise is None:
            losses = [inst_disc(x[a], self.banks[b].rows, index, **options) for a, b in pairs]
            return torch.stack(losses).sum()
        drawn = noise_indices(index, self.banks[0].rows.shape[0], self.noise)
        losses = []
        for normalizer, (a, b) in zip(self.normalizers, pairs, strict=True):
            bank = self.banks[b].rows
            z = normalizer(x[a], bank, self.temperature)
            losses.append(nce(x[a], bank, drawn, normalizer=z, **options))
        return torch.stack(losses).sum()

    @torch.no_grad()
    def update(self) -> None:
        """After the optimiser step: move the entries of the images seen since the last update."""
        with record_function("fastcl::queue"):
            for index, views in self._seen:
                for bank, x in zip(self.banks, views, strict=True):
                    bank.update(index, x)
        self._seen.clear()
