"""The mean contrast with a key per row and constant columns, and its gradient: MoCo's loss.

    loss_i = softplus(log sum_j e^{s_ij} - scale <q_i, k_i>)
    dq_i = scale / n (sum_j p_ij c_j + (e^-loss_i - 1) k_i)
    dx_i = (dq_i - q_i <q_i, dq_i>) / |x_i|
He et al., arXiv:1911.05722, equation 1.
Bytes: beside the pass over the columns (contrast_frozen), 4 n d strips of partial sums read and
16 n d of rows.
The idea: a small batch is a matter of launches. One makes the rows and their own similarities, one
passes over the columns, one makes of the partial sums of a row its loss and its gradient.
"""

import triton
import triton.language as tl

from . import contrast_common as common
from .contrast_combine import weighted_strips
from .contrast_statistics import frozen_sums
from .contrast_tile import LN2, LOG2E, other_share, scale_factor, softplus
from .unit_rows import BLOCK, SHORTEST, load_rows


@triton.jit
def _divided(rows, x, NORMALIZE: tl.constexpr):
    """Rows of x in float32; where divided by their length, rounded as they are stored."""
    if NORMALIZE:
        length = tl.sqrt_rn(tl.sum(rows * rows, 1))
        # Not a maximum: it would drop NaN.
        length = tl.where(length < SHORTEST, SHORTEST, length)
        rows = (rows / length[:, None]).to(x.dtype.element_ty).to(tl.float32)
    return rows


@triton.jit(do_not_specialize=["n"])
def own_similarity_kernel(
    query,  # [n, d]
    key,  # [n, d]
    unit,  # [n, d] rows of unit length, or None
    own,  # [n] similarities of the rows and their keys
    n,
    d,
    NORMALIZE: tl.constexpr,
    NORMALIZE_KEY: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,  # at least d
):
    """The rows of unit length and what each has in common with its key."""
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    q, at, inside = load_rows(query, i, tl.arange(0, WIDTH), n, d)
    q = _divided(q, query, NORMALIZE)
    k, _, _ = load_rows(key, i, tl.arange(0, WIDTH), n, d)
    k = _divided(k, key, NORMALIZE_KEY)
    tl.store(own + i, tl.sum(q * k, 1), mask=i < n)
    if unit is not None:
        tl.store(unit + at, q.to(unit.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["strips", "n"])
def frozen_mean_kernel(
    row_part,  # [strips, n] sums over the negatives
    row_top,  # [strips, n] log2 of their units
    part,  # [strips, n, d] weighted sums of the columns, in the same units
    own,  # [n]
    query,  # [n, d]
    key,  # [n, d]
    loss,  # [n] out
    out,  # [n, d] out, the gradient of the mean
    scale: tl.float64,
    share: tl.float64,  # scale / n
    strips,
    n,
    d,
    NORMALIZE: tl.constexpr,
    NORMALIZE_KEY: tl.constexpr,
    PARTS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Strips into the loss of one row and its gradient."""
    row = tl.program_id(0)
    scale = scale_factor(scale, None)
    peak = tl.full([], float("-inf"), tl.float32)
    for start in range(0, strips, PARTS):
        p = start + tl.arange(0, PARTS)
        at = row_top + p.to(tl.int64) * n + row
        peak = tl.maximum(peak, tl.max(tl.load(at, mask=p < strips, other=float("-inf")), 0))
    peak = tl.where(peak == float("-inf"), 0.0, peak)
    total = tl.zeros([], tl.float64)
    for start in range(0, strips, PARTS):
        p = start + tl.arange(0, PARTS)
        at = p.to(tl.int64) * n + row
        top = tl.load(row_top + at, mask=p < strips, other=float("-inf"))
        value = tl.load(row_part + at, mask=p < strips, other=0.0).to(tl.float64)
        total += tl.sum(value * tl.exp2((top - peak).to(tl.float64)), 0)
    positive = tl.load(own + row).to(tl.float64) * scale
    value = softplus((peak + tl.log2(total)) * LN2 - positive)
    tl.store(loss + row, value.to(tl.float32))
    lse = (positive + value) * LOG2E
    weighted = weighted_strips(part, row_top, lse, row, strips, n, d, PARTS, WIDTH)
    i = row + tl.arange(0, 1)
    k, at, inside = load_rows(key, i, tl.arange(0, WIDTH), n, d)
    k = _divided(k, key, NORMALIZE_KEY)
    g = weighted[None, :] + k * other_share(value).to(tl.float32)
    g = g * scale_factor(share, None).to(tl.float32)
    if NORMALIZE:
        x, _, _ = load_rows(query, i, tl.arange(0, WIDTH), n, d)
        length = tl.sqrt_rn(tl.sum(x * x, 1))
        inverse = tl.where(length < SHORTEST, 0.0, 1.0 / length)[:, None]
        y = x * inverse
        g = (g - y * tl.sum(y * g, 1)[:, None]) * inverse
    tl.store(out + at, g, mask=inside)


def frozen_mean(query, key, columns, scale, row_ids, col_ids, limits, which):
    """Losses [n] and dquery [n, d] of a mean with constant key and columns, in four launches.

    which: whether the query and the key are divided by their lengths."""
    (n, d), normalize = query.shape, which[0]
    query, key = query.contiguous(), key.contiguous()
    own = common.empty(query, n)
    unit = common.empty(query, n, d, dtype=query.dtype) if normalize else None
    width = triton.next_power_of_2(d)
    rows = max(BLOCK // width, 1)  # of a block; as many strips fit its registers at once
    own_similarity_kernel[(triton.cdiv(n, rows),)](
        query, key, unit, own, n, d, *which, rows, width, num_warps=4
    )
    q = unit if normalize else query
    p = common.operands(q, columns, row_ids, col_ids, scale, None, False, limits)
    sums, weighted = frozen_sums(p, None)
    loss, dq = common.empty(query, n), common.empty(query, n, d)
    frozen_mean_kernel[(n,)](
        sums.parts, sums.tops, weighted, own, query, key, loss, dq, scale, scale / n,
        len(sums.parts), n, d, *which, min(common.PARTS, rows), width, num_warps=4,
    )  # fmt: skip
    return loss, dq
