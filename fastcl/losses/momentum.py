"""Against a momentum encoder, or against the encoder itself held constant."""

from torch import Tensor, nn

from .. import functional as F
from .base import DuplicatesLoss, TemperatureLoss


class MoCoLoss(DuplicatesLoss):
    """`functional.moco`: queries against their keys and a queue."""

    def __init__(self, temperature: float = 0.07, *, duplicates: str = "positive") -> None:
        super().__init__(temperature, duplicates)

    def forward(
        self,
        query: Tensor,  # [n, d]
        key: Tensor,  # [n, d]
        queue: Tensor,  # [K, d]
        ids: Tensor | None = None,  # [n] int64
        queue_ids: Tensor | None = None,  # [K] int64
    ) -> Tensor:
        return F.moco(
            query,
            key,
            queue,
            temperature=self.temperature,
            ids=ids,
            queue_ids=queue_ids,
            duplicates=self.duplicates,
        )


class MoCoV3Loss(TemperatureLoss):
    """`functional.moco_v3`: queries of each view against the keys of the other."""

    def __init__(self, temperature: float = 0.2) -> None:
        super().__init__(temperature)

    def forward(self, q1: Tensor, q2: Tensor, k1: Tensor, k2: Tensor) -> Tensor:  # [n, d] each
        return F.moco_v3(q1, q2, k1, k2, temperature=self.temperature)


class BYOLLoss(nn.Module):
    """`functional.byol`: distance of each prediction to the other view's projection."""

    def forward(self, p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor) -> Tensor:  # [n, d] each
        return F.byol(p1, p2, z1, z2)


class SimSiamLoss(nn.Module):
    """`functional.simsiam`: negative cosine of each prediction and the other view's projection."""

    def forward(self, p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor) -> Tensor:  # [n, d] each
        return F.simsiam(p1, p2, z1, z2)
