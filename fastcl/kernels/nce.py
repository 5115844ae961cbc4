"""Noise-contrastive estimation in Triton (Wu et al. 2018, equations 4 to 7).

    t_j = scale <x, bank[index_j]> + bias + offset[index_j]
    loss = log(1 + exp(-t_0)) + sum_{j > 0} log(1 + exp(t_j)),   dx = sum_j g_j scale bank[index_j]
Bytes: b (1 + K) d elements of the bank, read where they lie, b (1 + K) indices, b d of x and dx.
The idea: a tile of gathered rows is still in registers when its logistic weights are known, so the
gradient is finished in the forward and the bank is read once.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import reference

LOG2E = tl.constexpr(1.4426950408889634)
# Elements of gathered rows: at most 96 registers on sm_80 and sm_90, no spills. 8,192 spill.
TILE = 4096
PART = 1024  # columns of one program: 256 rows with 4,096 noise rows are then 1,280 programs


@triton.jit
def _log1p(e):
    """For e in [0, 1] as 2 atanh(e / (2 + e)), relative: thousands of small terms are summed."""
    z = e / (e + 2.0)
    q = z * z
    p = q * (1.0 / 15.0) + 1.0 / 13.0
    p = p * q + 1.0 / 11.0
    p = p * q + 1.0 / 9.0
    p = p * q + 1.0 / 7.0
    p = p * q + 1.0 / 5.0
    p = p * q + 1.0 / 3.0
    p = p * q + 1.0
    return 2.0 * z * p


@triton.jit(do_not_specialize=["b", "n"])
def nce_kernel(
    x,  # [b, d]
    bank,  # [n, d]
    index,  # [b, columns] int64
    log_normalizer,  # [] or None
    offset,  # [n] or None
    loss,  # [parts, b] float32 out
    dx,  # [parts, b, d] float32 out, or None
    b,
    n,
    d,
    columns,
    part,  # columns of one program, a multiple of BLOCK
    scale: tl.float64,
    bias: tl.float64,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """One part of the columns of one row."""
    i = tl.program_id(0).to(tl.int64)
    feature = tl.arange(0, WIDTH)
    inside = feature < d
    row = tl.load(x + i * d + feature, mask=inside, other=0.0).to(tl.float32)
    if log_normalizer is not None:
        bias -= tl.load(log_normalizer).to(tl.float64)
    total = tl.zeros([BLOCK], tl.float32)
    grad = tl.zeros([WIDTH], tl.float32)
    first = tl.program_id(1) * part
    for start in range(first, min(first + part, columns), BLOCK):
        j = start + tl.arange(0, BLOCK)
        k = tl.load(index + i * columns + j, mask=j < columns, other=0)
        known = (k >= 0) & (k < n)
        at = bank + k[:, None] * d + feature[None, :]
        rows = tl.load(at, mask=known[:, None] & inside[None, :], other=0.0).to(tl.float32)
        t = tl.sum(rows * row[None, :], 1).to(tl.float64) * scale + bias
        if offset is not None:
            t += tl.load(offset + k, mask=known, other=0.0).to(tl.float64)
        # A row that the bank does not have is no number.
        t = tl.where(known, t, float("nan")).to(tl.float32)
        sign = tl.where(j == 0, -1.0, 1.0)
        u = t * sign
        e = tl.exp2(-tl.abs(u) * LOG2E)
        term = tl.where(u < 0, 0.0, u) + _log1p(e) + t * 0.0
        weight = sign * tl.where(u > 0, 1.0, e) / (1.0 + e) + t * 0.0
        total += tl.where(j < columns, term, 0.0)
        if dx is not None:
            grad += tl.sum(tl.where(j < columns, weight, 0.0)[:, None] * rows, 0)
    out = tl.program_id(1).to(tl.int64) * b + i
    tl.store(loss + out, tl.sum(total, 0))
    if dx is not None:
        tl.store(dx + out * d + feature, (grad * scale).to(tl.float32), mask=inside)


def nce(
    x: Tensor,  # [b, d]
    bank: Tensor,  # [n, d]
    index: Tensor,  # [b, 1 + K] int64
    scale: float,
    bias: float,
    log_normalizer: Tensor | None,  # []
    offset: Tensor | None,  # [n]
    need_x: bool,
) -> tuple[Tensor, Tensor]:
    """The operator of the reference; an index out of range gives its row a loss of NaN."""
    if torch.float64 in (x.dtype, bank.dtype):
        return reference.nce(x, bank, index, scale, bias, log_normalizer, offset, need_x)
    (b, d), columns = x.shape, index.shape[1]
    width = triton.next_power_of_2(d)
    block = max(1, min(32, TILE // width))
    part = max(PART // block, 1) * block
    parts = triton.cdiv(columns, part)
    loss = x.new_empty(parts, b, dtype=torch.float32)
    dx = x.new_empty(parts, b, d, dtype=torch.float32) if need_x else None
    if b > 0:
        nce_kernel[(b, parts)](
            x, bank, index, log_normalizer, offset, loss, dx, b, bank.shape[0], d, columns, part,
            scale, bias, BLOCK=block, WIDTH=width, num_warps=4,
        )  # fmt: skip
    if dx is None:
        return loss.sum(0), loss.new_empty(0, d)
    # One program wrote each part; they are added up in order.
    return (loss[0], dx[0]) if parts == 1 else (loss.sum(0), dx.sum(0))
