"""The logistic pass over tiles of t_ij = scale <q_i, k_j> + bias, y_ij = 1 at a positive, else -1.

    loss += log(1 + e^(-y t)),   G_ij = dL/dt_ij = -y / (1 + e^(y t))
Zhai et al., arXiv:2303.15343, equation 1.
Bytes: a tile of q and k in, 2 bytes of G out per logit; 24 of sums per tile.
The idea: there is no log-sum-exp to wait for, so loss and both gradients need one pass: three
products. One exponential of -|t| serves the loss and its slope; the logarithms of a row are one,
of the product of its factors, (1 + a)(1 + b) - 1 = a + b + ab, which keeps the smallest.
Positives may be left out: their t is that of a pair outside the matrix, -inf.
"""

import triton
import triton.language as tl

from .contrast_tile import (
    LN2,
    LOG2E,
    cosines,
    factor_parts,
    id_range,
    is_special,
    load_tile,
    masks,
    scale_factor,
    store_tile,
)

# The largest float32: 128 factors of exactly 2 are one rounding above it.
LARGEST = tl.constexpr(3.4028234663852886e38)
# Keeps small weights of float16 rows normal; the products take it out again.
HALF_LIFT = tl.constexpr(4096.0)


@triton.jit
def bias_parts(bias, logit_bias):
    """High and low float32 part of (bias + logit_bias) log2(e)."""
    total = tl.full([], bias, tl.float64)
    if logit_bias is not None:
        total = total + tl.load(logit_bias).to(tl.float64)
    total = total * LOG2E
    high = total.to(tl.float32)
    return high, (total - high.to(tl.float64)).to(tl.float32)


@triton.jit
def _join(a, b):
    """(1 + a)(1 + b) - 1."""
    return tl.fma(a, b, a + b)


@triton.jit
def _total(x):
    """Sum of [BM, BN] as [1]: Triton 3.6 makes no number of rank 0 out of a tile of sm_100."""
    return tl.sum(tl.sum(x, 1, keep_dims=True), 0)


@triton.jit
def log_of_one_plus(x):
    """log(1 + x) for x >= 0 with full relative precision, also where x is tiny."""
    # 2 atanh(x / (2 + x)); below 1/2 its argument is at most 0.2, and 0.2^10 / 11 is no digit.
    z = x / (x + 2.0)
    square = z * z
    series = 1.0 + square * (1 / 3 + square * (1 / 5 + square * (1 / 7 + square * (1 / 9))))
    return tl.where(x < 0.5, 2.0 * z * series, tl.log(1.0 + x))


@triton.jit
def logistic_tile(
    acc,  # [BM, BN] cosines
    special,
    row,
    col,
    n,
    m,
    row_ids,
    col_ids,
    factor,
    factor_low,
    bias,
    bias_low,
    BM: tl.constexpr,
    BN: tl.constexpr,
    POSITIVES_IN: tl.constexpr,
):
    """G [BM, BN], and the sums of the losses, of G <q, k> and of G."""
    t = tl.fma(acc, factor, bias) + tl.fma(acc, factor_low, bias_low)  # in units of log 2
    if special:
        other, match = masks(row, col, n, m, row_ids, col_ids, BM, BN, False)
        if not POSITIVES_IN:
            other = other & (match == 0)
        t = tl.where(other, tl.where(match, -t, t), float("-inf"))
    e = tl.exp2(-tl.abs(t))
    # The loss before the slope: both alive at once are more registers than Triton 3.6 has.
    tl.static_assert(BN <= 128, "a product of more factors may leave float32")
    product = tl.minimum(tl.reduce(e, 1, _join, keep_dims=True), LARGEST)
    loss = _total(tl.maximum(t, 0.0)) * LN2 + _total(log_of_one_plus(product))
    g = tl.where(t < 0, e, 1.0) / (1.0 + e)
    # The sign last: it would be alive across all of the above, in a register for every logit.
    if special:
        _, match = masks(row, col, n, m, row_ids, col_ids, BM, BN, False)
        g = tl.where(match, -g, g)
    slope = _total(g * acc)
    # A cosine of -inf has no loss by the formula, but its slope is NaN.
    return g, loss + 0.0 * slope, slope, _total(g)


@triton.jit(do_not_specialize=["pitch"])
def logistic_kernel(
    q,  # [n, d]
    k,  # [m, d]
    scale: tl.float64,
    logit_scale,  # [] or None
    row_ids,  # [n] or None
    col_ids,  # [m] or None
    row_range,  # [row tiles, 2] or None
    col_range,  # [column tiles, 2] or None
    bias: tl.float64,
    logit_bias,  # [] or None
    sums,  # [programs, 3] float64 to add to: loss, G <q, k>, G
    out,  # [rows of the chunk, PITCH pitch] in the dtype of q; None: the loss alone
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
    POSITIVES_IN: tl.constexpr,
):
    """One chunk of G, for the products to follow; a program adds to its own sums alone."""
    inner_row, inner_col = tl.program_id(0) * BM, tl.program_id(1) * BN
    row, col = first_row + inner_row, first_col + inner_col
    factor, factor_low = factor_parts(scale_factor(scale, logit_scale))
    high, low_part = bias_parts(bias, logit_bias)
    low, up = id_range(row_range, row // BM)
    special = is_special(row, col, n, m, low, up, col_range, BM, BN, False)
    q_tile = load_tile(q, row, 0, n, d, BM, DEPTH) if WHOLE else 0
    acc = cosines(q_tile, q, k, row, col, n, m, d, BM, BN, DEPTH, WHOLE, PRECISION)
    g, loss, slope, total = logistic_tile(
        acc,
        special,
        row,
        col,
        n,
        m,
        row_ids,
        col_ids,
        factor,
        factor_low,
        high,
        low_part,
        BM,
        BN,
        POSITIVES_IN,
    )
    program = tl.program_id(0) + tl.program_id(1) * tl.num_programs(0)
    at = sums + 3 * program + tl.arange(0, 1)
    tl.store(at, tl.load(at) + loss.to(tl.float64))
    tl.store(at + 1, tl.load(at + 1) + slope.to(tl.float64))
    tl.store(at + 2, tl.load(at + 2) + total.to(tl.float64))
    if out is not None:
        if out.dtype.element_ty == tl.float16:
            g = g * HALF_LIFT
        store_tile(out, g, inner_row, inner_col, n - first_row, pitch, BM, BN)
