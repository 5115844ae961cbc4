"""What every contrast kernel does to one tile of s = a <q_i, k_j>, a = scale * log2(e).

Exponentials are powers of two, so that the scale and log2(e) are one factor; it has two parts,
for a factor of 300 rounded to float32 is another temperature. Shifts are whole numbers, so that
two fused multiply-adds give s - shift with the rounding of the difference alone.
A tile is plain, nearly always, or special: it crosses the border or the diagonal, or the ranges
of its ids overlap; only special tiles compare anything, and they hide what is not a negative as
-inf. Reads a tile of k once; moves no other bytes.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
PITCH = tl.constexpr(8)  # rows of a chunk start at 16 bytes, as the BLAS's bulk copies need too


@triton.jit
def scale_factor(scale, logit_scale):
    """scale * logit_scale in float64; logit_scale stays on the device."""
    total = tl.full([], scale, tl.float64)
    if logit_scale is not None:
        total = total * tl.load(logit_scale).to(tl.float64)
    return total


@triton.jit
def factor_parts(total):
    """High and low float32 part of total * log2(e), 46 bits of it.

    The high part is cut by more than its rounding, so that the low one is positive: -inf times
    both is -inf.
    """
    factor = total * LOG2E
    high = (factor * (1.0 - 2.0**-23)).to(tl.float32)
    return high, (factor - high.to(tl.float64)).to(tl.float32)


@triton.jit
def above(acc, high, low, shift):
    """acc * factor - shift, the difference of two large numbers without their rounding."""
    return tl.fma(acc, low, tl.fma(acc, high, -shift))


@triton.jit
def fixed_shift(total):
    """Unit rows: e^74 over 2^20 columns is finite, and e^-69 underflows at no scale below 71."""
    return tl.floor(tl.maximum(total - 74.0, 0.0) * LOG2E).to(tl.float32)


@triton.jit
def gradient_shift(total):
    """Unit rows: e^(s - shift) is at most 2^61, so factors of sums from 2^-100 stay normal."""
    return tl.floor(tl.maximum(total - 42.0, 0.0) * LOG2E).to(tl.float32)


@triton.jit
def raise_peak(
    acc,  # [BM, BN] cosines
    top,  # [BM] whole numbers, -inf at first
    high,
    low,
):
    """Exponentials under the new running maximum [BM, BN], what sums under the old one are worth
    [BM], and the new maximum: rounded up to a whole number, old sums fade by a power of two.
    """
    peak = tl.maximum(top, tl.ceil(tl.max(acc, 1) * high))
    safe = tl.where(peak == float("-inf"), 0.0, peak)
    return tl.exp2(above(acc, high, low, safe[:, None])), tl.exp2(top - safe), peak


@triton.jit
def load_tile(
    x,  # [length, width] pointer, or its tensor descriptor
    start,
    depth,
    length,
    width,
    BLOCK: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Rows start.., features depth.. of x as [BLOCK, DEPTH], zero beyond the border."""
    if isinstance(x, tl.tensor_descriptor):
        tile = x.load([start, depth])
    else:
        i = start + tl.arange(0, BLOCK)
        j = depth + tl.arange(0, DEPTH)
        at = x + i.to(tl.int64)[:, None] * width + j[None, :]
        tile = tl.load(at, mask=(i < length)[:, None] & (j < width)[None, :], other=0.0)
    return tile


