"""Against a bank with one row per sample."""

import math

import torch
from torch import Tensor, nn

from .. import _check
from .. import functional as F
from .base import TemperatureLoss


class InstDiscLoss(TemperatureLoss):
    """`functional.inst_disc`: every row against all of the bank."""

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__(temperature)

    def forward(
        self,
        x: Tensor,  # [b, d]
        bank: Tensor,  # [n, d]
        target: Tensor,  # [b] int64
    ) -> Tensor:
        return F.inst_disc(x, bank, target, temperature=self.temperature)


class Normalizer(nn.Module):
    """The constant of `functional.nce`: as given, or from the first batch on what it is there.

    Attributes:
        value: `[]`, in the state_dict; NaN before the first batch.
    """

    value: Tensor

    def __init__(self, value: float | None = None) -> None:
        super().__init__()
        self._known = value is not None
        number = math.nan if value is None else _check.positive("normalizer", value)
        self.register_buffer("value", torch.tensor(number))

    def forward(
        self,
        x: Tensor,  # [b, d]
        bank: Tensor,  # [n, d]
        temperature: float,
    ) -> Tensor:
        if not self._known:
            if self.value.isnan():  # waits for the device, once
                self.value.copy_(F.nce_normalizer(x, bank, temperature=temperature))
            self._known = True
        return self.value


class NCELoss(TemperatureLoss):
    """`functional.nce`: every row against its entry and sampled noise.

    Args:
        temperature: Positive; divides the similarities.
        normalizer: The constant of the softmax; None: that of the first batch.
    """

    def __init__(self, temperature: float = 0.07, *, normalizer: float | None = None) -> None:
        super().__init__(temperature)
        self.normalizer = Normalizer(normalizer)

    def forward(
        self,
        x: Tensor,  # [b, d]
        bank: Tensor,  # [n, d]
        index: Tensor,  # [b, 1 + K] int64
    ) -> Tensor:
        z = self.normalizer(x, bank, self.temperature)
        return F.nce(x, bank, index, temperature=self.temperature, normalizer=z)


class CMCLoss(TemperatureLoss):
    """`functional.cmc`: the rows of each view against the bank of the other.

    Args:
        temperature: Positive; divides the similarities.
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__(temperature)
        self.normalizer_l = Normalizer()
        self.normalizer_ab = Normalizer()

    def forward(
        self,
        l: Tensor,  # [b, d]  # noqa: E741
        ab: Tensor,  # [b, d]
        bank_l: Tensor,  # [n, d]
        bank_ab: Tensor,  # [n, d]
        index: Tensor,  # [b, 1 + K] int64
    ) -> Tensor:
        return F.cmc(
            l,
            ab,
            bank_l,
            bank_ab,
            index,
            temperature=self.temperature,
            normalizer_l=self.normalizer_l(l, bank_ab, self.temperature),
            normalizer_ab=self.normalizer_ab(ab, bank_l, self.temperature),
        )
