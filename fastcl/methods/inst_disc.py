"""InstDisc: non-parametric instance discrimination with a memory bank."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from .. import _check
from ..bank import Bank
from ..distributed import mean
from ..functional import inst_disc, nce, noise_indices, unit_rows
from .heads import linear_head
from .state import Normalizer


class InstDisc(nn.Module):
    """Every image is its own class, whose weight vector is its entry in a memory bank.

    Args:
        backbone: Maps a batch of images to features `[b, width]`.
        width: Features of the backbone.
        samples: Images of the data set.
        dim: Width of the embedding.
        noise: Noise samples per image of noise-contrastive estimation; None: the full softmax over
            the data set.
        momentum: From 0 to 1, what an old entry of the bank counts in its update.
        temperature: Positive; divides the cosine similarities.

    Source: Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance
    Discrimination" (arXiv 1805.01978).
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        width: int,
        samples: int,
        dim: int = 128,
        noise: int | None = 4096,
        momentum: float = 0.5,
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        if noise is not None:
            _check.count("noise", noise)
        self.noise = noise
        self.temperature = _check.positive("temperature", temperature)
        self.backbone = backbone
        self.head = linear_head(width, dim)
        self.bank = Bank(samples, dim, momentum=momentum, fill="uniform")
        self.normalizer = Normalizer()
        self._seen: list[tuple[Tensor, Tensor]] = []  # index and rows since the last update

    def forward(self, view: Tensor, index: Tensor) -> Tensor:
        """The loss of images `[n, ...]`, which are those of number index `[n]` in the data set; its
        mean over the global batch when distributed."""
        x = unit_rows(self.head(self.backbone(view)))
        bank = self.bank.rows
        with record_function("fastcl::loss"):
            options: dict[str, Any] = {"temperature": self.temperature, "normalize": False}
            if self.noise is None:
                local = inst_disc(x, bank, index, **options)
            else:
                z = self.normalizer(x, bank, self.temperature)
                drawn = noise_indices(index, bank.shape[0], self.noise)
                local = nce(x, bank, drawn, normalizer=z, **options)
            loss = mean(local, rows=len(x))
        if self.training:
            self._seen.append((index, x.detach()))
        return loss

    @torch.no_grad()
    def update(self) -> None:
        """After the optimiser step: move the entries of the images seen since the last update."""
        with record_function("fastcl::queue"):
            for index, x in self._seen:
                self.bank.update(index, x)
        self._seen.clear()
