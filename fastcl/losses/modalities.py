"""Two modalities, with a learned scale."""

from torch import Tensor, nn

from .. import functional as F


class CLIPLoss(nn.Module):
    """`functional.clip`: image to text and text to image with a learned scale."""

    def forward(
        self,
        image: Tensor,  # [n, d]
        text: Tensor,  # [n, d]
        logit_scale: Tensor | float,  # []
    ) -> Tensor:
        return F.clip(image, text, logit_scale)


class SigLIPLoss(nn.Module):
    """`functional.siglip`: every pair is a match or not, with a learned scale and bias."""

    def forward(
        self,
        image: Tensor,  # [n, d]
        text: Tensor,  # [n, d]
        logit_scale: Tensor | float,  # []
        logit_bias: Tensor | float,  # []
    ) -> Tensor:
        return F.siglip(image, text, logit_scale, logit_bias)
