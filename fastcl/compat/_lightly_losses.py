"""lightly's losses of two views."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import distributed
from ..contrast import contrast
from ..functional import row_products, unit_rows
from ..self_contrast import self_contrast_mean
from ._common import in_dtype_of, signed_scale
from ._lightly_bank import MemoryBankModule


def _need_distributed(gather_distributed: bool) -> None:
    if gather_distributed and not torch.distributed.is_available():
        raise ValueError(
            "gather_distributed is True but torch.distributed is not available. Please set "
            "gather_distributed=False or install a torch version with distributed support."
        )


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
    legal. With a bank, only out0 is contrasted, both receive gradients, and the bank is read
    before out1 is enqueued, which happens where out0 requires a gradient.

    Args:
        temperature: Divides the similarities.
        memory_bank_size: `(rows, width)`, or 0 for none; see `MemoryBankModule`.
        gather_distributed: Take the negatives of all ranks, or enqueue the rows of all.

    Raises:
        ValueError: A temperature of size below 1e-8.
    """

    def __init__(
        self,
        temperature: float = 0.5,
        memory_bank_size: int | Sequence[int] = 0,
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        self.memory_bank = MemoryBankModule(memory_bank_size, gather_distributed)
        self.temperature = temperature
        self.gather_distributed = gather_distributed
        self.cross_entropy = nn.CrossEntropyLoss(reduction="mean")
        self.eps = 1e-8
        if abs(self.temperature) < self.eps:
            raise ValueError(f"Illegal temperature: abs({self.temperature}) < 1e-8")
        _need_distributed(gather_distributed)

    def forward(
        self,
        out0: Tensor,  # [n, d]
        out1: Tensor,  # [n, d]
    ) -> Tensor:
        """The mean over 2n rows, over n with a bank: a scalar."""
        sign, scale = signed_scale(self.temperature)
        if self.memory_bank.size[0] > 0:
            loss = self._with_bank(out0, out1, sign, scale).mean()
        else:
            loss = self._in_batch(out0, out1, sign, scale)
        return in_dtype_of(out0, loss)

    def _with_bank(self, out0, out1, sign, scale):
        q, k = unit_rows(out0), unit_rows(out1)
        bank = self.memory_bank._rows(k).to(q)
        loss = contrast(sign * q, bank, scale=scale, extra=sign * row_products(q, k)).loss
        if out0.requires_grad:
            # No copy of the bank was taken: the gradient to q is finished in the forward.
            self.memory_bank._dequeue_and_enqueue(k)
        return loss

    def _in_batch(self, out0, out1, sign, scale):
        gather = self.gather_distributed and distributed.world_size() > 1
        if sign > 0 and not gather:
            ids = torch.arange(out0.shape[0], device=out0.device).repeat(2)
            return self_contrast_mean(out0, out1, scale=scale, ids=ids)[0]
        z0, z1 = unit_rows(out0), unit_rows(out1)
        # Columns of a row's id, itself and its other view, are left out; the view comes back.
        columns, ids = _gathered(z0, z1, gather)
        extra = sign * row_products(z0, z1).repeat(2)
        rows = sign * torch.cat([z0, z1])
        return contrast(rows, columns, scale=scale, ids=ids, extra=extra).loss.mean()


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
        _need_distributed(gather_distributed)

    def forward(
        self,
        out0: Tensor,  # [n, d]
        out1: Tensor,  # [n, d]
    ) -> Tensor:
        """The mean over 2n rows, a scalar; -inf for a single pair, which has no negative."""
        sign, scale = signed_scale(self.temperature)
        gather = self.gather_distributed and distributed.world_size() > 1
        plain = sign > 0 and not gather
        if plain and not self.weight_fn:
            ids = torch.arange(out0.shape[0], device=out0.device).repeat(2)
            loss, _ = self_contrast_mean(out0, out1, scale=scale, ids=ids, positives_in=False)
            return in_dtype_of(out0, loss)
        z0, z1 = unit_rows(out0), unit_rows(out1)
        columns, ids = _gathered(z0, z1, gather)
        rows = torch.cat([z0, z1])
        if plain:
            result = contrast(rows, scale=scale, ids=ids[0], positives_in=False)
        else:
            result = contrast(sign * rows, columns, scale=scale, ids=ids, positives_in=False)
        positive = (sign * scale * row_products(z0, z1)).repeat(2)
        if self.weight_fn:
            weights = torch.cat([self.weight_fn(z0, z1), self.weight_fn(z1, z0)])
            positive = positive * weights
        losses = result.loss + result.positive - positive
        return in_dtype_of(out0, losses.mean())


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
        _need_distributed(gather_distributed)

    def forward(
        self,
        out0: Tensor,  # [n, d]
        out1: Tensor,  # [n, d]
        labels: Tensor | None = None,  # [n] int64
    ) -> Tensor:
        """The mean over the 2n rows of this rank, a scalar."""
        n = out0.shape[0]
        scale = 1 / self.temperature
        gather = self.gather_distributed and distributed.world_size() > 1
        if labels is None:
            offset = distributed.rank() * n if gather else 0
            labels = torch.arange(offset, offset + n, device=out0.device)
        labels = labels.repeat(2)
        if gather:
            loss = self._all_ranks(out0, out1, labels, scale).mean()
        else:
            loss, _ = self_contrast_mean(out0, out1, scale=scale, ids=labels)
        factor = self.temperature if self.rescale else 1.0
        return in_dtype_of(out0, loss * factor)

    @staticmethod
    def _all_ranks(out0, out1, labels, scale):
        """Every rank contrasts all rows and keeps its own: a row must not meet itself."""
        own = torch.cat([unit_rows(out0), unit_rows(out1)])
        rows = distributed.gather_with_gradient(own, equal=True)
        ids = distributed.gather(labels, equal=True)
        first = distributed.rank() * own.shape[0]
        return contrast(rows, scale=scale, ids=ids).loss[first : first + own.shape[0]]


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
