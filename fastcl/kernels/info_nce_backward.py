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

from .info_nce_tile import (
    LOG2E,
    above,
    cosines,
    factor_parts,
    gradient_shift,
    id_range,
    is_special,
    load_lse,
    load_tile,
    masks,
    scale_factor,
)


@triton.jit
def coefficients_kernel(
    grad_loss,  # [n] or None
    grad_positive,  # [n] or None
    stats,  # [4, n] from the forward
    scale: tl.float64,
    logit_scale,  # [] or None
    lift,  # [] keeps float16 weights normal, or None
    out,  # [4, n] whole part of log2 of the sum, a, weight of a positive, a of a positive
    wide,  # [] int32, set where the factors would leave float32; None: one direction only
    n,
    BLOCK: tl.constexpr,
    POSITIVES_IN: tl.constexpr,
    EXTRA: tl.constexpr,
):
    """What a row contributes to the weights of its logits."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    total = scale_factor(scale, logit_scale)
    loss = tl.load(stats + i, mask=inside, other=0.0).to(tl.float64)
    lse = load_lse(stats, i, n, inside) * LOG2E
    # Whole numbers subtract without rounding; the fraction goes into the factors.
    whole = tl.floor(lse)
    fraction = tl.exp2(tl.where(whole == lse, 0.0, whole - lse)).to(tl.float32)
    whole = whole.to(tl.float32)
    count = tl.load(stats + 3 * n + i, mask=inside, other=0.0)
    a = tl.zeros([BLOCK], tl.float32)
    weight = tl.zeros([BLOCK], tl.float32)
    share = 1.0 / tl.maximum(count, 1.0)
    unit = (total if lift is None else total * tl.load(lift)).to(tl.float32)
    if grad_positive is not None:
        weight += tl.load(grad_positive + i, mask=inside, other=0.0) * unit * share
    if grad_loss is not None:
        a = tl.load(grad_loss + i, mask=inside, other=0.0) * unit
        pull = -share
        if POSITIVES_IN:  # p - 1 without cancellation
            e = tl.exp(-loss)
            exact = tl.where(e == 1.0, -loss, (e - 1.0) * (-loss / tl.log(e)))
            exact = tl.where(e == 0.0, -1.0, tl.where(e == 1.0, -loss, exact))
            pull = tl.where(count == 1.0, exact.to(tl.float32), pull)
        weight += a * pull
    a = a * fraction
    several = tl.where(count > 1.0, a, 0.0) if POSITIVES_IN else tl.zeros_like(a)
    if EXTRA:
        weight, several = tl.zeros_like(a), tl.zeros_like(a)
    tl.store(out + i, whole, mask=inside)
    tl.store(out + n + i, a, mask=inside)
    tl.store(out + 2 * n + i, weight, mask=inside)
    tl.store(out + 3 * n + i, several, mask=inside)
    if wide is not None:
        far = inside & (tl.abs(whole - gradient_shift(total)) > 100.0)
        if tl.max(far.to(tl.int32), 0) != 0:
            tl.store(wide, 1)  # every program that stores, stores the same


@triton.jit
def _vector(coef, index, start, length, BLOCK: tl.constexpr):
    i = start + tl.arange(0, BLOCK)
    return tl.load(coef + index * length + i, mask=i < length, other=0.0)


@triton.jit
def _negative_weights(
    acc,
    row,
    col,
    n,
    m,
    row_coef,
    col_coef,
    factor,
    factor_low,
    shift,
    wide,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """G of a tile without positives [BM, BN]."""
    if row_coef is not None:
        row_lse = _vector(row_coef, 0, row, n, BM)[:, None]
        a = _vector(row_coef, 1, row, n, BM)[:, None]
    if col_coef is not None:
        col_lse = _vector(col_coef, 0, col, m, BN)[None, :]
        b = _vector(col_coef, 1, col, m, BN)[None, :]
    if col_coef is None:
        g = tl.exp2(above(acc, factor, factor_low, row_lse)) * a
    elif row_coef is None:
        g = tl.exp2(above(acc, factor, factor_low, col_lse)) * b
    elif wide != 0:
        g = tl.exp2(above(acc, factor, factor_low, row_lse)) * a
        g += tl.exp2(above(acc, factor, factor_low, col_lse)) * b
    else:
        sides = a * tl.exp2(shift - row_lse) + b * tl.exp2(shift - col_lse)
        g = tl.exp2(above(acc, factor, factor_low, shift)) * sides
    return g


@triton.jit
def _positive_weights(
    acc,
    row,
    col,
    n,
    m,
    row_coef,
    col_coef,
    factor,
    factor_low,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """G on the positives of a tile [BM, BN]."""
    g = tl.zeros([BM, BN], tl.float32)
    # The bound only matters where p does not count on positives: 0 times infinity.
    if row_coef is not None:
        row_lse = _vector(row_coef, 0, row, n, BM)[:, None]
        p = tl.exp2(tl.minimum(above(acc, factor, factor_low, row_lse), 64.0))
        g += p * _vector(row_coef, 3, row, n, BM)[:, None]
        g += _vector(row_coef, 2, row, n, BM)[:, None]
    if col_coef is not None:
        col_lse = _vector(col_coef, 0, col, m, BN)[None, :]
        p = tl.exp2(tl.minimum(above(acc, factor, factor_low, col_lse), 64.0))
        g += p * _vector(col_coef, 3, col, m, BN)[None, :]
        g += _vector(col_coef, 2, col, m, BN)[None, :]
    return g


@triton.jit
def tile_weights(
    acc,  # [BM, BN]
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
    wide,
    BM: tl.constexpr,
    BN: tl.constexpr,
    SYMMETRIC: tl.constexpr,
):
    """G of a tile [BM, BN] in float32."""
    g = _negative_weights(
        acc, row, col, n, m, row_coef, col_coef, factor, factor_low, shift, wide, BM, BN
    )
    if special:
        other, match = masks(row, col, n, m, row_ids, col_ids, BM, BN, SYMMETRIC)
        g = tl.where(other, g, 0.0)
        if row_ids is not None:
            hit = _positive_weights(
                acc, row, col, n, m, row_coef, col_coef, factor, factor_low, BM, BN
            )
            g = tl.where(match, hit, g)
    return g


@triton.jit
def own_kernel(
    q,  # [n, d]
    k,  # [m, d]
    scale: tl.float64,
    logit_scale,  # [] or None
    row_ids,  # [n] or None
    col_ids,  # [m] or None
    row_range,  # [row tiles, 2] or None
    col_range,  # [column tiles, 2] or None
    row_coef,  # [4, n] or None
    col_coef,  # [4, m] or None
    wide_flag,  # [] int32 or None
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
):
    """sum_j G_ij k_j of a block of rows in registers; the roles exchanged, dk."""
    row = tl.program_id(0) * BM
    part = tl.program_id(1)
    total = scale_factor(scale, logit_scale)
    factor, factor_low = factor_parts(total)
    shift = gradient_shift(total)
    wide = 0 if wide_flag is None else tl.load(wide_flag)
    low, high = id_range(row_range, row // BM)
    q_tile = load_tile(q, row, 0, n, d, BM, DEPTH)
    gradient = tl.zeros([BM, DEPTH], tl.float32)
    for tile in range(part * strip, tl.minimum((part + 1) * strip, tl.cdiv(m, BN))):
        col = tile * BN
        special = is_special(row, col, n, m, low, high, col_range, BM, BN, SYMMETRIC)
        k_tile = load_tile(k, col, 0, m, d, BN, DEPTH)
        acc = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION)
        g = tile_weights(
            acc, special, row, col, n, m, row_ids, col_ids, row_coef, col_coef,
            factor, factor_low, shift, wide, BM, BN, SYMMETRIC,
        )  # fmt: skip
        gradient = tl.dot(g.to(k_tile.dtype), k_tile, gradient, input_precision=PRECISION)
    i = row + tl.arange(0, BM)
    j = tl.arange(0, DEPTH)
    at = (part.to(tl.int64) * n + i)[:, None] * d + j[None, :]
    tl.store(out + at, gradient, mask=(i < n)[:, None] & (j < d)[None, :])


@triton.jit
def weights_kernel(
    q,  # [n, d]
    k,  # [m, d]
    scale: tl.float64,
    logit_scale,  # [] or None
    row_ids,  # [n] or None
    col_ids,  # [m] or None
    row_range,  # [row tiles, 2] or None
    col_range,  # [column tiles, 2] or None
    row_coef,  # [4, n] or None
    col_coef,  # [4, m] or None
    wide_flag,  # [] int32 or None
    out,  # [rows of the chunk, width] in the dtype of q
    first_row,  # of the chunk, multiples of the tile
    first_col,
    width,  # columns of the chunk
    n,
    m,
    d,
    BM: tl.constexpr,
    BN: tl.constexpr,
    DEPTH: tl.constexpr,
    WHOLE: tl.constexpr,
    PRECISION: tl.constexpr,
    SYMMETRIC: tl.constexpr,
):
    """One chunk of G, for the products to follow."""
    row = first_row + tl.program_id(0) * BM
    col = first_col + tl.program_id(1) * BN
    total = scale_factor(scale, logit_scale)
    factor, factor_low = factor_parts(total)
    wide = 0 if wide_flag is None else tl.load(wide_flag)
    low, high = id_range(row_range, row // BM)
    special = is_special(row, col, n, m, low, high, col_range, BM, BN, SYMMETRIC)
    q_tile = load_tile(q, row, 0, n, d, BM, DEPTH) if WHOLE else 0
    acc = cosines(q_tile, q, k, row, col, n, m, d, BM, BN, DEPTH, WHOLE, PRECISION)
    g = tile_weights(
        acc, special, row, col, n, m, row_ids, col_ids, row_coef, col_coef,
        factor, factor_low, gradient_shift(total), wide, BM, BN, SYMMETRIC,
    )  # fmt: skip
    i = tl.program_id(0) * BM + tl.arange(0, BM)
    j = tl.program_id(1) * BN + tl.arange(0, BN)
    mask = (row + tl.arange(0, BM) < n)[:, None] & (j < width)[None, :]
    at = out + i.to(tl.int64)[:, None] * width + j[None, :]
    tl.store(at, g.to(out.dtype.element_ty), mask=mask)
