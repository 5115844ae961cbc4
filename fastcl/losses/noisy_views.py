"""Two views, of which some negatives or positives may be wrong."""

from torch import Tensor

from .. import _check
from .. import functional as F
from .base import TemperatureLoss


class DebiasedLoss(TemperatureLoss):
    """`functional.debiased`: some of the negatives are positives in truth."""

    def __init__(self, temperature: float = 0.5, *, tau_plus: float = 0.1) -> None:
        super().__init__(temperature)
        self.tau_plus = _check.finite("tau_plus", tau_plus)
        if not 0 <= tau_plus < 1:
            raise ValueError(f"tau_plus must be from 0 to below 1, got {tau_plus}")

    def forward(self, z0: Tensor, z1: Tensor) -> Tensor:  # [n, d], [n, d]
        return F.debiased(z0, z1, temperature=self.temperature, tau_plus=self.tau_plus)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, tau_plus={self.tau_plus}"


class HCLLoss(DebiasedLoss):
    """`functional.hcl`: and negatives count the more the nearer they are."""

    def __init__(
        self, temperature: float = 0.5, *, tau_plus: float = 0.1, beta: float = 1.0
    ) -> None:
        super().__init__(temperature, tau_plus=tau_plus)
        self.beta = _check.finite("beta", beta)
        if beta < 0:
            raise ValueError(f"beta must not be negative, got {beta}")

    def forward(self, z0: Tensor, z1: Tensor) -> Tensor:  # [n, d], [n, d]
        return F.hcl(z0, z1, temperature=self.temperature, tau_plus=self.tau_plus, beta=self.beta)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, beta={self.beta}"


class RINCELoss(TemperatureLoss):
    """`functional.rince`: pairs that do not agree pull less."""

    def __init__(self, temperature: float = 0.5, *, q: float = 0.5, lam: float = 0.01) -> None:
        super().__init__(temperature)
        self.q = _check.positive("q", q)
        self.lam = _check.positive("lam", lam)

    def forward(self, z0: Tensor, z1: Tensor) -> Tensor:  # [n, d], [n, d]
        return F.rince(z0, z1, temperature=self.temperature, q=self.q, lam=self.lam)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, q={self.q}, lam={self.lam}"
