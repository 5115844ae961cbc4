"""Partial sums of the softmax contrast into the statistics of a row, in float64.

    loss = log(negatives + positives) - mean positive,  softplus(log negatives - positive) where
    there is one positive: exact however small.
Bytes: the partial sums once, 16 n of statistics.
The idea: a loss of 1e-5 at scale 200 is the difference of two numbers near 200, so no float32
number above the partial sums enters it, and what rounding takes from log-sum-exp is kept: one
rounding of 200 changes every p of its row by 8e-6.
"""

import triton
import triton.language as tl

from .contrast_tile import LN2, LOG2E, add_logs, fixed_shift, load_lse, scale_factor, softplus


@triton.jit(do_not_specialize=["first", "tiles", "m"])
def fold_kernel(
    col_part,  # [launch tiles, m] sums over the negatives
    state,  # [m] float64, the sum over earlier launches
    first,  # first row tile of the launch
    tiles,  # row tiles of the launch
    m,
    BM: tl.constexpr,
    SQUARE: tl.constexpr,  # the larger side of a tile
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    TRIANGLE: tl.constexpr,
):
    """Add the column sums of one launch to the state; the first launch starts it."""
    j = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float64)
    if first > 0:
        total = tl.load(state + j, mask=j < m, other=0.0)
    for start in range(0, tiles, PARTS):
        t = start + tl.arange(0, PARTS)
        mask = (t < tiles)[:, None] & (j < m)[None, :]
        if TRIANGLE:  # rows have summed their square on the diagonal; below, none was written
            mask = mask & (((first + t) * BM // SQUARE)[:, None] < (j // SQUARE)[None, :])
        at = col_part + t.to(tl.int64)[:, None] * m + j[None, :]
        total += tl.sum(tl.load(at, mask=mask, other=0.0).to(tl.float64), 0)
    tl.store(state + j, total, mask=j < m)


@triton.jit
def _fold_parts(x, tops, parts, stride, i, n, BLOCK: tl.constexpr):
    """log2 of the sum of x 2^top over the parts."""
    total = tl.full([BLOCK], float("-inf"), tl.float64)
    for part in range(0, parts):
        at = tl.cast(part, tl.int64) * stride + i
        value = tl.load(x + at, mask=i < n, other=0.0).to(tl.float64)
        total = add_logs(total, tl.load(tops + at, mask=i < n, other=0.0) + tl.log2(value))
    return total


@triton.jit
def _add_parts(x, parts, stride, i, n, PARTS: tl.constexpr):
    """Sum of x over the parts."""
    total = tl.zeros_like(i).to(tl.float64)
    for start in range(0, parts, PARTS):
        p = start + tl.arange(0, PARTS)
        mask = (p < parts)[:, None] & (i < n)[None, :]
        part = tl.load(x + p.to(tl.int64)[:, None] * stride + i[None, :], mask=mask, other=0)
        total += tl.sum(part.to(tl.float64), 0)
    return total


@triton.jit(do_not_specialize=["strips", "positive_strips", "n"])
def statistics_kernel(
    row_part,  # [strips, n] sums over the negatives, or None
    row_top,  # [strips, n] log2 of their units; None: the fixed shift
    strips,
    state,  # [n] float64 sum that came down the columns, or None
    positives,  # [positive strips, 4, n] or None
    positive_strips,
    extra,  # [n] or None
    rank_part,  # [strips, n] int32, or None
    scale: tl.float64,
    logit_scale,  # [] or None
    only,  # [row tiles] int32: the row tiles to do; None: all
    flags,  # [row tiles] int32 out: the fixed shift failed; None: it cannot
    out,  # [4, n] loss, rest of lse, mean positive logit, number of positives
    rank,  # [n] int64 out, or None
    n,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    POSITIVES_IN: tl.constexpr,
):
    """Statistics of every row, and its rank."""
    if only is not None:  # noqa: SIM102 - no short circuit in a kernel
        if tl.load(only + tl.program_id(0)) == 0:
            return
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    scale = scale_factor(scale, logit_scale)
    if row_top is not None:
        away = _fold_parts(row_part, row_top, strips, n, i, n, BLOCK)
    else:
        total = tl.zeros([BLOCK], tl.float64)
        if row_part is not None:
            total += _add_parts(row_part, strips, n, i, n, PARTS)
        if state is not None:
            total += tl.load(state + i, mask=inside, other=0.0)
        away = tl.log2(total)
        if flags is not None:
            # Below 2^-100 of the shift float32 has begun to lose the smaller terms.
            bad = inside & ((away < -100.0) | (away == float("inf")))
            tl.store(flags + tl.program_id(0), tl.max(bad.to(tl.int32), 0))
        away += fixed_shift(scale)
    lse = away * LN2  # of the negatives
    positive = tl.zeros([BLOCK], tl.float64)
    count = tl.zeros([BLOCK], tl.float64)
    loss = lse
    if extra is not None:
        count += 1.0
        positive = tl.load(extra + i, mask=inside, other=0.0).to(tl.float64) * scale
        loss = softplus(lse - positive)
        lse = positive + loss
    elif positives is not None:
        stride = 4 * n
        positive = _add_parts(positives + 2 * n, positive_strips, stride, i, n, PARTS)
        count = _add_parts(positives + 3 * n, positive_strips, stride, i, n, PARTS)
        positive = positive * scale / tl.maximum(count, 1.0)
        loss = lse - positive
        if POSITIVES_IN:
            alone = softplus(lse - positive)
            tops = positives + n
            among = _fold_parts(positives, tops, positive_strips, stride, i, n, BLOCK)
            several = add_logs(away, among) * LN2
            lse = tl.where(count == 1.0, positive + alone, several)
            loss = tl.where(count == 1.0, alone, several - positive)
    rest = lse - loss.to(tl.float32) - positive.to(tl.float32)
    rest = tl.where(tl.abs(rest) < float("inf"), rest, 0.0)
    tl.store(out + i, loss.to(tl.float32), mask=inside)
    tl.store(out + n + i, rest.to(tl.float32), mask=inside)
    tl.store(out + 2 * n + i, positive.to(tl.float32), mask=inside)
    tl.store(out + 3 * n + i, count.to(tl.float32), mask=inside)
    if rank is not None:
        above = _add_parts(rank_part, strips, n, i, n, PARTS)
        tl.store(rank + i, above.to(tl.int64), mask=inside)


@triton.jit
def weighted_strips(
    part,  # [strips, n, d] weighted sums of the columns
    row_top,  # [strips, n] log2 of their units
    lse,  # of row i, in float64 and log2
    i,
    strips,
    n,
    d,
    PARTS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Strips of the frozen columns' weighted sum into one: [DEPTH] of row i."""
    j = tl.arange(0, DEPTH)
    total = tl.zeros([DEPTH], tl.float32)
    for start in range(0, strips, PARTS):
        p = start + tl.arange(0, PARTS)
        at = p.to(tl.int64) * n + i
        top = tl.load(row_top + at, mask=p < strips, other=float("-inf"))
        # A strip without columns weighs nothing, also where the others have none.
        away = tl.where(top == float("-inf"), top, top - lse)
        weight = tl.exp2(away.to(tl.float32))
        mask = (p < strips)[:, None] & (j < d)[None, :]
        x = tl.load(part + at[:, None] * d + j[None, :], mask=mask, other=0.0)
        total += tl.sum(x * weight[:, None], 0)
    return total


@triton.jit(do_not_specialize=["strips", "n"])
def weighted_kernel(
    part,  # [strips, n, d] weighted sums of the columns
    row_top,  # [strips, n] log2 of their units
    rows,  # [4, n] statistics
    out,  # [n, d]
    strips,
    n,
    d,
    PARTS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """The weighted sum of the frozen columns of every row."""
    i = tl.program_id(0).to(tl.int64)
    j = tl.arange(0, DEPTH)
    lse = load_lse(rows, i, n, True) * LOG2E
    total = weighted_strips(part, row_top, lse, i, strips, n, d, PARTS, DEPTH)
    tl.store(out + i * d + j, total, mask=j < d)
