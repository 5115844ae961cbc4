"""Two modalities, with a learned scale."""

from torch import Tensor, nn

from .. import _check
from .. import functional as F


class _PairLoss(nn.Module):
    """A loss whose only hyper-parameter is what it does with duplicates."""

    def __init__(self, *, duplicates: str = "positive") -> None:
        super().__init__()
        _check.one_of("duplicates", duplicates, _check.DUPLICATES)
        self.duplicates = duplicates

    def extra_repr(self) -> str:
        return f"duplicates={self.duplicates!r}"


class CLIPLoss(_PairLoss):
    """`functional.clip`: image to text and text to image with a learned scale."""

    def __init__(self, *, duplicates: str = "positive", label_smoothing: float = 0.0) -> None:
        super().__init__(duplicates=duplicates)
        self.label_smoothing = _check.share("label_smoothing", label_smoothing)

    def forward(
        self,
        image: Tensor,  # [n, d]
        text: Tensor,  # [n, d]
        logit_scale: Tensor | float,  # []
        ids: Tensor | None = None,  # [n] int64
    ) -> Tensor:
        return F.clip(
            image,
            text,
            logit_scale,
            ids=ids,
            duplicates=self.duplicates,
            label_smoothing=self.label_smoothing,
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, label_smoothing={self.label_smoothing}"


class SigLIPLoss(_PairLoss):
    """`functional.siglip`: every pair is a match or not, with a learned scale and bias."""

    def forward(
        self,
        image: Tensor,  # [n, d]
        text: Tensor,  # [n, d]
        logit_scale: Tensor | float,  # []
        logit_bias: Tensor | float,  # []
        ids: Tensor | None = None,  # [n] int64
    ) -> Tensor:
        return F.siglip(image, text, logit_scale, logit_bias, ids=ids, duplicates=self.duplicates)
