"""Gradient of the softmax contrast, every logit formed again.

    dq_i = sum_j G_ij k_j,  G_ij = a_i e^{s_ij - lse_i} + b_j e^{s_ij - lse'_j} + (positive weights)
Dao et al., arXiv:2205.14135, for the recomputation.
Bytes: k twice per row tile (from L2), 4 n d of gradient; by chunks also 2 n m d / chunk of it.
The idea: one exponential serves both directions, G = E_ij (a_i + b_j) with both log-sum-exps
moved into the factors, whole part and fraction apart; z z^T is the same with a = b. The weight
of a positive, expm1(-loss), is added in float32 before G is rounded: afterwards, near
convergence, nothing would be left of it.
"""

import triton
import triton.language as tl

from .contrast_coefficients import (
    LSE,
    NEGATIVE,
    POSITIVE,
    SHARED_NEGATIVE,
    SHARED_POSITIVE,
    WEIGHT,
)
from .contrast_limit import judged, load_limit
from .contrast_tile import (
    above,
    cosines,
    factor_parts,
    gradient_shift,
    id_range,
    is_special,
    load_tile,
    masks,
    scale_factor,
    store_tile,
)

HUGE = tl.constexpr(2.0**64)


@triton.jit
def _load(coef, index, start, length, BLOCK: tl.constexpr):
    """One coefficient of a block of rows or columns; zeros where no gradient comes from them."""
    x = tl.zeros([BLOCK], tl.float32)
    if coef is not None:
        i = start + tl.arange(0, BLOCK)
        x = tl.load(coef + tl.cast(index, tl.int64) * length + i, mask=i < length, other=0.0)
    return x


@triton.jit
def _load_lse(coef, start, length, BLOCK: tl.constexpr, EMPTY: tl.constexpr):
    """The whole part of lse, 0 where nothing is in the sum: -inf less -inf would be no weight."""
    lse = _load(coef, LSE, start, length, BLOCK)
    if EMPTY:
        lse = tl.where(lse == float("-inf"), 0.0, lse)
    return lse


@triton.jit
def _both_sides(p, r, a, b, BOUNDED: tl.constexpr):
    """p a + r b of the sides that are given.

    Where p does not count on positives it may be infinite there, and its factor is zero.
    """
    if p is not None:
        g = (tl.minimum(p, HUGE) if BOUNDED else p) * a
    if r is not None:
        h = (tl.minimum(r, HUGE) if BOUNDED else r) * b
        g = h if p is None else g + h
    return g


@triton.jit
def tile_weights(
    acc,  # [BM, BN]
    beyond,  # [BM, BN] what is left out where it is no positive, or None
    special,
    row,
    col,
    n,
    m,
    row_ids,
    col_ids,
    row_coef,
    col_coef,
    factor,
    factor_low,
    shift,
    BM: tl.constexpr,
    BN: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    SHARED: tl.constexpr,
):
    """G of a tile [BM, BN] in float32.

    A special tile compares its ids twice: a mask that is alive across a load, or a second tile of
    weights beside the first, is one more register for every logit, and there are none.
    """
    NEGATIVES: tl.constexpr = SHARED_NEGATIVE if SHARED else NEGATIVE
    POSITIVES: tl.constexpr = SHARED_POSITIVE if SHARED else POSITIVE
    if special:
        other, _ = masks(row, col, n, m, None, None, BM, BN, SYMMETRIC)
        acc = tl.where(other, acc, float("-inf"))
    if beyond is not None:
        if special:
            _, match = masks(row, col, n, m, row_ids, col_ids, BM, BN, SYMMETRIC)
            acc = tl.where(beyond & ~match, float("-inf"), acc)
        else:
            acc = tl.where(beyond, float("-inf"), acc)
    p = None
    r = None
    if SHARED:
        p = tl.exp2(above(acc, factor, factor_low, shift))
    else:
        if row_coef is not None:
            lse = _load_lse(row_coef, row, n, BM, beyond is not None)
            p = tl.exp2(above(acc, factor, factor_low, lse[:, None]))
        if col_coef is not None:
            lse = _load_lse(col_coef, col, m, BN, beyond is not None)
            r = tl.exp2(above(acc, factor, factor_low, lse[None, :]))
    if row_ids is None:
        a = _load(row_coef, NEGATIVES, row, n, BM)[:, None]
        b = _load(col_coef, NEGATIVES, col, m, BN)[None, :]
        g = p * (a + b) if SHARED else _both_sides(p, r, a, b, False)
    else:
        if special:
            _, match = masks(row, col, n, m, row_ids, col_ids, BM, BN, SYMMETRIC)
            a = _load(row_coef, NEGATIVES, row, n, BM)[:, None]
            b = _load(col_coef, NEGATIVES, col, m, BN)[None, :]
            c = _load(row_coef, POSITIVES, row, n, BM)[:, None]
            e = _load(col_coef, POSITIVES, col, m, BN)[None, :]
            if SHARED:
                g = p * tl.where(match, c + e, a + b)
            else:
                g = _both_sides(p, r, tl.where(match, c, a), tl.where(match, e, b), True)
        else:
            a = _load(row_coef, NEGATIVES, row, n, BM)[:, None]
            b = _load(col_coef, NEGATIVES, col, m, BN)[None, :]
            g = p * (a + b) if SHARED else _both_sides(p, r, a, b, False)
        if special:
            _, match = masks(row, col, n, m, row_ids, col_ids, BM, BN, SYMMETRIC)
            w = _load(row_coef, WEIGHT, row, n, BM)[:, None]
            v = _load(col_coef, WEIGHT, col, m, BN)[None, :]
            g += tl.where(match, w + v, 0.0)
    return g


