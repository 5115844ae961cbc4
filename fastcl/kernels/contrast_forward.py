"""Statistics of the softmax contrast in one pass over s_ij = scale <q_i, k_j>; q k^T is not stored.

    loss_i = log sum_{j in D(i)} e^{s_ij} - mean_{j in P(i)} s_ij, and the same down the columns
Oord et al., arXiv:1807.03748; both directions: Radford et al., arXiv:2103.00020, figure 3.
Bytes: k once per row tile (from L2), 4 (n strips + m row tiles) of partial sums, raw: their
logarithm is taken of the whole sum, in float64.
The idea: unit rows share one shift, c = max(0, scale - 74), so one exponential per logit serves
its row and its column, partial sums need no running maximum, and z z^T needs the tiles I <= J
only. Positives are summed apart, in the few tiles whose ids overlap: 1 - p stays exact near
convergence. A row whose sum leaves the float32 range is done again with a running maximum.
"""

import triton
import triton.language as tl

from .contrast_limit import judged, load_limit
from .contrast_tile import (
    above,
    cosines,
    factor_parts,
    fixed_shift,
    id_range,
    is_special,
    load_tile,
    masks,
    overlapping,
    raise_peak,
    scale_factor,
    store_tile,
)


@triton.jit(do_not_specialize=["pitch", "first", "strip"])
def sums_kernel(
    q,  # [n, d]
    k,  # [m, d]
    scale: tl.float64,
    logit_scale,  # [] or None
    row_ids,  # [n] or None
    col_ids,  # [m] or None
    row_range,  # [row tiles, 2] or None
    col_range,  # [column tiles, 2] or None
    limit,  # [n] or None
    guide_q,  # [n, g] or None
    guide_k,  # [m, g] or None
    inverse,  # [m] or None
    g,
    pivot,  # [n] or None
    row_part,  # [strips, n] sum over the negatives, in units of 2^shift
    col_part,  # [launch tiles, m] the same; None: rows only
    rank_part,  # [strips, n] int32, or None
    kept,  # [n, PITCH pitch] exponentials of the negatives, in the same units, or None
    pitch,  # from one of its rows to the next, in PITCH elements
    first,  # first row tile of this launch
    strip,  # column tiles per strip
    n,
    m,
    d,
    BM: tl.constexpr,
    BN: tl.constexpr,
    DEPTH: tl.constexpr,
    WHOLE: tl.constexpr,
    PRECISION: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    GUIDE_DEPTH: tl.constexpr,
    GUIDE_PRECISION: tl.constexpr,
):
    """Fixed shift; where symmetric with columns, only the tiles I <= J."""
    row = (first + tl.program_id(0)) * BM
    part = tl.program_id(1)
    total = scale_factor(scale, logit_scale)
    factor, factor_low = factor_parts(total)
    shift = fixed_shift(total)
    low, high = id_range(row_range, row // BM)
    i = row + tl.arange(0, BM)
    negative = tl.zeros([BM], tl.float32)
    rank = tl.zeros([BM], tl.int32)
    bar = tl.zeros([BM], tl.float32)
    if pivot is not None:
        bar = tl.load(pivot + i, mask=i < n, other=0.0).to(tl.float32)
    bound = load_limit(limit, row, n, BM)
    q_tile = load_tile(q, row, 0, n, d, BM, DEPTH) if WHOLE else 0
    start = part * strip
    if SYMMETRIC and col_part is not None:
        start = tl.maximum(start, row // BN)
    for tile in range(start, tl.minimum((part + 1) * strip, tl.cdiv(m, BN))):
        col = tile * BN
        special = is_special(row, col, n, m, low, high, col_range, BM, BN, SYMMETRIC)
        acc = cosines(q_tile, q, k, row, col, n, m, d, BM, BN, DEPTH, WHOLE, PRECISION)
        if special:
            other, match = masks(row, col, n, m, row_ids, col_ids, BM, BN, SYMMETRIC)
            acc = tl.where(other & ~match, acc, float("-inf"))
        if limit is not None:
            judge = judged(
                acc, guide_q, guide_k, inverse, row, col, n, m, g,
                BM, BN, GUIDE_DEPTH, GUIDE_PRECISION,
            )  # fmt: skip
            acc = tl.where(judge > bound[:, None], float("-inf"), acc)
        if pivot is not None:
            rank += tl.sum((acc > bar[:, None]).to(tl.int32), 1)
        e = tl.exp2(above(acc, factor, factor_low, shift))
        negative += tl.sum(e, 1)
        if kept is not None:
            store_tile(kept, e, row, col, n, pitch, BM, BN)
        if col_part is not None:
            j = col + tl.arange(0, BN)
            at = col_part + tl.program_id(0).to(tl.int64) * m + j
            tl.store(at, tl.sum(e, 0), mask=j < m)
    at = part.to(tl.int64) * n + i
    tl.store(row_part + at, negative, mask=i < n)
    if pivot is not None:
        tl.store(rank_part + at, rank, mask=i < n)


@triton.jit(do_not_specialize=["strip", "n", "m"])
def online_kernel(
    q,  # [n, d]
    k,  # [m, d]
    scale: tl.float64,
    logit_scale,  # [] or None
    row_ids,  # [n] or None
    col_ids,  # [m] or None
    row_range,  # [row tiles, 2] or None
    col_range,  # [column tiles, 2] or None
    limit,  # [n] or None
    guide_q,  # [n, g] or None
    guide_k,  # [m, g] or None
    inverse,  # [m] or None
    g,
    pivot,  # [n] or None
    flags,  # [row tiles] int32, None: all rows
    row_part,  # [strips, n] sum over the negatives, in units of 2^top
    row_top,  # [strips, n]
    rank_part,  # [strips, n] int32, or None
    strip,
    n,
    m,
    d,
    BM: tl.constexpr,
    BN: tl.constexpr,
    DEPTH: tl.constexpr,
    WHOLE: tl.constexpr,
    PRECISION: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    GUIDE_DEPTH: tl.constexpr,
    GUIDE_PRECISION: tl.constexpr,
):
    """Running maximum, rows only: any rows, or the row tiles that a flag asks for."""
    if flags is not None:  # noqa: SIM102 - no short circuit in a kernel
        if tl.load(flags + tl.program_id(0)) == 0:
            return
    row = tl.program_id(0) * BM
    part = tl.program_id(1)
    factor, factor_low = factor_parts(scale_factor(scale, logit_scale))
    low, high = id_range(row_range, row // BM)
    i = row + tl.arange(0, BM)
    top = tl.full([BM], float("-inf"), tl.float32)
    negative = tl.zeros([BM], tl.float32)
    rank = tl.zeros([BM], tl.int32)
    bar = tl.zeros([BM], tl.float32)
    if pivot is not None:
        bar = tl.load(pivot + i, mask=i < n, other=0.0).to(tl.float32)
    bound = load_limit(limit, row, n, BM)
    q_tile = load_tile(q, row, 0, n, d, BM, DEPTH) if WHOLE else 0
    for tile in range(part * strip, tl.minimum((part + 1) * strip, tl.cdiv(m, BN))):
        col = tile * BN
        special = is_special(row, col, n, m, low, high, col_range, BM, BN, SYMMETRIC)
        acc = cosines(q_tile, q, k, row, col, n, m, d, BM, BN, DEPTH, WHOLE, PRECISION)
        if special:
            other, match = masks(row, col, n, m, row_ids, col_ids, BM, BN, SYMMETRIC)
            acc = tl.where(other & ~match, acc, float("-inf"))
        if limit is not None:
            judge = judged(
                acc, guide_q, guide_k, inverse, row, col, n, m, g,
                BM, BN, GUIDE_DEPTH, GUIDE_PRECISION,
            )  # fmt: skip
            acc = tl.where(judge > bound[:, None], float("-inf"), acc)
        if pivot is not None:
            rank += tl.sum((acc > bar[:, None]).to(tl.int32), 1)
        e, fade, top = raise_peak(acc, top, factor, factor_low)
        negative = negative * fade + tl.sum(e, 1)
    at = part.to(tl.int64) * n + i
    tl.store(row_part + at, negative, mask=i < n)
    tl.store(row_top + at, top, mask=i < n)
    if pivot is not None:
        tl.store(rank_part + at, rank, mask=i < n)


@triton.jit(do_not_specialize=["strip", "n", "m"])
def positives_kernel(
    q,  # [n, d]
    k,  # [m, d]
    scale: tl.float64,
    logit_scale,  # [] or None
    row_ids,  # [n]
    col_ids,  # [m]
    row_range,  # [row tiles, 2]
    col_range,  # [column tiles, 2]
    out,  # [strips, 4, n] sum over the positives, its top; sum of their cosines, their number
    strip,
    n,
    m,
    d,
    BLOCK: tl.constexpr,
    DEPTH: tl.constexpr,
    SCAN: tl.constexpr,  # column tiles ruled out by one look at their ranges
    PRECISION: tl.constexpr,
    SYMMETRIC: tl.constexpr,
):
    """The tiles whose ids overlap, once more: as few as one per row tile, small and exact."""
    row = tl.program_id(0) * BLOCK
    part = tl.program_id(1)
    factor, factor_low = factor_parts(scale_factor(scale, logit_scale))
    low, high = id_range(row_range, tl.program_id(0))
    i = row + tl.arange(0, BLOCK)
    top = tl.full([BLOCK], float("-inf"), tl.float32)
    positive = tl.zeros([BLOCK], tl.float32)
    cosine = tl.zeros([BLOCK], tl.float32)
    count = tl.zeros([BLOCK], tl.float32)
    stop = tl.minimum((part + 1) * strip, tl.cdiv(m, BLOCK))
    for scan in range(part * strip, stop, SCAN):
        begin, end = overlapping(col_range, scan, stop, low, high, SCAN)
        for tile in range(begin, end):
            col_low, col_high = id_range(col_range, tile)
            if (low <= col_high) & (col_low <= high):
                col = tile * BLOCK
                acc = cosines(0, q, k, row, col, n, m, d, BLOCK, BLOCK, DEPTH, False, PRECISION)
                _, match = masks(row, col, n, m, row_ids, col_ids, BLOCK, BLOCK, SYMMETRIC)
                hit = tl.where(match, acc, float("-inf"))
                e, fade, top = raise_peak(hit, top, factor, factor_low)
                positive = positive * fade + tl.sum(e, 1)
                cosine += tl.sum(tl.where(match, acc, 0.0), 1)
                count += tl.sum(match.to(tl.float32), 1)
    at = out + (part * 4).to(tl.int64) * n + i
    tl.store(at, positive, mask=i < n)
    tl.store(at + n, top, mask=i < n)
    tl.store(at + 2 * n, cosine, mask=i < n)
    tl.store(at + 3 * n, count, mask=i < n)
