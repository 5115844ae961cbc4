"""Partial sums of the softmax contrast into the statistics of a row, in float64.

    loss = log(negatives + positives) - mean positive,  softplus(log negatives - positive) where
    there is one positive: exact however small.
Bytes: the partial sums once, 16 n of statistics.
The idea: a loss of 1e-5 at scale 200 is the difference of two numbers near 200, so no float32
number above the partial sums enters it.
"""

import triton
import triton.language as tl

from .info_nce_tile import LN2, LOG2E, add_logs, fixed_shift, fold_logs, scale_factor, softplus


@triton.jit
def fold_kernel(
    col_part,  # [launch tiles, m] log2 of the negatives' sum
    state,  # [m] float64, the sum over earlier launches
    first,  # first row tile of the launch
    tiles,  # row tiles of the launch
    m,
    BN: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    TRIANGLE: tl.constexpr,
):
    """Add the column sums of one launch to the state; the first launch starts it."""
    j = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.full([BLOCK], float("-inf"), tl.float64)
    if first > 0:
        total = tl.load(state + j, mask=j < m, other=0.0)
    for start in range(0, tiles, PARTS):
        t = start + tl.arange(0, PARTS)
        mask = (t < tiles)[:, None] & (j < m)[None, :]
        if TRIANGLE:  # tiles below the diagonal were never written
            mask = mask & ((first + t)[:, None] < (j // BN)[None, :])
        at = col_part + t.to(tl.int64)[:, None] * m + j[None, :]
        x = tl.load(at, mask=mask, other=float("-inf"))
        total = add_logs(total, fold_logs(x.to(tl.float64), 0))
    tl.store(state + j, total, mask=j < m)


@triton.jit
def _fold_parts(x, parts, stride, i, n, PARTS: tl.constexpr, BLOCK: tl.constexpr):
    total = tl.full([BLOCK], float("-inf"), tl.float64)
    for start in range(0, parts, PARTS):
        p = start + tl.arange(0, PARTS)
        mask = (p < parts)[:, None] & (i < n)[None, :]
        part = tl.load(
            x + p.to(tl.int64)[:, None] * stride + i[None, :], mask=mask, other=float("-inf")
        )
        total = add_logs(total, fold_logs(part.to(tl.float64), 0))
    return total


@triton.jit
def _add_parts(x, parts, stride, i, n, PARTS: tl.constexpr):
    total = tl.zeros_like(i).to(tl.float64)
    for start in range(0, parts, PARTS):
        p = start + tl.arange(0, PARTS)
        mask = (p < parts)[:, None] & (i < n)[None, :]
        part = tl.load(x + p.to(tl.int64)[:, None] * stride + i[None, :], mask=mask, other=0)
        total += tl.sum(part.to(tl.float64), 0)
    return total


@triton.jit
def statistics_kernel(
    row_part,  # [strips, n] log2, above the shift where there is one; or None
    strips,
    state,  # [n] float64 sums down the columns, or None
    positives,  # [positive strips, 3, n] or None
    positive_strips,
    extra,  # [n] or None
    rank_part,  # [strips, n] int32, or None
    scale,
    logit_scale,  # [] or None
    only,  # [row tiles] int32: the row tiles to do; None: all
    flags,  # [row tiles] int32 out: the fixed shift failed; None: there was none
    out,  # [4, n] loss, log-sum-exp, mean positive logit, number of positives
    rank,  # [n] int64 out, or None
    n,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    POSITIVES_IN: tl.constexpr,
):
    """Loss, log-sum-exp, mean positive logit and count of every row, and its rank."""
    if only is not None:  # noqa: SIM102 - no short circuit in a kernel
        if tl.load(only + tl.program_id(0)) == 0:
            return
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    factor = scale_factor(scale, logit_scale) * LOG2E
    logits = factor.to(tl.float64) * LN2  # the factor of the exponentials, to the last bit
    lse = tl.full([BLOCK], float("-inf"), tl.float64)
    if row_part is not None:
        lse = _fold_parts(row_part, strips, n, i, n, PARTS, BLOCK)
    if state is not None:
        lse = add_logs(lse, tl.load(state + i, mask=inside, other=0.0))
    shift = fixed_shift(scale_factor(scale, logit_scale)).to(tl.float64)
    if flags is not None:
        lse += shift
    lse = lse * LN2
    positive = tl.zeros([BLOCK], tl.float64)
    count = tl.zeros([BLOCK], tl.float64)
    loss = lse
    if extra is not None:
        count += 1.0
        positive = tl.load(extra + i, mask=inside, other=0.0).to(tl.float64) * logits
        loss = softplus(lse - positive)
        lse = positive + loss
    elif positives is not None:
        stride = 3 * n
        log_sum = _fold_parts(positives, positive_strips, stride, i, n, PARTS, BLOCK) * LN2
        positive = _add_parts(positives + n, positive_strips, stride, i, n, PARTS)
        count = _add_parts(positives + 2 * n, positive_strips, stride, i, n, PARTS)
        positive = positive * logits / tl.maximum(count, 1.0)
        loss = lse - positive
        if POSITIVES_IN:
            alone = softplus(lse - positive)
            several = add_logs(lse / LN2, log_sum / LN2) * LN2
            lse = tl.where(count == 1.0, positive + alone, several)
            loss = tl.where(count == 1.0, alone, several - positive)
    tl.store(out + i, loss, mask=inside)
    tl.store(out + n + i, lse, mask=inside)
    tl.store(out + 2 * n + i, positive, mask=inside)
    tl.store(out + 3 * n + i, count, mask=inside)
    if rank is not None:
        above = _add_parts(rank_part, strips, n, i, n, PARTS)
        tl.store(rank + i, above.to(tl.int64), mask=inside)
    if flags is not None:
        # Below 2^-100 of the shift float32 has begun to lose the smaller terms.
        depth = lse / LN2 - shift
        bad = inside & ((depth < -100.0) | (depth == float("inf")))
        tl.store(flags + tl.program_id(0), tl.max(bad.to(tl.int32), 0))


@triton.jit
def weighted_kernel(
    part,  # [strips, n, d] mean of the columns under the softmax of a strip
    row_part,  # [strips, n] log2 of the strip's sum
    rows,  # [4, n] statistics
    out,  # [n, d]
    strips,
    n,
    d,
    PARTS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Strips of the frozen columns' weighted sum into one."""
    i = tl.program_id(0).to(tl.int64)
    j = tl.arange(0, DEPTH)
    lse = tl.load(rows + n + i) * LOG2E
    total = tl.zeros([DEPTH], tl.float32)
    for start in range(0, strips, PARTS):
        p = start + tl.arange(0, PARTS)
        at = p.to(tl.int64) * n + i
        weight = tl.exp2(tl.load(row_part + at, mask=p < strips, other=float("-inf")) - lse)
        mask = (p < strips)[:, None] & (j < d)[None, :]
        x = tl.load(part + at[:, None] * d + j[None, :], mask=mask, other=0.0)
        total += tl.sum(x * weight[:, None], 0)
    tl.store(out + i * d + j, total, mask=j < d)
