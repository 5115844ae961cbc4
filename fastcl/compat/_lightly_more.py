"""lightly's contrasts of parts of an encoding, of regions and of a temperature by the model."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .. import _check, distributed
from ..contrast.node import row_losses
from ..contrast.problem import problem
from ..functional import row_products, unit_rows
from ..functional.rows import softplus
from ._common import in_dtype_of, log_sum, need_distributed
from ._lightly_losses import NTXentLoss

EPS = 1e-8  # lightly's


class DirectCLRLoss(NTXentLoss):
    """NT-Xent of the first values of an encoding.

    Equal to lightly's class of this name.

    Args:
        loss_dim: How many of them.
        temperature, memory_bank_size, gather_distributed: Those of `NTXentLoss`.
    """

    def __init__(
        self,
        loss_dim: int = 64,
        temperature: float = 0.5,
        memory_bank_size: int | Sequence[int] = 0,
        gather_distributed: bool = False,
    ) -> None:
        super().__init__(
            temperature=temperature,
            memory_bank_size=memory_bank_size,
            gather_distributed=gather_distributed,
        )
        self.loss_dim = loss_dim

    def forward(
        self,
        out0: Tensor,  # [n, ...]
        out1: Tensor,  # [n, ...]
    ) -> Tensor:
        """A scalar."""
        return super().forward(*(x.flatten(1)[:, : self.loss_dim] for x in (out0, out1)))


class HypersphereLoss(nn.Module):
    """Alignment of the pairs and uniformity of all rows of a view.

    Equal to lightly's class of this name, but for the distances of a row of zeros, which has no
    place on the sphere.

    Args:
        t: How steeply near rows repel each other; positive where memory is to be linear.
        lam: Weight of uniformity.
        alpha: Power of the distance of a pair.
    """

    def __init__(self, t: float = 1.0, lam: float = 1.0, alpha: float = 2.0) -> None:
        super().__init__()
        self.t, self.lam, self.alpha = t, lam, alpha

    def forward(
        self,
        z_a: Tensor,  # [n, d]
        z_b: Tensor,  # [n, d]
    ) -> Tensor:
        """A scalar."""
        _check.pairs("z_b", z_b, "z_a", z_a)
        x, y = (nn.functional.normalize(z) for z in (z_a, z_b))
        align = (x - y).norm(dim=1).pow(self.alpha).mean()
        return align + self.lam * (self._uniform(x) + self._uniform(y)) / 2

    def _uniform(self, x: Tensor) -> Tensor:
        """The logarithm of the mean over pairs of exp(-t distance^2), which is 2 - 2 cosines."""
        n = len(x)
        if n < 2 or not self.t > 0:
            return torch.pdist(x).pow(2).mul(-self.t).exp().mean().log()
        sums = log_sum(x, None, 2 * self.t)
        return in_dtype_of(x, sums.logsumexp(0) - math.log(n * (n - 1)) - 2 * self.t)


class MACLLoss(nn.Module):
    """NT-Xent with a temperature that grows as the positives agree, rows weighted by how hard.

    Equal to lightly's class of this name.

    Args:
        temperature: The base, 1e-8 or more.
        alpha: How much the temperature follows the mean cosine of the positives, from 0 to 1.
        A_0: The cosine at which it is the base, from 0 to 1.

    Raises:
        ValueError: Out of these ranges.
    """

    def __init__(self, temperature: float = 0.1, alpha: float = 0.5, A_0: float = 0.0) -> None:
        super().__init__()
        if temperature < EPS:
            raise ValueError(f"Illegal initial temperature: abs({temperature}) < 1e-8")
        if not 0 <= alpha <= 1:
            raise ValueError("Alpha must be in the range [0, 1].")
        if not 0 <= A_0 <= 1:
            raise ValueError("A_0 must be in the range [0, 1].")
        self.temperature, self.alpha, self.A_0, self.eps = temperature, alpha, A_0, EPS

    def forward(
        self,
        z0: Tensor,  # [n, d]
        z1: Tensor,  # [n, d]
    ) -> Tensor:
        """A scalar."""
        _check.pairs("z1", z1, "z0", z0)
        a, b = unit_rows(z0), unit_rows(z1)
        agreement = row_products(a.detach(), b.detach()).mean()
        scale = 1 / (self.temperature * (1 + self.alpha * (agreement - self.A_0)))
        ids = torch.arange(len(a), device=a.device).repeat(2)
        p = problem((a, b), scale=scale, ids=ids, positives_in=False, normalize=False)
        loss = softplus(row_losses(p).loss)  # small ones to the last digit: they are divided by
        weight = 1 / (self.eps - torch.expm1(-loss.detach()))
        return in_dtype_of(z0, (weight * loss).mean())


class DetConBLoss(nn.Module):
    """Regions of two views: those under one mask of an image are positives, all others negatives.

    Equal to lightly's class of this name, in memory linear in the number of regions.

    Args:
        temperature: Divides the cosines.
        gather_distributed: Regions of all ranks are negatives.

    Raises:
        ValueError: A temperature of 0, or no torch.distributed.
    """

    def __init__(self, temperature: float = 0.1, gather_distributed: bool = True) -> None:
        super().__init__()
        self.eps, self.temperature = EPS, temperature
        self.gather_distributed = gather_distributed
        if abs(temperature) < EPS:
            raise ValueError(f"Illegal temperature: abs({temperature}) < 1e-8")
        need_distributed(gather_distributed)

    def forward(
        self,
        pred_view0: Tensor,  # [b, m, d]
        pred_view1: Tensor,  # [b, m, d]
        target_view0: Tensor,  # [b, m, d]
        target_view1: Tensor,  # [b, m, d]
        mask_view0: Tensor,  # [b, m] integers
        mask_view1: Tensor,  # [b, m]
    ) -> Tensor:
        """A scalar, the sum of both directions, float32 (float64 for float64 rows)."""
        rows = [unit_rows(x.flatten(0, 1)) for x in (pred_view0, pred_view1)]
        columns = [unit_rows(x.flatten(0, 1)) for x in (target_view0, target_view1)]
        ids = _region_ids(mask_view0, mask_view1)
        col_ids = list(ids)
        if self.gather_distributed and distributed.world_size() > 1:
            columns = [distributed.gather_with_gradient(x, equal=True) for x in columns]
            col_ids = [_among_all(x) for x in ids]
        masks = mask_view0, mask_view1
        sides = [
            self._side(rows[i], columns[1 - i], columns[i], ids[i], col_ids[1 - i], col_ids[i],
                       masks[i])
            for i in (0, 1)
        ]  # fmt: skip
        return sides[0] + sides[1]

    def _side(self, q, other, same, ids, other_ids, same_ids, mask) -> Tensor:
        """The mean over regions of one view against those of the other and of their own."""
        scale = 1 / self.temperature
        found = row_losses(problem(q, other, scale=scale, ids=(ids, other_ids), normalize=False))
        # Of its own view, the regions under the mask are no negatives.
        own = log_sum(q, same, scale, (ids, same_ids))
        loss = torch.logaddexp(found.loss + found.positive, own) - found.positive
        area = (mask[:, :, None] == mask[:, None]).sum(2).flatten()
        return (loss * (found.count > 0) / area).mean()


def _region_ids(mask0: Tensor, mask1: Tensor) -> list[Tensor]:
    """An integer for every image and mask, [b * m] for either view."""
    first = torch.minimum(mask0.min(), mask1.min())
    count = torch.maximum(mask0.max(), mask1.max()) - first + 1
    image = torch.arange(len(mask0), device=mask0.device)[:, None]
    return [(image * count + mask - first).long().flatten() for mask in (mask0, mask1)]


def _among_all(ids: Tensor) -> Tensor:
    """Those of this rank in their place; those of other ranks belong to no row."""
    everyone = ids.new_full((distributed.world_size() * len(ids),), -1)
    start = distributed.rank() * len(ids)
    everyone[start : start + len(ids)] = ids
    return everyone


class DetConSLoss(nn.Module):
    """`DetConBLoss` of one network: what predicts is the target too.

    Equal to lightly's class of this name; arguments and errors are those of `DetConBLoss`.
    """

    def __init__(self, temperature: float = 0.1, gather_distributed: bool = True) -> None:
        super().__init__()
        self.detconbloss = DetConBLoss(temperature, gather_distributed)

    def forward(
        self,
        view0: Tensor,  # [b, m, d]
        view1: Tensor,  # [b, m, d]
        mask_view0: Tensor,  # [b, m] integers
        mask_view1: Tensor,  # [b, m]
    ) -> Tensor:
        """A scalar, the sum of both directions."""
        return self.detconbloss(view0, view1, view0, view1, mask_view0, mask_view1)
