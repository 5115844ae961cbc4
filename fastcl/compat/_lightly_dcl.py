"""lightly's decoupled losses."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import _check, distributed
from ..contrast.node import mean_loss
from ..contrast.problem import problem
from ..functional import row_products, unit_rows
from ._common import (
    in_dtype_of,
    is_one,
    log_sum,
    need_distributed,
    replaced,
    several,
    signed_inverse,
    times,
)


def negative_mises_fisher_weights(
    out0: Tensor,  # [n, d]
    out1: Tensor,  # [n, d]
    sigma: float = 0.5,
) -> Tensor:
    """Constant weights of positives, ``2 - n * softmax((out0 * out1).sum(1) / sigma)``."""
    similarity = (out0.detach() * out1.detach()).sum(1) / sigma
    return 2 - out0.shape[0] * F.softmax(similarity, dim=0)


class DCLLoss(nn.Module):
    """The decoupled loss: NT-Xent with the positive left out of the denominator.

    Equal to lightly's class of this name. Rows are normalised here.

    Args:
        temperature: Divides the similarities.
        weight_fn: From the normalised rows of both views of this rank to a weight `[n]` of their
            positives; called once with the views in either order.
        gather_distributed: Take the negatives of all ranks.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        weight_fn: Callable[[Tensor, Tensor], Tensor] | None = None,
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.weight_fn = weight_fn
        self.gather_distributed = gather_distributed
        need_distributed(gather_distributed)

    def forward(
        self,
        out0: Tensor,  # [n, d]
        out1: Tensor,  # [n, d]
    ) -> Tensor:
        """The mean over 2n rows, a scalar; -inf for a single pair, which has no negative."""
        _check.pairs("out1", out1, "out0", out0)
        gather = self.gather_distributed and distributed.world_size() > 1
        if gather or several(self.temperature) or replaced(self, "_loss"):
            return self._of_both(out0, out1, gather)
        sign, scale = signed_inverse(self.temperature, out0.device)
        if not is_one(sign):
            return self._of_both(out0, out1, gather)
        ids = torch.arange(out0.shape[0], device=out0.device).repeat(2)
        if not self.weight_fn:
            pairs = problem((out0, out1), scale=scale, ids=ids, positives_in=False)
            return in_dtype_of(out0, mean_loss(pairs)[0])
        z0, z1 = unit_rows(out0), unit_rows(out1)
        negatives = log_sum(torch.cat([z0, z1]), None, scale, ids)
        weights = torch.cat([self.weight_fn(z0, z1), self.weight_fn(z1, z0)])
        positive = scale * row_products(z0, z1).repeat(2) * weights
        return in_dtype_of(out0, (negatives - positive).mean())

    def _of_both(self, out0, out1, gather):
        z0, z1 = unit_rows(out0), unit_rows(out1)
        all0, all1 = z0, z1
        if gather:
            all0, all1 = (distributed.gather_with_gradient(z, equal=True) for z in (z0, z1))
        return 0.5 * (self._loss(z0, z1, all0, all1) + self._loss(z1, z0, all1, all0))

    def _loss(
        self,
        out0: Tensor,  # [n, d]
        out1: Tensor,  # [n, d]
        out0_all: Tensor,  # [m, d]
        out1_all: Tensor,  # [m, d]
    ) -> Tensor:
        """The mean over the rows of out0, of which out1 are the positives; rows as they are."""
        n, device = out0.shape[0], out0.device
        gather = self.gather_distributed and distributed.world_size() > 1
        first = distributed.rank() * n if gather else 0
        rows = torch.arange(first, first + n, device=device)
        columns = torch.arange(out0_all.shape[0], device=device).repeat(2)
        anchors, sign, scale = out0, 1, 1.0
        if several(self.temperature):
            anchors = out0 / self.temperature
        else:
            sign, scale = signed_inverse(self.temperature, device)
        anchors = times(sign, anchors)
        everything = torch.cat([out0_all, out1_all])
        negatives = log_sum(anchors, everything, scale, (rows, columns), unit=False)
        positive = scale * row_products(anchors, out1_all[first : first + n])
        if self.weight_fn:
            positive = positive * self.weight_fn(out0, out1)
        return in_dtype_of(out0, (negatives - positive).mean())


class DCLWLoss(DCLLoss):
    """The decoupled loss in which pairs that agree already count less.

    Equal to lightly's class of this name.

    Args:
        temperature: Divides the similarities.
        sigma: Divides the similarities in the weights.
        gather_distributed: Take the negatives of all ranks.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        sigma: float = 0.5,
        gather_distributed: bool = False,
    ) -> None:
        super().__init__(
            temperature=temperature,
            weight_fn=partial(negative_mises_fisher_weights, sigma=sigma),
            gather_distributed=gather_distributed,
        )
