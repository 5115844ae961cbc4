"""Views of one batch against each other, all with a temperature."""

from torch import Tensor

from .. import _check
from .. import functional as F
from .base import DuplicatesLoss, TemperatureLoss


class InfoNCELoss(DuplicatesLoss):
    """`functional.info_nce` with its temperature, negative mode and reduction."""

    def __init__(
        self,
        temperature: float = 0.1,
        *,
        negative_mode: str = "unpaired",
        reduction: str = "mean",
        duplicates: str = "positive",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(temperature, duplicates)
        _check.one_of("negative_mode", negative_mode, ("unpaired", "paired"))
        _check.one_of("reduction", reduction, ("mean", "sum", "none"))
        self.negative_mode = negative_mode
        self.reduction = reduction
        self.label_smoothing = _check.share("label_smoothing", label_smoothing)

    def forward(
        self,
        query: Tensor,  # [n, d]
        key: Tensor,  # [n, d]
        negatives: Tensor | None = None,  # [m, d] or [n, m, d]
        ids: Tensor | None = None,  # [n] int64
    ) -> Tensor:
        return F.info_nce(
            query,
            key,
            negatives,
            temperature=self.temperature,
            negative_mode=self.negative_mode,
            reduction=self.reduction,
            ids=ids,
            duplicates=self.duplicates,
            label_smoothing=self.label_smoothing,
        )


class NTXentLoss(DuplicatesLoss):
    """`functional.nt_xent`, the loss of SimCLR."""

    def __init__(self, temperature: float = 0.5, *, duplicates: str = "positive") -> None:
        super().__init__(temperature, duplicates)

    def forward(
        self,
        z0: Tensor,  # [n, d]
        z1: Tensor,  # [n, d]
        ids: Tensor | None = None,  # [n] int64
    ) -> Tensor:
        return F.nt_xent(z0, z1, temperature=self.temperature, ids=ids, duplicates=self.duplicates)


class DCLLoss(TemperatureLoss):
    """`functional.dcl`, the decoupled contrastive loss."""

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__(temperature)

    def forward(self, z0: Tensor, z1: Tensor) -> Tensor:  # [n, d], [n, d]
        return F.dcl(z0, z1, temperature=self.temperature)


class DCLWLoss(TemperatureLoss):
    """`functional.dclw`, the decoupled loss with weighted positives."""

    def __init__(self, temperature: float = 0.1, *, sigma: float = 0.5) -> None:
        super().__init__(temperature)
        self.sigma = _check.positive("sigma", sigma)

    def forward(self, z0: Tensor, z1: Tensor) -> Tensor:  # [n, d], [n, d]
        return F.dclw(z0, z1, temperature=self.temperature, sigma=self.sigma)


class FlatNCELoss(TemperatureLoss):
    """`functional.flat_nce`: the value of NT-Xent with the gradient of the decoupled loss."""

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__(temperature)

    def forward(self, z0: Tensor, z1: Tensor) -> Tensor:  # [n, d], [n, d]
        return F.flat_nce(z0, z1, temperature=self.temperature)


class SupConLoss(TemperatureLoss):
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


class InvaSpreadLoss(TemperatureLoss):
    """`functional.inva_spread`, invariant and spreading instance features."""

    def __init__(self, temperature: float = 0.1, *, negative_weight: float = 1.0) -> None:
        super().__init__(temperature)
        self.negative_weight = _check.positive("negative_weight", negative_weight)

    def forward(self, z0: Tensor, z1: Tensor) -> Tensor:  # [n, d], [n, d]
        return F.inva_spread(
            z0, z1, temperature=self.temperature, negative_weight=self.negative_weight
        )


class SimCSELoss(DuplicatesLoss):
    """`functional.sim_cse`, with or without hard negatives."""

    def __init__(
        self,
        temperature: float = 0.05,
        *,
        hard_weight: float = 0.0,
        duplicates: str = "positive",
    ) -> None:
        super().__init__(temperature, duplicates)
        self.hard_weight = _check.finite("hard_weight", hard_weight)

    def forward(
        self,
        z0: Tensor,  # [n, d]
        z1: Tensor,  # [n, d]
        hard: Tensor | None = None,  # [n, d]
        ids: Tensor | None = None,  # [n] int64
    ) -> Tensor:
        return F.sim_cse(
            z0,
            z1,
            hard,
            temperature=self.temperature,
            hard_weight=self.hard_weight,
            ids=ids,
            duplicates=self.duplicates,
        )
