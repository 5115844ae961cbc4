"""Columns that are more similar to a row than its limit, and no positives, are no negatives.

    s_ij = -inf where judge_ij > limit_i,
    judge_ij = <q_i, k_j>, or <g_i, h_j> / |g_i| |h_j| of a guide's rows and columns
Solatorio, arXiv:2402.16829, for the guide.
Bytes: the guide's rows and columns as often as q and k (from L2); 4 n of limits, 4 m of lengths.
The idea: the guide is a second product in the same tile. Its rows go in as they came: limits are
multiplied by the lengths of their rows, products divided by those of their columns, so that
nothing is copied or rounded.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from . import contrast_config as config
from .contrast_tile import cosines


class Limits(NamedTuple):
    """What the columns of every row are held to, and by whose products."""

    limit: Tensor  # [n], of products
    guide_q: Tensor | None = None  # [n, g]; None: the similarities themselves
    guide_k: Tensor | None = None  # [m, g]
    inverse: Tensor | None = None  # [m] what products with a column are multiplied by

    def rows(self, some: slice) -> "Limits":
        """Of some of the rows."""
        guide_q = None if self.guide_q is None else self.guide_q[some]
        return self._replace(limit=self.limit[some], guide_q=guide_q)

    def of(self, tile: config.Tile, bulk: bool) -> tuple:
        """As a kernel of this tile takes them, and what it is compiled for."""
        if self.guide_q is None:
            return (self.limit, None, None, None, None), (None, None)
        q, k = self.guide_q, self.guide_k
        bulk, depth = bulk and config.aligned(q, k), config.guide_depth(q)
        q = config.descriptor(q, tile.rows, depth, bulk)
        k = config.descriptor(k, tile.columns, depth, bulk)
        chosen = depth, config.product_precision(self.guide_q.dtype)
        return (self.limit, q, k, self.inverse, self.guide_q.shape[1]), chosen


NO_LIMITS = (None,) * 5, (None, None)


@triton.jit
def judged(
    acc,  # [BM, BN]
    guide_q,  # [n, g] or None
    guide_k,  # [m, g] or None
    inverse,  # [m] or None
    row,
    col,
    n,
    m,
    g,
    BM: tl.constexpr,
    BN: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """What is compared with the limits: a tile's products, or the guide's."""
    if guide_q is not None:
        judge = cosines(
            0, guide_q, guide_k, row, col, n, m, g, BM, BN, DEPTH, False, PRECISION
        )  # fmt: skip
        j = col + tl.arange(0, BN)
        judge = judge * tl.load(inverse + j, mask=j < m, other=0.0)[None, :]
    else:
        judge = acc
    return judge


@triton.jit
def load_limit(limit, start, length, BLOCK: tl.constexpr):
    """Limits of a block of rows, or of columns; beyond the border nothing is left out."""
    bound = tl.zeros([BLOCK], tl.float32)
    if limit is not None:
        i = start + tl.arange(0, BLOCK)
        bound = tl.load(limit + i, mask=i < length, other=float("inf"))
    return bound
