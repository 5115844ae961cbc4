"""lightly's memory bank, and its momentum update."""

import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import distributed
from ..momentum import momentum_update_

CHUNK = 1 << 24  # bytes of cosines at a time


class MemoryBankModule(nn.Module):
    """A ring of older rows that is read before it is written.

    Equal to lightly's module of this name: a batch that reaches the end of the bank loses what
    does not fit, and the next one starts at the front. The bank is float32, of random unit rows,
    and not part of the state_dict.

    Args:
        size: `(rows, width)`, 0 for no bank, or the number of rows alone: the first batch then
            tells the width, with a warning.
        gather_distributed: Enqueue the batches of all ranks.
        feature_dim_first: Return the bank as `[width, rows]`.

    Raises:
        ValueError: A negative size, or neither of the forms.
    """

    bank: Tensor
    bank_ptr: Tensor

    def __init__(
        self,
        size: int | Sequence[int],
        gather_distributed: bool = False,
        feature_dim_first: bool = True,
    ) -> None:
        super().__init__()
        sizes = (size,) if isinstance(size, int) else tuple(size)
        if any(x < 0 for x in sizes):
            raise ValueError(f"Illegal memory bank size {size}, all entries must be non-negative.")
        if isinstance(size, int) and size > 0:
            warnings.warn(
                f"Memory bank size 'size={size}' does not specify the feature dimension, which "
                f"the first batch will tell. Set it with 'size=({size}, dim)'.",
                UserWarning,
                stacklevel=2,
            )
        elif sizes != (0,) and len(sizes) != 2:
            raise ValueError(
                f"Illegal memory bank size {size}, expected a (num_features, dim) tuple, or "
                "'size=0' to disable the memory bank."
            )
        self.size = sizes
        self.gather_distributed = gather_distributed
        self.feature_dim_first = feature_dim_first
        self.register_buffer("bank", torch.empty(sizes, dtype=torch.float), persistent=False)
        self.register_buffer("bank_ptr", torch.empty(1, dtype=torch.long), persistent=False)
        if len(sizes) > 1:
            self._init_memory_bank(sizes)

    def forward(
        self,
        output: Tensor,  # [n, d]
        labels: Tensor | None = None,
        update: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """The output, and a copy of the bank as it was before the output is enqueued (update)."""
        if self.size[0] == 0:
            return output, None
        bank = self._rows(output).clone()
        if self.feature_dim_first:
            bank = bank.transpose(0, -1)
        if update:
            self._dequeue_and_enqueue(output)
        return output, bank

    def _rows(self, output: Tensor) -> Tensor:
        """The bank itself, `[rows, width]`; made now where its width was not known."""
        if self.bank.dim() == 1:
            self._init_memory_bank((*self.size, *output.shape[1:]))
        return self.bank.detach()

    @torch.no_grad()
    def _init_memory_bank(self, size: tuple[int, ...]) -> None:
        self.bank = F.normalize(torch.randn(size).type_as(self.bank), dim=-1)
        self.bank_ptr = torch.zeros(1).type_as(self.bank_ptr)

    @torch.no_grad()
    def _dequeue_and_enqueue(self, batch: Tensor) -> None:
        if self.gather_distributed:
            batch = distributed.gather(batch, equal=True)
        count, start = batch.shape[0], int(self.bank_ptr)
        if start + count >= self.size[0]:
            self.bank[start:] = batch[: self.size[0] - start].detach()
            self.bank_ptr.zero_()
        else:
            self.bank[start : start + count] = batch.detach()
            self.bank_ptr[0] = start + count


class NNMemoryBankModule(MemoryBankModule):
    """A bank that answers with the row nearest to each of the batch.

    Equal to lightly's module of this name, without a copy of the bank and without the matrix of
    all cosines. Of equal cosines the first row is the nearest.

    Args:
        size: As for `MemoryBankModule`, but not 0.
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        super().__init__(size)

    @torch.no_grad()
    def forward(self, output: Tensor, update: bool = False) -> Tensor:  # type: ignore[override]
        """For each row of output `[n, d]` the row of the bank of highest cosine with it, `[n, d]`,
        of the bank as it was before the output is enqueued (update).

        Raises:
            ValueError: There is no bank, or output is no matrix.
        """
        if output.dim() != 2:
            raise ValueError(f"output must have shape [n, d], got {list(output.shape)}")
        if self.size[0] == 0:
            raise ValueError("size must be 1 or more for nearest neighbours, got 0")
        rows = self._rows(output)
        found = rows[nearest(output.to(rows.dtype), rows)]
        if update:
            self._dequeue_and_enqueue(output)
        return found


def nearest(
    x: Tensor,  # [n, d]
    rows: Tensor,  # [m, d]
) -> Tensor:
    """The row of highest cosine with each of x, `[n]`, from a part of the rows at a time."""
    x = F.normalize(x, dim=1)
    size = max(CHUNK // (max(x.shape) * x.element_size()), 1)
    best, place = zip(
        *((x @ F.normalize(part, dim=1).T).max(1) for part in rows.split(size)), strict=True
    )
    part = torch.stack(best).argmax(0)  # the first of equals, like the places within a part
    return size * part + torch.stack(place).gather(0, part[None])[0]


def update_momentum(model: nn.Module, model_ema: nn.Module, m: float) -> None:
    """Move the parameters of model_ema towards those of model: ``m * ema + (1 - m) * model``.

    Buffers stay as they are. All parameters of a device go in one launch.
    """
    momentum_update_(model_ema, model, m)
