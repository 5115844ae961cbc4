"""lightly's VICReg loss, without a covariance of features where rows are fewer."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from .. import distributed
from ..functional.vicreg import spread_and_mixed
from ..reference import accumulate_dtype
from ._common import need_distributed


class VICRegLoss(nn.Module):
    """Two views agree, every feature of the batch varies, and different ones do not covary.

    Equal to lightly's class of this name.

    Args:
        lambda_param: Weight of the distance of both views.
        mu_param: Weight of the hinge at a standard deviation of 1.
        nu_param: Weight of the covariances of different features.
        gather_distributed: Variance and covariance are those of the rows of all ranks.
        eps: Under the root of the variance.

    Raises:
        ValueError: gather_distributed without torch.distributed.
    """

    def __init__(
        self,
        lambda_param: float = 25.0,
        mu_param: float = 25.0,
        nu_param: float = 1.0,
        gather_distributed: bool = False,
        eps: float = 0.0001,
    ) -> None:
        super().__init__()
        need_distributed(gather_distributed)
        self.lambda_param, self.mu_param, self.nu_param = lambda_param, mu_param, nu_param
        self.gather_distributed = gather_distributed
        self.eps = eps

    def forward(
        self,
        z_a: Tensor,  # [n, ..., d]
        z_b: Tensor,  # [n, ..., d]
    ) -> Tensor:
        """A scalar.

        Raises:
            AssertionError: Less than two rows, or shapes that differ, as in lightly.
        """
        assert z_a.shape[0] > 1 and z_b.shape[0] > 1, (
            f"z_a and z_b must have batch size > 1 but found {z_a.shape[0]} and {z_b.shape[0]}"
        )
        assert z_a.shape == z_b.shape, (
            f"z_a and z_b must have same shape but found {z_a.shape} and {z_b.shape}."
        )
        dtype, agreement = torch.promote_types(z_a.dtype, z_b.dtype), F.mse_loss(z_a, z_b)
        if self.gather_distributed and dist.is_initialized():
            z_a, z_b = (distributed.gather_with_gradient(z, equal=True) for z in (z_a, z_b))
        spreads, mixed = (sum(parts) for parts in zip(*map(self._parts, (z_a, z_b)), strict=True))
        loss = self.lambda_param * agreement + self.mu_param * 0.5 * spreads
        return (loss + self.nu_param * mixed).to(dtype)

    def _parts(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Hinge and covariance, means over the places between rows and features."""
        places = z.to(accumulate_dtype(z.dtype)).reshape(len(z), -1, z.shape[-1]).unbind(1)
        found = zip(*(spread_and_mixed(x, self.eps) for x in places), strict=True)
        spread, mixed = (torch.stack(parts).mean() for parts in found)
        return spread, mixed
