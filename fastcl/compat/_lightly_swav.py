"""lightly's SwaV loss and its Sinkhorn, which overflows nowhere here."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from .. import distributed
from .._library import ops


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
    scores, scale = out.contiguous(), 1 / epsilon
    gather = gather_distributed and distributed.world_size() > 1
    logarithms = ops.sinkhorn_columns(scores, scale)
    if gather:
        logarithms = distributed.gather(logarithms[None], equal=True).logsumexp(0)
    if iterations == 0:
        samples = out.shape[0] * (distributed.world_size() if gather else 1)
        return (scores.to(logarithms) * scale - logarithms.logsumexp(0)).exp().mul(samples).to(out)
    potential = -logarithms
    for _ in range(iterations - 1):
        masses = ops.sinkhorn_masses(scores, scale, potential)
        if gather:
            dist.all_reduce(masses)
        potential = potential - masses.log()
    return ops.sinkhorn_assign(scores, scale, potential).to(out)


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
        return F.cross_entropy(z / self.temperature, q)

    def forward(
        self,
        high_resolution_outputs: list[Tensor],  # [n, m] each
        low_resolution_outputs: list[Tensor],  # [n, m] each
        queue_outputs: list[Tensor] | None = None,  # [r, m] for each of the first
    ) -> Tensor:
        """The mean over assigned crops of the mean over the others that predict it, `[1]`."""
        assigned = len(high_resolution_outputs)
        crops = [*high_resolution_outputs, *low_resolution_outputs]
        targets = []
        for i, scores in enumerate(high_resolution_outputs):
            known = scores if queue_outputs is None else torch.cat([scores, queue_outputs[i]])
            targets.append(
                sinkhorn(
                    known.detach(),
                    iterations=self.sinkhorn_iterations,
                    epsilon=self.sinkhorn_epsilon,
                    gather_distributed=self.sinkhorn_gather_distributed,
                )[: len(scores)]
            )
        loss = high_resolution_outputs[0].new_zeros(1)
        total = sum(targets)
        for v, scores in enumerate(crops):
            # All the assignments that crop v predicts, in one cross-entropy.
            if v >= assigned:
                loss = loss + self.subloss(scores, total)
            elif assigned > 1:
                loss = loss + self.subloss(scores, total - targets[v])
        return loss / (len(crops) - 1) / assigned
