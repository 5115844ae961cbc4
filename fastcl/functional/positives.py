"""Who is a positive of whom, as sums over the columns that need no matrix.

With y_ij how much column j is a positive of row i, a loss takes of the positives no more than
    weight_i = sum_j y_ij,   mean_i = sum_j y_ij <q_i, k_j> / weight_i
and all kinds of y here have sums that are thin products: columns of one label are added up before
they meet a row, y_ij = <a_i, b_j> makes them a_i (B^T K), a list names its pairs.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .pairs import added, pair_products, taken
from .product import product
from .rows import log_sum

STRIP = 128  # rows whose positives are formed at once


class Rows(NamedTuple):
    """Both sides as they go into the products, in the accumulation dtype."""

    q: Tensor  # [n, d]
    k: Tensor  # [m, d]
    own: Any  # [n] <q_i, k_i> where columns are the rows, and none is its own positive; else None

    @property
    def itself(self) -> bool:
        return self.own is not None

    def turned(self) -> "Rows":
        return Rows(self.k, self.q, self.own)


def sides(q: Tensor, k: Tensor, itself: bool) -> Rows:
    """Of rows and columns; itself: the same ones, up to temperature and bias."""
    return Rows(q, k, (q * k).sum(1) if itself else None)


Sums = tuple[Tensor, Tensor]  # weight [n] and weight * mean [n]


def diagonal(rows: Rows) -> Sums:
    """Column i is the positive of row i."""
    return rows.q.new_ones(len(rows.q)), (rows.q * rows.k).sum(1)


def of_targets(
    rows: Rows,
    a: Tensor,  # [n, c]
    b: Tensor,  # [m, c]
) -> Sums:
    """y = a b^T."""
    weight = (a.double() * b.double().sum(0)).sum(1)  # of which the own may be nearly all
    total = (product(a, product(b, rows.k, a_turned=True)) * rows.q).sum(1)
    if rows.itself:
        own = (a.double() * b.double()).sum(1)
        # Of a row that shares nothing with another one, rounding would leave a positive.
        weight = torch.where(_alone(a, b), 0, weight - own)
        total = total - own.to(total.dtype) * rows.own
    weight = weight.to(total.dtype)
    return weight, torch.where(weight > 0, total, 0)


def _alone(a: Tensor, b: Tensor) -> Tensor:
    """Rows whose own targets nobody else has, [n]."""
    others = (b != 0).to(a.dtype).sum(0) - (b != 0).to(a.dtype)
    return ((a != 0) & (others > 0)).sum(1) == 0


def of_pairs(
    rows: Rows,
    row: Tensor,  # [p] int64
    column: Tensor,  # [p] int64
    weight: Tensor,  # [p]
) -> Sums:
    """y from a list; a pair that is named twice counts twice."""
    if rows.itself:
        weight = torch.where(row == column, 0, weight)
    none = rows.q.new_zeros(len(rows.q))
    total = added(none, row, weight * pair_products(rows.q, rows.k, row, column))
    return added(none, row, weight), total


def all_columns(rows: Rows) -> Sums:
    """Every column but the row itself, as label smoothing has it; of none the sum is zero."""
    count, total = len(rows.k), (rows.q * rows.k.sum(0)).sum(1)
    if rows.itself:
        count, total = count - 1, total - rows.own
    return torch.full_like(total, max(count, 1)), total


def log_sums_of_labels(
    rows: Rows,
    row_labels: Tensor,  # [n] int64
    col_labels: Tensor,  # [m] int64
    scale: float | Tensor,  # []
) -> Tensor:
    """The logarithm of the sum over the row's positives of exp(scale * s), [n]; -inf where it has
    none.

    In the order of labels the positives of some rows lie side by side: a strip along a diagonal,
    formed again in the backward.
    """
    by_row, row_order = row_labels.sort(stable=True)
    by_col, col_order = col_labels.sort(stable=True)
    q, k = taken(rows.q, row_order), taken(rows.k, col_order)
    first = torch.searchsorted(by_col, by_row)
    last = torch.searchsorted(by_col, by_row, right=True)
    starts = range(0, len(q), STRIP)
    ends = [min(start + STRIP, len(q)) for start in starts]
    lows, highs = first[list(starts)].tolist(), last[[end - 1 for end in ends]].tolist()

    def strip(start: int, end: int, low: int, high: int) -> Tensor:
        s = scale * product(q[start:end], k[low:high], b_turned=True)
        inside = by_row[start:end, None] == by_col[low:high]
        if rows.itself:
            inside = inside & (row_order[start:end, None] != col_order[low:high])
        return log_sum(torch.where(inside, s, -torch.inf), 1)

    found = [
        checkpoint(strip, *block, use_reentrant=False)
        for block in zip(starts, ends, lows, highs, strict=True)
    ]
    return torch.empty_like(row_order, dtype=q.dtype).index_copy(0, row_order, torch.cat(found))