@triton.jit
def skipped(wide, SHARED: tl.constexpr):
    """Whether the other of two launches, with and without a shared shift, does the work."""
    skip = False
    if wide is not None:
        skip = (tl.load(wide) != 0) == SHARED
    return skip


@triton.jit(do_not_specialize=["strip"])
def own_kernel(
    q,  # [n, d]
    k,  # [m, d]
    scale: tl.float64,
    logit_scale,  # [] or None
    row_ids,  # [n] or None
    col_ids,  # [m] or None
    row_range,  # [row tiles, 2] or None
    col_range,  # [column tiles, 2] or None
    row_limit,  # [n] or None
    col_limit,  # [m] or None
    row_coef,  # [6, n] or None
    col_coef,  # [6, m] or None
    wide,  # [] int32: no shared shift; None: not asked
    out,  # [strips, n, d]
    strip,  # column tiles per strip
    n,
    m,
    d,
    BM: tl.constexpr,
    BN: tl.constexpr,
    DEPTH: tl.constexpr,  # at least d
    PRECISION: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    SHARED: tl.constexpr,  # one exponential for both directions
):
    """sum_j G_ij k_j of a block of rows in registers; the roles exchanged, dk."""
    if skipped(wide, SHARED):
        return
    row = tl.program_id(0) * BM
    part = tl.program_id(1)
    total = scale_factor(scale, logit_scale)
    factor, factor_low = factor_parts(total)
    shift = gradient_shift(total)
    low, high = id_range(row_range, row // BM)
    q_tile = load_tile(q, row, 0, n, d, BM, DEPTH)
    gradient = tl.zeros([BM, DEPTH], tl.float32)
    start = part * strip
    stop = tl.minimum(start + strip, tl.cdiv(m, BN))
    # No strip is empty. With a way around the loop the sums of the last product would meet zeros
    # while it is in flight, and ptxas would let every product wait for the one before.
    tl.assume(start < stop)
    for tile in range(start, stop):
        col = tile * BN
        special = is_special(row, col, n, m, low, high, col_range, BM, BN, SYMMETRIC)
        k_tile = load_tile(k, col, 0, m, d, BN, DEPTH)
        acc = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION)
        beyond = None
        if row_limit is not None:
            beyond = acc > load_limit(row_limit, row, n, BM)[:, None]
        if col_limit is not None:
            beyond = acc > load_limit(col_limit, col, m, BN)[None, :]
        g = tile_weights(
            acc, beyond, special, row, col, n, m, row_ids, col_ids, row_coef, col_coef,
            factor, factor_low, shift, BM, BN, SYMMETRIC, SHARED,
        )  # fmt: skip
        gradient = tl.dot(g.to(k_tile.dtype), k_tile, gradient, input_precision=PRECISION)
    i = row + tl.arange(0, BM)
    j = tl.arange(0, DEPTH)
    at = (part.to(tl.int64) * n + i)[:, None] * d + j[None, :]
    tl.store(out + at, gradient, mask=(i < n)[:, None] & (j < d)[None, :])


@triton.jit(do_not_specialize=["pitch"])
def weights_kernel(
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
    row_coef,  # [6, n] or None
    col_coef,  # [6, m] or None
    wide,  # [] int32: no shared shift; None: not asked
    out,  # [rows of the chunk, PITCH pitch] in the dtype of q
    first_row,  # of the chunk, multiples of the tile
    first_col,
    pitch,  # from one of its rows to the next, in PITCH elements
    n,
    m,
    d,
    BM: tl.constexpr,
    BN: tl.constexpr,
    DEPTH: tl.constexpr,
    WHOLE: tl.constexpr,
    PRECISION: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    SHARED: tl.constexpr,  # one exponential for both directions
    GUIDE_DEPTH: tl.constexpr,
    GUIDE_PRECISION: tl.constexpr,
):
    """One chunk of G, for the products to follow."""
    if skipped(wide, SHARED):
        return
    inner_row, inner_col = tl.program_id(0) * BM, tl.program_id(1) * BN
    row, col = first_row + inner_row, first_col + inner_col
    total = scale_factor(scale, logit_scale)
    factor, factor_low = factor_parts(total)
    low, high = id_range(row_range, row // BM)
    special = is_special(row, col, n, m, low, high, col_range, BM, BN, SYMMETRIC)
    q_tile = load_tile(q, row, 0, n, d, BM, DEPTH) if WHOLE else 0
    acc = cosines(q_tile, q, k, row, col, n, m, d, BM, BN, DEPTH, WHOLE, PRECISION)
    beyond = None
    if limit is not None:
        judge = judged(
            acc, guide_q, guide_k, inverse, row, col, n, m, g,
            BM, BN, GUIDE_DEPTH, GUIDE_PRECISION,
        )  # fmt: skip
        beyond = judge > load_limit(limit, row, n, BM)[:, None]
    weights = tile_weights(
        acc, beyond, special, row, col, n, m, row_ids, col_ids, row_coef, col_coef,
        factor, factor_low, gradient_shift(total), BM, BN, SYMMETRIC, SHARED,
    )  # fmt: skip
    store_tile(out, weights, inner_row, inner_col, n - first_row, pitch, BM, BN)
