"""CLIP and SigLIP: images and texts that belong together."""

import math

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from .. import functional
from ..distributed import gather_with_gradient

LARGEST_SCALE = math.log(100)  # Radford et al. 2021, section 2.5


class _TwoTowers(nn.Module):
    """A network and a linear projection for each of two modalities."""

    def __init__(
        self, image: nn.Module, text: nn.Module, image_width: int, text_width: int, dim: int
    ) -> None:
        super().__init__()
        self.image, self.text = image, text
        self.image_head = nn.Linear(image_width, dim, bias=False)
        self.text_head = nn.Linear(text_width, dim, bias=False)

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of all ranks, `[n, dim]` each."""
        x, y = self.image_head(self.image(images)), self.text_head(self.text(texts))
        return gather_with_gradient(x), gather_with_gradient(y)


class CLIP(nn.Module):
    """Every image finds its text among the batch's, and every text its image.

    Args:
        image: Maps images to features `[b, image_width]`.
        text: Maps texts to features `[b, text_width]`.
        image_width: Of the features of an image.
        text_width: Of the features of a text.
        dim: Width of the common embedding.

    Attributes:
        logit_scale: `[]`, the logarithm of one over the temperature; starts at 0.07, and stays at
            log 100 at most.

    Source: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
    Supervision" (arXiv 2103.00020), figure 3.
    """

    def __init__(
        self, image: nn.Module, text: nn.Module, *, image_width: int, text_width: int,
        dim: int = 512,
    ) -> None:  # fmt: skip
        super().__init__()
        self.towers = _TwoTowers(image, text, image_width, text_width, dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, images: Tensor, texts: Tensor) -> Tensor:
        """The loss of images `[n, ...]` and texts `[n, ...]`, over the global batch."""
        x, y = self.towers(images, texts)
        with record_function("fastcl::loss"):
            return functional.clip(x, y, self.logit_scale.exp())

    @torch.no_grad()
    def update(self) -> None:
        """After the optimiser step: keep the temperature at 0.01 at least."""
        self.logit_scale.clamp_(max=LARGEST_SCALE)


class SigLIP(nn.Module):
    """Every image and every text of the batch: do they belong together or not?

    Args and networks are those of `CLIP`.

    Attributes:
        logit_scale: `[]`, the logarithm of one over the temperature; starts at log 10.
        logit_bias: `[]`; starts at -10, as nearly all pairs do not belong together.

    Source: Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training" (arXiv 2303.15343),
    algorithm 1.
    """

    def __init__(
        self, image: nn.Module, text: nn.Module, *, image_width: int, text_width: int,
        dim: int = 512,
    ) -> None:  # fmt: skip
        super().__init__()
        self.towers = _TwoTowers(image, text, image_width, text_width, dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(10)))
        self.logit_bias = nn.Parameter(torch.tensor(-10.0))

    def forward(self, images: Tensor, texts: Tensor) -> Tensor:
        """The loss of images `[n, ...]` and texts `[n, ...]`, over the global batch."""
        x, y = self.towers(images, texts)
        with record_function("fastcl::loss"):
            return functional.siglip(x, y, self.logit_scale.exp(), self.logit_bias)

    def update(self) -> None:
        """Nothing moves outside the optimiser."""
