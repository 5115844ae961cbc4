"""lightly's NT-Xent with its memory bank, SupCon in its manner, and the cosine of two views."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import _check, distributed
from ..contrast.node import mean_loss, row_losses
from ..contrast.problem import problem
from ..functional import unit_rows
from ._common import (
    hooked,
    in_dtype_of,
    is_one,
    need_distributed,
    replaced,
    several,
    signed_inverse,
    times,
)
from ._lightly_bank import MemoryBankModule


def _gathered(
    z0: Tensor,  # [n, d]
    z1: Tensor,  # [n, d]
    gather_distributed: bool,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Both views of all ranks below each other, with gradients, and the ids of the own rows and
    of all: a row shares its id with itself and its other view."""
    n, offset = z0.shape[0], 0
    if gather_distributed:
        z0, z1 = (distributed.gather_with_gradient(z, equal=True) for z in (z0, z1))
        offset = distributed.rank() * n
    rows = torch.arange(offset, offset + n, device=z0.device).repeat(2)
    columns = torch.arange(z0.shape[0], device=z0.device).repeat(2)
    return torch.cat([z0, z1]), (rows, columns)


class NTXentLoss(nn.Module):
    """NT-Xent: SimCLR's loss, or MoCo's with a memory bank.

    Equal to lightly's class of this name. Rows are normalised here. A negative temperature is
    legal. Another `cross_entropy` gets the logits, formed, and any other `memory_bank` is called.
    With a bank, only out0 is contrasted, both receive gradients, and the bank is read
    before out1 is enqueued, which happens where out0 requires a gradient.

    Args:
        temperature: Divides the similarities.
        memory_bank_size: `(rows, width)`, or 0 for none; see `MemoryBankModule`.
        gather_distributed: Take the negatives of all ranks, or enqueue the rows of all.

    Raises:
        ValueError: A temperature of size below 1e-8.
    """

    bank_type: type[nn.Module] = MemoryBankModule  # the library's own where fastcl is put into it

    def __init__(
        self,
        temperature: float = 0.5,
        memory_bank_size: int | Sequence[int] = 0,
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        self.memory_bank = self.bank_type(memory_bank_size, gather_distributed)
        self.temperature = temperature
        self.gather_distributed = gather_distributed
        self.cross_entropy = nn.CrossEntropyLoss(reduction="mean")
        self.eps = 1e-8
        if abs(self.temperature) < self.eps:
            raise ValueError(f"Illegal temperature: abs({self.temperature}) < 1e-8")
        need_distributed(gather_distributed)

    def forward(
        self,
        out0: Tensor,  # [n, d]
        out1: Tensor,  # [n, d]
    ) -> Tensor:
        """The mean over 2n rows, over n with a bank: a scalar."""
        _check.pairs("out1", out1, "out0", out0)
        streamed = _is_mean(self.cross_entropy) and not several(self.temperature)
        if not streamed or not _is_known(self.memory_bank):
            return self._through_the_bank(out0, out1, streamed)
        if self.memory_bank.size[0] == 0:
            return in_dtype_of(out0, self._in_batch(out0, out1))
        q, k = unit_rows(out0), unit_rows(out1)
        loss = self._against(q, k, self._bank_rows(k), True)
        if q.requires_grad:
            # No copy of the bank was taken: the gradient to q is finished in the forward.
            self.memory_bank._dequeue_and_enqueue(k)
        return in_dtype_of(out0, loss)

    def _bank_rows(self, k):
        bank = self.memory_bank
        return bank._rows(k) if isinstance(bank, MemoryBankModule) else bank.bank.detach()

    def _against(self, q, k, rows, unit):
        sign, scale = signed_inverse(self.temperature, q.device)
        options: dict[str, Any] = {"scale": scale, "unit": unit, "normalize": False}
        return mean_loss(problem(times(sign, q), rows.to(q), own=k, **options))[0]

    def _in_batch(self, out0, out1):
        sign, scale = signed_inverse(self.temperature, out0.device)
        gather = self.gather_distributed and distributed.world_size() > 1
        if is_one(sign) and not gather:
            ids = torch.arange(out0.shape[0], device=out0.device).repeat(2)
            return mean_loss(problem((out0, out1), scale=scale, ids=ids))[0]
        z0, z1 = unit_rows(out0), unit_rows(out1)
        # Columns of a row's id, itself and its other view, are left out; the view comes back.
        columns, ids = _gathered(z0, z1, gather)
        rows, own = times(sign, torch.cat([z0, z1])), torch.cat([z1, z0])
        options: dict[str, Any] = {"scale": scale, "ids": ids, "normalize": False}
        return mean_loss(problem(rows, columns, own=own, **options))[0]

    def _through_the_bank(self, out0, out1, streamed):
        """With a memory bank that is not known, or a cross-entropy that wants the logits."""
        z0, z1 = F.normalize(out0, dim=1), F.normalize(out1, dim=1)
        z1, negatives = self.memory_bank.forward(z1, update=z0.requires_grad)
        if negatives is None:
            return self.cross_entropy(*self._logits(z0, z1))
        if streamed:
            return in_dtype_of(out0, self._against(z0, z1, negatives.T, False))
        logits = torch.cat([(z0 * z1).sum(1, keepdim=True), z0 @ negatives.to(z0.device)], dim=1)
        labels = torch.zeros(len(z0), device=z0.device, dtype=torch.long)
        return self.cross_entropy(logits / self.temperature, labels)

    def _logits(self, z0, z1):
        """Formed, `[2n, 2m - 1]`: the other view's, then those of the row's own, and the labels."""
        gather = self.gather_distributed and distributed.world_size() > 1
        columns, (labels, _) = _gathered(z0, z1, gather)
        all0, all1 = columns.chunk(2)
        others = torch.arange(len(all0), device=z0.device) != labels[: len(z0), None]
        blocks = []
        for z, own, other in ((z0, all0, all1), (z1, all1, all0)):
            same = (z @ own.T / self.temperature)[others].view(len(z), -1)
            blocks.append(torch.cat([z @ other.T / self.temperature, same], dim=1))
        return torch.cat(blocks), labels


def _is_mean(cross_entropy: nn.Module) -> bool:
    """Whether it is as the loss made it: then its mean needs no logits."""
    return (
        type(cross_entropy) is nn.CrossEntropyLoss
        and cross_entropy.reduction == "mean"
        and cross_entropy.weight is None
        and cross_entropy.label_smoothing == 0
        and cross_entropy.ignore_index < 0
        and "forward" not in vars(cross_entropy)
        and not hooked(cross_entropy)
    )


def _is_known(bank: nn.Module) -> bool:
    """Whether reading the rows of the bank in place is what its forward returns."""
    homes = "lightly.models.modules.memory_bank"
    return not replaced(bank, "forward", homes=(homes,)) and not hooked(bank)


class SupConLoss(nn.Module):
    """The supervised contrastive loss of two views, in the manner of `NTXentLoss`.

    lightly 1.6.0 has no such class. Without labels it is NT-Xent times the temperature.

    Args:
        temperature: Divides the similarities.
        gather_distributed: Take the columns of all ranks.
        rescale: Multiply the loss by the temperature.
    """

    def __init__(
        self, temperature: float = 0.5, gather_distributed: bool = False, rescale: bool = True
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.gather_distributed = gather_distributed
        self.rescale = rescale
        if abs(temperature) < 1e-8:
            raise ValueError(f"Illegal temperature: abs({temperature}) < 1e-8")
        if temperature < 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        need_distributed(gather_distributed)

    def forward(
        self,
        out0: Tensor,  # [n, d]
        out1: Tensor,  # [n, d]
        labels: Tensor | None = None,  # [n] int64
    ) -> Tensor:
        """The mean over the 2n rows of this rank, a scalar."""
        n = out0.shape[0]
        _, scale = signed_inverse(self.temperature, out0.device)
        gather = self.gather_distributed and distributed.world_size() > 1
        if labels is None:
            offset = distributed.rank() * n if gather else 0
            labels = torch.arange(offset, offset + n, device=out0.device)
        labels = labels.repeat(2)
        if gather:
            loss = self._all_ranks(out0, out1, labels, scale).mean()
        else:
            loss, _ = mean_loss(problem((out0, out1), scale=scale, ids=labels))
        factor = self.temperature if self.rescale else 1.0
        return in_dtype_of(out0, loss * factor)

    @staticmethod
    def _all_ranks(out0, out1, labels, scale):
        """Every rank contrasts all rows and keeps its own: a row must not meet itself."""
        own = torch.cat([unit_rows(out0), unit_rows(out1)])
        rows = distributed.gather_with_gradient(own, equal=True)
        ids = distributed.gather(labels, equal=True)
        first = distributed.rank() * own.shape[0]
        losses = row_losses(problem(rows, scale=scale, ids=ids, normalize=False)).loss
        return losses[first : first + own.shape[0]]


class NegativeCosineSimilarity(nn.Module):
    """Minus the mean cosine, with gradients to both sides, as lightly's class of this name."""

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim = dim
        self.eps = eps

    def forward(
        self,
        x0: Tensor,  # [n, d]
        x1: Tensor,  # [n, d]
    ) -> Tensor:
        """A scalar."""
        return -F.cosine_similarity(x0, x1, self.dim, self.eps).mean()
