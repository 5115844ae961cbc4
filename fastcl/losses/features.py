"""Features, prototypes and locations instead of samples."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .. import _check
from .. import functional as F
from .base import TemperatureLoss


class BarlowTwinsLoss(nn.Module):
    """`functional.barlow_twins`: the cross-correlation of features should be the identity."""

    def __init__(self, off_diagonal: float = 0.0051) -> None:
        super().__init__()
        self.off_diagonal = _check.finite("off_diagonal", off_diagonal)

    def forward(self, z0: Tensor, z1: Tensor) -> Tensor:  # [n, d], [n, d]
        return F.barlow_twins(z0, z1, off_diagonal=self.off_diagonal)

    def extra_repr(self) -> str:
        return f"off_diagonal={self.off_diagonal}"


class VICRegLoss(nn.Module):
    """`functional.vicreg`: views agree, features vary and do not covary."""

    def __init__(
        self,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
    ) -> None:
        super().__init__()
        self.invariance = _check.finite("invariance", invariance)
        self.variance = _check.finite("variance", variance)
        self.covariance = _check.finite("covariance", covariance)

    def forward(self, z0: Tensor, z1: Tensor) -> Tensor:  # [n, d], [n, d]
        return F.vicreg(
            z0,
            z1,
            invariance=self.invariance,
            variance=self.variance,
            covariance=self.covariance,
        )

    def extra_repr(self) -> str:
        return (
            f"invariance={self.invariance}, variance={self.variance}, covariance={self.covariance}"
        )


class SwAVLoss(TemperatureLoss):
    """`functional.swav`: views predict each other's assignments."""

    def __init__(
        self,
        temperature: float = 0.1,
        *,
        assign: int = 2,
        epsilon: float = 0.05,
        iterations: int = 3,
    ) -> None:
        super().__init__(temperature)
        _check.count("assign", assign)
        _check.count("iterations", iterations)
        self.assign = assign
        self.epsilon = _check.positive("epsilon", epsilon)
        self.iterations = iterations

    def forward(
        self,
        scores: Sequence[Tensor],  # [n, m] each
        queue: Sequence[Tensor] | None = None,  # [r, m] each
    ) -> Tensor:
        return F.swav(
            scores,
            assign=self.assign,
            temperature=self.temperature,
            epsilon=self.epsilon,
            iterations=self.iterations,
            queue=queue,
        )


class CPCLoss(nn.Module):
    """`functional.cpc` with the linear prediction of every step.

    Args:
        steps: How many steps ahead are predicted.
        width: Of the encodings, d.
        context_width: Of the context, c.

    Attributes:
        weight: `[steps, d, c]`, initialised as a linear layer's.
    """

    def __init__(self, steps: int, width: int, context_width: int) -> None:
        super().__init__()
        for name, value in (("steps", steps), ("width", width), ("context_width", context_width)):
            _check.count(name, value)
        bound = context_width**-0.5
        weight = torch.empty(steps, width, context_width).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight)

    def forward(
        self,
        future: Tensor,  # [steps, n, d]
        context: Tensor,  # [n, c]
    ) -> Tensor:
        return F.cpc(future, context, self.weight)


class DIMJSDLoss(nn.Module):
    """`functional.dim_jsd`: local against global features, Jensen-Shannon estimator."""

    def forward(self, local: Tensor, summary: Tensor) -> Tensor:  # [n, d, l], [n, d, m]
        return F.dim_jsd(local, summary)


class DIMNCELoss(nn.Module):
    """`functional.dim_nce`: local against global features, noise-contrastive estimator."""

    def __init__(self, self_logit: float = -10.0) -> None:
        super().__init__()
        self.self_logit = self_logit

    def forward(self, local: Tensor, summary: Tensor) -> Tensor:  # [n, d, l], [n, d, m]
        return F.dim_nce(local, summary, self_logit=self.self_logit)

    def extra_repr(self) -> str:
        return f"self_logit={self.self_logit}"


class DIMDVLoss(nn.Module):
    """`functional.dim_dv`: local against global features, Donsker-Varadhan estimator."""

    def forward(self, local: Tensor, summary: Tensor) -> Tensor:  # [n, d, l], [n, d, m]
        return F.dim_dv(local, summary)
