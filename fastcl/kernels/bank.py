"""The update of a bank in Triton.

    bank[index] = unit(momentum bank[index] + (1 - momentum) x), of equal indices the last
Bytes: 3 b d elements, and index once per 1,024 rows of it (from the second-level cache).
The idea: a program looks for a later row with its index and then leaves the row to that one, so no
two programs write the same and no order of theirs matters: one launch, no atomics.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import reference

SCAN = 1024  # indices that a program looks at at once


@triton.jit(do_not_specialize=["b", "n"])
def bank_update_kernel(
    bank,  # [n, d] in place
    index,  # [b] int64
    x,  # [b, d]
    b,
    n,
    d,
    keep,  # momentum
    take,  # 1 - momentum
    SCAN: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """One row of x."""
    i = tl.program_id(0).to(tl.int64)
    k = tl.load(index + i)
    later = tl.zeros([SCAN], tl.int32)
    for start in range((i + 1) // SCAN * SCAN, b, SCAN):
        j = start + tl.arange(0, SCAN)
        other = tl.load(index + j, mask=(j > i) & (j < b), other=-1)
        later = tl.maximum(later, (other == k).to(tl.int32))
    if (k >= 0) & (k < n) & (tl.max(later, 0) == 0):
        feature = tl.arange(0, WIDTH)
        inside = feature < d
        old = tl.load(bank + k * d + feature, mask=inside, other=0.0).to(tl.float32)
        new = tl.load(x + i * d + feature, mask=inside, other=0.0).to(tl.float32)
        row = keep * old + take * new
        length = tl.sqrt(tl.sum(row * row, 0))
        length = tl.where(length < 1e-12, 1e-12, length)
        row = row / length
        tl.store(bank + k * d + feature, row.to(bank.dtype.element_ty), mask=inside)


def bank_update_(
    bank: Tensor,  # [n, d]
    index: Tensor,  # [b] int64
    x: Tensor,  # [b, d]
    momentum: float,
) -> None:
    """The operator of the reference; a row whose index is out of range is dropped."""
    if torch.float64 in (bank.dtype, x.dtype):
        return reference.bank_update_(bank, index, x, momentum)
    (b, d), width = x.shape, triton.next_power_of_2(x.shape[1])
    bank_update_kernel[(b,)](
        bank, index, x, b, bank.shape[0], d, momentum, 1 - momentum, SCAN=SCAN, WIDTH=width,
        num_warps=1 if width <= 128 else 4,
    )  # fmt: skip
    return None
