"""Both gradients of a contrast from chunks of its weights: dq = G k, dk = G^T q, in float32.

Bytes: per chunk of c x c weights, 2 c^2 written and 4 c^2 read in the dtype of the rows, 16 c d of
gradients. The idea: weights are written once for both products, and these run at the rate of the
BLAS; memory stays that of one chunk. Each chunk adds in turn, so the bits are the same every time.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from . import contrast_common as common
from . import contrast_config as config
from .contrast_common import Operands
from .contrast_tile import PITCH


class Chunk(NamedTuple):
    """Where a chunk of the weights lies, and the memory to write it to."""

    rows: slice
    columns: slice
    weights: Tensor | None  # [rows, columns] of a padded buffer; None: no gradient is needed

    @property
    def corner(self) -> tuple[int, int]:
        return self.rows.start, self.columns.start

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


def padded(like: Tensor, rows: int, columns: int) -> Tensor:
    """[rows, columns or a few more], for what store_tile writes."""
    return common.empty(like, rows, -(-columns // PITCH.value) * PITCH.value, dtype=like.dtype)


def pitch_of(x: Tensor | None) -> int:
    """From one row of a padded buffer to the next, as store_tile takes it."""
    return 0 if x is None else x.stride(0) // PITCH.value


def chunk_gradients(
    p: Operands,
    fill: Callable[[Chunk], None],  # writes the weights
    need_q: bool,
    need_k: bool,
    triangle: bool = False,  # G is symmetric: half the chunks serve both sides of dq
    alpha: float = 1.0,  # of the products
) -> tuple[Tensor, Tensor]:
    """dq [n, d] and dk [m, d] in float32, [0, d] where not needed."""
    (n, m, d), size = p.sizes, config.chunk_size(p.q.element_size())
    dq = common.empty(p.q, n if need_q else 0, d)
    dk = common.empty(p.q, m if need_k else 0, d)
    if n == 0 or m == 0:
        return dq.zero_(), dk.zero_()
    buffer = None
    if need_q or need_k:
        buffer = padded(p.q, min(n, size), min(m, size))
    for i in range(0, n, size):
        rows = slice(i, min(i + size, n))
        for j in range(i if triangle else 0, m, size):
            columns = slice(j, min(j + size, m))
            g = None if buffer is None else buffer[: rows.stop - i, : columns.stop - j]
            fill(Chunk(rows, columns, g))
            if need_q:
                add_product(dq[rows], g, p.k[columns], alpha, first=j == 0)
            if need_k:
                add_product(dk[columns], g.T, p.q[rows], alpha, first=i == 0)
            if triangle and j > i:
                add_product(dq[columns], g.T, p.q[rows], alpha, first=i == 0)
    return dq, dk


def add_product(total: Tensor, a: Tensor, b: Tensor, alpha: float, first: bool = False) -> None:
    """total += alpha a @ b with float32 sums of narrower factors; the first one starts it."""
    beta = 0.0 if first else 1.0
    if a.dtype == torch.float32:
        total.addmm_(a, b, beta=beta, alpha=alpha)
    elif a.is_cuda:
        torch.ops.aten.addmm.dtype_out(
            total, a, b, torch.float32, beta=beta, alpha=alpha, out=total
        )
    else:
        total.addmm_(a.float(), b.float(), beta=beta, alpha=alpha)
