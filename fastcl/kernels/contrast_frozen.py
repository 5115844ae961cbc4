"""Contrast against columns without gradient (a queue): loss and gradient of the rows in one pass.

    weighted_i = sum_j p_ij k_j,  dq_i = grad_i scale weighted_i
He et al., arXiv:1911.05722, equation 1; the pass is attention with values equal to keys
(Dao et al., arXiv:2205.14135), its columns split over programs where rows are few.
Bytes: k once per row tile, 4 n d strips of partial sums.
The idea: backward is one multiplication, two products in all; a tile of k is loaded once and
used twice.
"""

import triton
import triton.language as tl

from .contrast_limit import load_limit
from .contrast_tile import (
    factor_parts,
    id_range,
    is_special,
    load_tile,
    masks,
    raise_peak,
    scale_factor,
)


@triton.jit(do_not_specialize=["strip"])
def frozen_kernel(
    q,  # [n, d]
    k,  # [m, d]
    scale: tl.float64,
    logit_scale,  # [] or None
    row_ids,  # [n] or None; columns with the row's id are left out
    col_ids,  # [m] or None
    row_range,  # [row tiles, 2] or None
    col_range,  # [column tiles, 2] or None
    limit,  # [n] or None
    pivot,  # [n] or None
    row_part,  # [strips, n] sum over the negatives, in units of 2^top
    row_top,  # [strips, n]
    rank_part,  # [strips, n] int32, or None
    weighted_part,  # [strips, n, d] weighted sum of the columns, in the same units
    strip,  # column tiles per strip
    n,
    m,
    d,
    BM: tl.constexpr,
    BN: tl.constexpr,
    DEPTH: tl.constexpr,  # at least d
    PRECISION: tl.constexpr,
):
    row = tl.program_id(0) * BM
    part = tl.program_id(1)
    factor, factor_low = factor_parts(scale_factor(scale, logit_scale))
    low, high = id_range(row_range, row // BM)
    i = row + tl.arange(0, BM)
    top = tl.full([BM], float("-inf"), tl.float32)
    negative = tl.zeros([BM], tl.float32)
    weighted = tl.zeros([BM, DEPTH], tl.float32)
    rank = tl.zeros([BM], tl.int32)
    bar = tl.zeros([BM], tl.float32)
    if pivot is not None:
        bar = tl.load(pivot + i, mask=i < n, other=0.0).to(tl.float32)
    bound = load_limit(limit, row, n, BM)
    q_tile = load_tile(q, row, 0, n, d, BM, DEPTH)
    start = part * strip
    stop = tl.minimum(start + strip, tl.cdiv(m, BN))
    tl.assume(start < stop)  # see own_kernel
    for tile in range(start, stop):
        col = tile * BN
        special = is_special(row, col, n, m, low, high, col_range, BM, BN, False)
        k_tile = load_tile(k, col, 0, m, d, BN, DEPTH)
        acc = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION)
        if special:
            other, match = masks(row, col, n, m, row_ids, col_ids, BM, BN, False)
            acc = tl.where(other & ~match, acc, float("-inf"))
        if limit is not None:
            acc = tl.where(acc > bound[:, None], float("-inf"), acc)
        if pivot is not None:
            rank += tl.sum((acc > bar[:, None]).to(tl.int32), 1)
        e, fade, top = raise_peak(acc, top, factor, factor_low)
        negative = negative * fade + tl.sum(e, 1)
        weighted = weighted * fade[:, None]
        weighted = tl.dot(e.to(k_tile.dtype), k_tile, weighted, input_precision=PRECISION)
    at = part.to(tl.int64) * n + i
    tl.store(row_part + at, negative, mask=i < n)
    tl.store(row_top + at, top, mask=i < n)
    if pivot is not None:
        tl.store(rank_part + at, rank, mask=i < n)
    j = tl.arange(0, DEPTH)
    mask = (i < n)[:, None] & (j < d)[None, :]
    tl.store(weighted_part + at[:, None] * d + j[None, :], weighted, mask=mask)
