"""lightly's SwaV loss and its Sinkhorn, which overflows nowhere here."""

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from .. import distributed
from .._library import ops
from ..functional.sinkhorn import assignments
from ..functional.soft_cross_entropy import soft_cross_entropy
from ..functional.swav import predicted
from ..reference import accumulate_dtype


@torch.no_grad()
def sinkhorn(
    out: Tensor,  # [n, m]
    iterations: int = 3,
    epsilon: float = 0.05,
    gather_distributed: bool = False,
) -> Tensor:
    """Assignments of samples to prototypes, `[n, m]` in the dtype of out.

    Equal to lightly's function of this name where that does not overflow. The sums over samples
    are those of all ranks where gather_distributed, which `fastcl.functional.sinkhorn` always does.
    """
    return _assigned(out, None, iterations, epsilon, gather_distributed).to(out)


@torch.no_grad()
def _assigned(scores, older, iterations, epsilon, gather) -> Tensor:
    """The assignment of the scores `[n, m]` beside older ones, in the accumulation dtype."""
    ranks = distributed.world_size() if gather else 1
    if ranks == 1 and scores.numel() == 0:
        return scores.new_empty(scores.shape, dtype=accumulate_dtype(scores.dtype))
    if iterations > 0:
        return assignments(
            scores, older, scale=1 / epsilon, iterations=iterations, everywhere=ranks > 1
        )
    known = scores if older is None else torch.cat([scores, older])
    logarithms = ops.sinkhorn_columns(known.contiguous(), 1 / epsilon)
    if ranks > 1:
        logarithms = distributed.gather(logarithms[None], equal=True).logsumexp(0)
    s = scores.to(logarithms) / epsilon
    return (s - logarithms.logsumexp(0)).exp().mul(known.shape[0] * ranks)


def cross_entropy(
    z: Tensor,  # [n, m]
    q: Tensor,  # [n, m]
    temperature: float,
) -> Tensor:
    """Equal to ``-(q * F.log_softmax(z / temperature, dim=1)).sum(1).mean()``, in its dtype.

    It is that line where q wants a gradient, where shapes broadcast, and for other corners."""
    fits = (
        z.dim() == 2
        and z.shape == q.shape
        and z.numel() > 0
        and q.dtype in (z.dtype, accumulate_dtype(z.dtype))
        and not q.requires_grad
        and isinstance(temperature, int | float)
        and 0 < abs(temperature) < math.inf
    )
    if not fits:
        return -(q * F.log_softmax(z / temperature, dim=1)).sum(1).mean()
    return soft_cross_entropy(z, q, scale=1 / temperature).to(q.dtype)


class SwaVLoss(nn.Module):
    """The swapped prediction loss of SwAV over scores of samples with prototypes.

    Equal to lightly's class of this name; returns shape `[1]`, as that does.

    Args:
        temperature: Divides the scores in the predictions.
        sinkhorn_iterations: Of `sinkhorn`; 0 is legal.
        sinkhorn_epsilon: Divides the scores in the assignments.
        sinkhorn_gather_distributed: Assign over the samples of all ranks.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        sinkhorn_iterations: int = 3,
        sinkhorn_epsilon: float = 0.05,
        sinkhorn_gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        if sinkhorn_gather_distributed and not dist.is_available():
            raise ValueError(
                "sinkhorn_gather_distributed is True but torch.distributed is not available. "
                "Please set gather_distributed=False or install a torch version with distributed "
                "support."
            )
        self.temperature = temperature
        self.sinkhorn_iterations = sinkhorn_iterations
        self.sinkhorn_epsilon = sinkhorn_epsilon
        self.sinkhorn_gather_distributed = sinkhorn_gather_distributed

    def subloss(
        self,
        z: Tensor,  # [n, m]
        q: Tensor,  # [n, m]
    ) -> Tensor:
        """Cross-entropy of the predictions z with the assignments q, a scalar."""
        return cross_entropy(z, q, self.temperature)

    def forward(
        self,
        high_resolution_outputs: list[Tensor],  # [n, m] each
        low_resolution_outputs: list[Tensor],  # [n, m] each
        queue_outputs: list[Tensor] | None = None,  # [r, m] for each of the first
    ) -> Tensor:
        """The mean over assigned crops of the mean over the others that predict it, `[1]`."""
        crops = [*high_resolution_outputs, *low_resolution_outputs]
        targets = [
            _assigned(
                scores.detach(),
                None if queue_outputs is None else queue_outputs[i].detach(),
                self.sinkhorn_iterations,
                self.sinkhorn_epsilon,
                self.sinkhorn_gather_distributed,
            )
            for i, scores in enumerate(high_resolution_outputs)
        ]
        first, assigned = high_resolution_outputs[0], len(targets)
        loss = first.new_zeros(1)
        for v, target in predicted(targets, len(crops)):
            loss = loss + self.subloss(crops[v], target)
        return (loss / (len(crops) - 1) / assigned).to(first.dtype)
