"""One row per sample that follows its embedding: a function over two tensors, and the module."""

import torch
from torch import Tensor, nn

from . import _check, _ranks
from ._library import ops
from .queue import random_rows
from .reference import bank_update_ as _strided_update


def bank_update_(
    bank: Tensor,  # [n, d]
    index: Tensor,  # [b] int64
    x: Tensor,  # [b, d]
    *,
    momentum: float = 0.5,
    normalize: bool = True,
) -> None:
    """Move rows of a bank towards new embeddings, in place, and bring them back to unit length.

    Equal to ``bank[index] = unit_rows(momentum * bank[index] + (1 - momentum) * unit_rows(x))``;
    where a row occurs more than once in index, the last occurrence alone counts.

    Args:
        bank: `[n, d]`.
        index: `[b]` int64 in [0, n): the row of the bank that row i of x belongs to.
        x: `[b, d]`. Another dtype is converted and gradients are not followed.
        momentum: From 0 to 1, what the old row counts.
        normalize: False where the rows of x have unit length already.

    Raises:
        ValueError: Shapes or devices do not fit, an empty bank or batch, an index out of range
            (on the CPU; elsewhere its row is dropped), a momentum outside of [0, 1], or a bank
            that requires a gradient.
        TypeError: bank or x are not floating point, or index is not int64.

    Source: Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance
    Discrimination", section 3.1, with the momentum of the authors' code.
    """
    _check_update(bank, index, x, momentum)
    _update_(bank, index, x, momentum, normalize)


def _check_update(bank: Tensor, index: Tensor, x: Tensor, momentum: float) -> None:
    _check.rows("x", x)
    _check.bank("bank", bank, x)
    _check.indices("index", index, (x.shape[0],), "bank", bank)
    if not 0 <= _check.finite("momentum", momentum) <= 1:
        raise ValueError(f"momentum must be from 0 to 1, got {momentum}")


@torch.no_grad()
def _update_(bank: Tensor, index: Tensor, x: Tensor, momentum: float, normalize: bool) -> None:
    x = x.detach().contiguous()
    x = ops.unit_rows_forward([x])[0] if normalize else x
    # The kernels want rows end to end; a strided bank is rare enough for plain PyTorch.
    update = ops.bank_update_ if bank.is_contiguous() else _strided_update
    update(bank, index.contiguous(), x, momentum)
    # A backward that still needs the old rows must fail instead of using the new ones.
    torch.autograd.graph.increment_version(bank)


class Bank(nn.Module):
    """A unit row for every sample of a data set.

    Args:
        size: Samples, n.
        width: Length of a row, d.
        momentum: From 0 to 1, what the old row counts in an update.
        dtype: Of the stored rows. Later casts of the module convert them like any buffer.
        device: As for any module.
        fill: What is there at first, the same on every rank and in every process: "random" unit
            rows; "uniform" numbers of variance 1 / d, as in the authors' code.

    Attributes:
        rows: `[n, d]`, in the state_dict. A view: an update overwrites it.

    Raises:
        ValueError: size or width below 1, a momentum outside of [0, 1], or an unknown fill.
        TypeError: A dtype that is not floating point.

    Source: Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance
    Discrimination", section 3.1.
    """

    rows: Tensor

    def __init__(
        self,
        size: int,
        width: int,
        *,
        momentum: float = 0.5,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        fill: str = "random",
    ) -> None:
        super().__init__()
        _check.store(size, width, dtype, fill, ("random", "uniform"))
        if not 0 <= _check.finite("momentum", momentum) <= 1:
            raise ValueError(f"momentum must be from 0 to 1, got {momentum}")
        self.momentum = momentum
        rows = random_rows(size, width, dtype, device, uniform=fill == "uniform")
        self.register_buffer("rows", rows)

    def update(self, index: Tensor, x: Tensor, *, equal: bool = False) -> None:
        """Move the rows of index towards the embeddings x.

        Where torch.distributed runs several ranks, index and x of all ranks are taken in rank
        order, so their banks stay identical; when gathering fails the bank is unchanged.

        Args:
            index: `[b]` int64 in [0, n); of several equal ones the last counts.
            x: `[b, d]`; normalised here, and gradients are not followed.
            equal: Every rank has as many rows: saves exchanging the counts, for which the host
                waits. Wrong where they differ.

        Raises:
            ValueError, TypeError: As for `bank_update_`.
        """
        _check_update(self.rows, index, x, self.momentum)
        index, x = (_ranks.gather(part, equal=equal) for part in (index, x))
        _update_(self.rows, index, x, self.momentum, True)

    def forward(
        self,
        index: Tensor,  # [...] int64
    ) -> Tensor:
        """A copy of the rows of some samples, `[..., d]`."""
        return self.rows[index]

    def extra_repr(self) -> str:
        size, width = self.rows.shape
        return f"{size}, {width}, momentum={self.momentum}, dtype={self.rows.dtype}"
