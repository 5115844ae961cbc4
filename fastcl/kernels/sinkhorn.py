"""The passes of Sinkhorn-Knopp in Triton, in the log domain (Caron et al. 2020, equation 3).

    s_ij = scale scores_ij;   q_ij = exp(s_ij + u_j - top_i) / sum_i,   the softmax of a row
Bytes: the scores n m once per kernel, twice where rows are written; 8 n of row statistics.
The idea: potentials instead of the scaled matrix. A pass over rows leaves their maximum and their
sum, a pass over columns adds up what they make of the scores: two reads per iteration and nothing
of the size of the scores in between. Partial sums of columns, not atomics.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import reference

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
ROWS, COLUMNS = 16, 64  # of a tile
STRIP = 256  # rows of one program of the column pass


@triton.jit
def _fold(s, top, total, axis: tl.constexpr):
    """The running maximum, and the sum of 2^(s - top) below it, along an axis."""
    high = tl.maximum(top, tl.max(s, axis))
    # Nothing but minus infinity so far: any finite shift.
    shift = tl.where(high == float("-inf"), 0.0, high)
    total = total * tl.exp2(top - shift) + tl.sum(tl.exp2(s - tl.expand_dims(shift, axis)), axis)
    # tl.maximum may pass over a NaN; the sum keeps it.
    return high, total


@triton.jit
def _logits(scores, potential, i, j, n, m, scale):
    """A tile in units of log 2, minus infinity outside."""
    mask = (i < n)[:, None] & (j < m)[None, :]
    at = scores + i.to(tl.int64)[:, None] * m + j[None, :]
    s = tl.load(at, mask=mask, other=0.0).to(tl.float32) * scale
    if potential is not None:
        s += tl.load(potential + j, mask=j < m, other=0.0)[None, :]
    return tl.where(mask, s * LOG2E, float("-inf"))


@triton.jit(do_not_specialize=["n"])
def rows_kernel(
    scores,  # [n, m]
    potential,  # [m]
    statistics,  # [2, n] out: largest logit in units of log 2, one over the sum; or None
    assignment,  # [n, m] out, or None
    n,
    m,
    scale,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A block of rows: their statistics, or the assignment itself."""
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    for start in range(0, m, COLUMNS):
        j = start + tl.arange(0, COLUMNS)
        top, total = _fold(_logits(scores, potential, i, j, n, m, scale), top, total, 1)
    inverse = 1.0 / total
    if statistics is not None:
        tl.store(statistics + i, top, mask=i < n)
        tl.store(statistics + n + i, inverse, mask=i < n)
    if assignment is not None:
        for start in range(0, m, COLUMNS):
            j = start + tl.arange(0, COLUMNS)
            s = _logits(scores, potential, i, j, n, m, scale)
            q = tl.exp2(s - top[:, None]) * inverse[:, None]
            at = assignment + i.to(tl.int64)[:, None] * m + j[None, :]
            tl.store(at, q, mask=(i < n)[:, None] & (j < m)[None, :])


@triton.jit(do_not_specialize=["n"])
def columns_kernel(
    scores,  # [n, m]
    potential,  # [m], or None: the first pass
    statistics,  # [2, n] of the rows, or None
    part,  # [strips, m] out: logarithms of the sums of exp(s), or sums of the assignment
    n,
    m,
    scale,
    STRIP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A block of columns over a strip of rows."""
    j = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    first = tl.program_id(1) * STRIP
    top = tl.full([COLUMNS], float("-inf"), tl.float32)
    total = tl.zeros([COLUMNS], tl.float32)
    for start in range(first, min(first + STRIP, n), ROWS):
        i = start + tl.arange(0, ROWS)
        s = _logits(scores, potential, i, j, n, m, scale)
        if statistics is None:
            top, total = _fold(s, top, total, 0)
        else:
            row_top = tl.load(statistics + i, mask=i < n, other=0.0)
            inverse = tl.load(statistics + n + i, mask=i < n, other=0.0)
            total += tl.sum(tl.exp2(s - row_top[:, None]) * inverse[:, None], 0)
    if statistics is None:
        total = (top + tl.log2(total)) * LN2
    tl.store(part + tl.program_id(1).to(tl.int64) * m + j, total, mask=j < m)


def _rows(scores, potential, scale, statistics, assignment) -> None:
    n, m = scores.shape
    rows_kernel[(triton.cdiv(n, ROWS),)](
        scores, potential, statistics, assignment, n, m, scale, ROWS=ROWS, COLUMNS=COLUMNS
    )


def _columns(scores, potential, scale, statistics) -> Tensor:
    n, m = scores.shape
    strips = triton.cdiv(n, STRIP)
    part = scores.new_empty(strips, m, dtype=torch.float32)
    columns_kernel[(triton.cdiv(m, COLUMNS), strips)](
        scores, potential, statistics, part, n, m, scale, STRIP=STRIP, ROWS=ROWS, COLUMNS=COLUMNS
    )
    return part


def sinkhorn_columns(scores: Tensor, scale: float) -> Tensor:  # [n, m] -> [m]
    """The operator of the reference."""
    if scores.dtype == torch.float64:
        return reference.sinkhorn_columns(scores, scale)
    return _columns(scores, None, scale, None).logsumexp(0)


def sinkhorn_masses(scores: Tensor, scale: float, potential: Tensor) -> Tensor:  # -> [m]
    """The operator of the reference."""
    if scores.dtype == torch.float64:
        return reference.sinkhorn_masses(scores, scale, potential)
    statistics = scores.new_empty(2, scores.shape[0], dtype=torch.float32)
    _rows(scores, potential, scale, statistics, None)
    return _columns(scores, potential, scale, statistics).sum(0)


def sinkhorn_assign(scores: Tensor, scale: float, potential: Tensor) -> Tensor:  # -> [n, m]
    """The operator of the reference."""
    if scores.dtype == torch.float64:
        return reference.sinkhorn_assign(scores, scale, potential)
    out = scores.new_empty(scores.shape, dtype=torch.float32)
    _rows(scores, potential, scale, None, out)
    return out