@triton.jit
def store_tile(
    out,  # [height, PITCH pitch] pointer
    x,  # [BM, BN]
    row,
    col,
    height,
    pitch,  # from one row to the next, in PITCH elements
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """x into rows row.., columns col.. of out, in its dtype.

    Also into what pads a row, which nobody reads: the border then lies between two stores of 16
    bytes, whatever the number of columns.
    """
    i = row + tl.arange(0, BM)
    j = col + tl.arange(0, BN)
    width = pitch * PITCH
    at = out + i.to(tl.int64)[:, None] * width + j[None, :]
    tl.store(at, x.to(out.dtype.element_ty), mask=(i < height)[:, None] & (j < width)[None, :])


@triton.jit
def cosines(
    q_tile,  # [BM, DEPTH] where one block holds the whole width, else unused
    q,
    k,
    row,
    col,
    n,
    m,
    d,
    BM: tl.constexpr,
    BN: tl.constexpr,
    DEPTH: tl.constexpr,
    WHOLE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """<q_i, k_j> of one tile [BM, BN] in float32."""
    if WHOLE:
        k_tile = load_tile(k, col, 0, m, d, BN, DEPTH)
        acc = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION)
    else:
        acc = tl.zeros([BM, BN], tl.float32)
        for depth in range(0, d, DEPTH):
            a = load_tile(q, row, depth, n, d, BM, DEPTH)
            b = load_tile(k, col, depth, m, d, BN, DEPTH)
            acc = tl.dot(a, tl.trans(b), acc, input_precision=PRECISION)
    return acc


@triton.jit
def id_range(ranges, tile):
    """Lowest and highest id of a tile; without ids, a pair that nothing overlaps."""
    low, high = 1, 0
    if ranges is not None:
        low, high = tl.load(ranges + 2 * tile), tl.load(ranges + 2 * tile + 1)
    return low, high


@triton.jit
def overlapping(
    col_range,  # [column tiles, 2]
    first,
    stop,
    low,  # of the row tile's ids
    high,
    SCAN: tl.constexpr,
):
    """The first of SCAN column tiles whose ids overlap, and one after the last."""
    tiles = first + tl.arange(0, SCAN)
    inside = tiles < stop
    lows = tl.load(col_range + 2 * tiles, mask=inside, other=0)
    highs = tl.load(col_range + 2 * tiles + 1, mask=inside, other=0)
    overlap = inside & (lows <= high) & (low <= highs)
    return tl.min(tl.where(overlap, tiles, stop), 0), tl.max(tl.where(overlap, tiles + 1, 0), 0)


@triton.jit
def is_special(
    row,
    col,
    n,
    m,
    low,  # of the row tile's ids
    high,
    col_range,  # [column tiles, 2] or None
    BM: tl.constexpr,
    BN: tl.constexpr,
    SYMMETRIC: tl.constexpr,
):
    """Whether a tile needs any comparison."""
    special = (row + BM > n) | (col + BN > m)
    if SYMMETRIC:
        special = special | ((row < col + BN) & (col < row + BM))
    if col_range is not None:
        col_low, col_high = id_range(col_range, col // BN)
        special = special | ((low <= col_high) & (col_low <= high))
    return special


@triton.jit
def masks(
    row,
    col,
    n,
    m,
    row_ids,  # [n] or None
    col_ids,  # [m] or None
    BM: tl.constexpr,
    BN: tl.constexpr,
    SYMMETRIC: tl.constexpr,
):
    """Columns other than the row itself, and the positives among them: two masks [BM, BN]."""
    i = row + tl.arange(0, BM)
    j = col + tl.arange(0, BN)
    other = (i < n)[:, None] & (j < m)[None, :]
    if SYMMETRIC:
        other = other & (i[:, None] != j[None, :])
    if row_ids is not None:
        a = tl.load(row_ids + i, mask=i < n, other=0)
        b = tl.load(col_ids + j, mask=j < m, other=0)
        match = other & (a[:, None] == b[None, :])
    else:
        match = tl.zeros([BM, BN], tl.int1)
    return other, match


@triton.jit
def load_lse(
    stats,  # [4, n] loss, rest, mean positive logit, number of positives
    i,
    n,
    inside,
):
    """lse in float64, to more digits than float32 holds."""
    loss = tl.load(stats + i, mask=inside, other=0.0).to(tl.float64)
    rest = tl.load(stats + n + i, mask=inside, other=0.0)
    return loss + tl.load(stats + 2 * n + i, mask=inside, other=0.0) + rest


@triton.jit
def add_logs(a, b):
    """log2(2^a + 2^b), -inf with -inf included; NaN stays NaN."""
    high = tl.maximum(a, b)
    safe = tl.where(high == float("-inf"), 0.0, high)
    return safe + tl.log2(tl.exp2(a - safe) + tl.exp2(b - safe))


@triton.jit
def softplus(x):
    """log(1 + e^x) in float64 to full relative precision, by Kahan's log1p."""
    e = tl.exp(-tl.abs(x))
    u = 1.0 + e
    small = tl.where(u == 1.0, e, tl.log(u) * (e / tl.where(u == 1.0, 1.0, u - 1.0)))
    return tl.where(x > 0, x, 0.0) + small


@triton.jit
def other_share(loss):
    """e^-loss - 1 in float64 to full relative precision: what the one positive lacks of 1, from
    the log of the rounded power as in softplus.
    """
    e = tl.exp(-loss)
    exact = tl.where(e == 1.0, -loss, (e - 1.0) * (-loss / tl.log(e)))
    return tl.where(e == 0.0, -1.0, tl.where(e == 1.0, -loss, exact))


@triton.jit(do_not_specialize=["length"])
def id_range_kernel(
    ids,  # [length]
    out,  # [tiles, 2] lowest and highest id of every tile
    length,
    BLOCK: tl.constexpr,
):
    tile = tl.program_id(0)
    i = tile * BLOCK + tl.arange(0, BLOCK)
    inside = i < length
    first = tl.load(ids + tile * BLOCK)
    x = tl.load(ids + i, mask=inside, other=0)
    x = tl.where(inside, x, first)
    tl.store(out + 2 * tile, tl.min(x, 0))
    tl.store(out + 2 * tile + 1, tl.max(x, 0))
