"""The losses as modules: hyper-parameters and one call into `functional`."""

from torch import Tensor, nn

from . import _check
from . import functional as F


class _TemperatureLoss(nn.Module):
    """A loss whose hyper-parameter is a constant temperature."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = _check.positive("temperature", temperature)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"


class InfoNCELoss(_TemperatureLoss):
    """`functional.info_nce` with its temperature, negative mode and reduction."""

    def __init__(
        self,
        temperature: float = 0.1,
        *,
        negative_mode: str = "unpaired",
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature)
        _check.one_of("negative_mode", negative_mode, ("unpaired", "paired"))
        _check.one_of("reduction", reduction, ("mean", "sum", "none"))
        self.negative_mode = negative_mode
        self.reduction = reduction

    def forward(
        self,
        query: Tensor,  # [n, d]
        key: Tensor,  # [n, d]
        negatives: Tensor | None = None,  # [m, d] or [n, m, d]
    ) -> Tensor:
        return F.info_nce(
            query,
            key,
            negatives,
            temperature=self.temperature,
            negative_mode=self.negative_mode,
            reduction=self.reduction,
        )


class NTXentLoss(_TemperatureLoss):
    """`functional.nt_xent`, the loss of SimCLR."""

    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__(temperature)

    def forward(self, z0: Tensor, z1: Tensor) -> Tensor:  # [n, d], [n, d]
        return F.nt_xent(z0, z1, temperature=self.temperature)


class DCLLoss(_TemperatureLoss):
    """`functional.dcl`, the decoupled contrastive loss."""

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__(temperature)

    def forward(self, z0: Tensor, z1: Tensor) -> Tensor:  # [n, d], [n, d]
        return F.dcl(z0, z1, temperature=self.temperature)


class FlatNCELoss(_TemperatureLoss):
    """`functional.flat_nce`: the value of NT-Xent with the gradient of the decoupled loss."""

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__(temperature)

    def forward(self, z0: Tensor, z1: Tensor) -> Tensor:  # [n, d], [n, d]
        return F.flat_nce(z0, z1, temperature=self.temperature)


class SupConLoss(_TemperatureLoss):
    """`functional.sup_con`, the supervised contrastive loss."""

    def __init__(self, temperature: float = 0.07, *, base_temperature: float | None = None) -> None:
        super().__init__(temperature)
        if base_temperature is not None:
            _check.positive("base_temperature", base_temperature)
        self.base_temperature = base_temperature

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:  # [n, d], [n] int64
        return F.sup_con(
            z, labels, temperature=self.temperature, base_temperature=self.base_temperature
        )


class MoCoLoss(_TemperatureLoss):
    """`functional.moco`: queries against their keys and a queue."""

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__(temperature)

    def forward(self, query: Tensor, key: Tensor, queue: Tensor) -> Tensor:  # [n, d] x2, [K, d]
        return F.moco(query, key, queue, temperature=self.temperature)


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
