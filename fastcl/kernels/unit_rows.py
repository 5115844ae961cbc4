"""Rows of unit length, several matrices below each other: one launch per matrix.

    y = x / |x|,   dx = (g - y <y, g>) / |x|
Bytes: forward x in, y and 4 n of lengths out; backward x and g in, dx out.
The idea: a block of rows is read twice, the second time from the first-level cache; all sums are
in float32.
"""

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from .. import reference
from ..reference.unit_rows import SHORTEST as _SHORTEST
from . import contrast_common as common
from . import contrast_config as config

SHORTEST = tl.constexpr(_SHORTEST)
BLOCK = 2048  # numbers a block reads: 16 per thread, two accesses of 16 bytes in flight
WIDEST = 1024  # features of a block


@triton.jit
def load_rows(x, i, j, n, d):
    """Rows i, features j of x [n, d] in float32, where they are in it, and their positions."""
    at = i.to(tl.int64)[:, None] * d + j[None, :]
    inside = (i < n)[:, None] & (j < d)[None, :]
    return tl.load(x + at, mask=inside, other=0.0).to(tl.float32), at, inside


@triton.jit(do_not_specialize=["n"], do_not_specialize_on_alignment=["lengths"])
def unit_forward_kernel(
    x,  # [n, d]
    y,  # [n, d]
    lengths,  # [n]
    n,
    d,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    square = tl.zeros([ROWS], tl.float32)
    for start in range(0, d, WIDTH):
        tile, _, _ = load_rows(x, i, start + tl.arange(0, WIDTH), n, d)
        square += tl.sum(tile * tile, 1)
    length = tl.sqrt_rn(square)
    tl.store(lengths + i, length, mask=i < n)
    # Not a maximum: it would drop NaN.
    length = tl.where(length < SHORTEST, SHORTEST, length)
    for start in range(0, d, WIDTH):
        tile, at, inside = load_rows(x, i, start + tl.arange(0, WIDTH), n, d)
        tl.store(y + at, (tile / length[:, None]).to(y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["n"], do_not_specialize_on_alignment=["lengths", "dots"])
def unit_backward_kernel(
    grad,  # [n, d]
    x,  # [n, d]
    lengths,  # [n]
    dx,  # [n, d]
    dots,  # [n] products of the unit rows and their gradients, or None
    n,
    d,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    length = tl.load(lengths + i, mask=i < n, other=1.0)
    inverse = tl.where(length < SHORTEST, 0.0, 1.0 / length)[:, None]
    dot = tl.zeros([ROWS], tl.float32)
    for start in range(0, d, WIDTH):
        tile, at, inside = load_rows(x, i, start + tl.arange(0, WIDTH), n, d)
        g = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
        dot += tl.sum(tile * inverse * g, 1)
    if dots is not None:
        tl.store(dots + i, dot, mask=i < n)
    for start in range(0, d, WIDTH):
        tile, at, inside = load_rows(x, i, start + tl.arange(0, WIDTH), n, d)
        g = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
        out = (g - tile * inverse * dot[:, None]) * inverse
        tl.store(dx + at, out.to(dx.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["n"], do_not_specialize_on_alignment=["out"])
def product_kernel(
    a,  # [n, d]
    b,  # [n, d]
    out,  # [n]
    n,
    d,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Products of the rows that belong together."""
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros([ROWS], tl.float32)
    for start in range(0, d, WIDTH):
        x, _, _ = load_rows(a, i, start + tl.arange(0, WIDTH), n, d)
        y, _, _ = load_rows(b, i, start + tl.arange(0, WIDTH), n, d)
        total += tl.sum(x * y, 1)
    tl.store(out + i, total, mask=i < n)


def _launch(kernel, block: int, n: int, d: int, *tensors: Tensor | None) -> None:
    if n > 0:
        width = min(triton.next_power_of_2(d), WIDEST)
        rows = max(block // width, 1)
        kernel[(triton.cdiv(n, rows),)](*tensors, n, d, rows, width, num_warps=4)


def unit_rows_forward(parts):
    """`reference.unit_rows_forward` without a float32 copy of the rows."""
    if not config.supported(parts[0]):
        return reference.unit_rows_forward(parts)
    sizes, d = [x.shape[0] for x in parts], parts[0].shape[1]
    y = common.empty(parts[0], sum(sizes), d, dtype=parts[0].dtype)
    lengths = common.empty(parts[0], sum(sizes))
    for x, *out in zip(parts, y.split(sizes), lengths.split(sizes), strict=True):
        _launch(unit_forward_kernel, BLOCK, *x.shape, x.contiguous(), *out)
    return y, lengths


def unit_rows_backward(grad, parts, lengths):
    """`reference.unit_rows_backward` in one pass over the rows; grad may also be float32."""
    if not config.supported(grad):
        return reference.unit_rows_backward(grad, parts, lengths)
    return project(grad, parts, lengths, None)


def row_products(a: Tensor, b: Tensor) -> Tensor:
    """Products [n] in float32 of the rows of two matrices that belong together."""
    out = common.empty(a, len(a))
    _launch(product_kernel, BLOCK // 2, *a.shape, a.contiguous(), b.contiguous(), out)
    return out


def project(grad: Tensor, parts: Sequence[Tensor], lengths: Tensor, dots: Tensor | None) -> Tensor:
    """dx [n, d] in the dtype of grad; dots [n] gets the products of unit rows and gradients."""
    sizes = [x.shape[0] for x in parts]
    grad = grad.contiguous()
    dx = common.empty(grad, *grad.shape, dtype=grad.dtype)
    split = [x.split(sizes) for x in (grad, lengths, dx)]
    products = [None] * len(parts) if dots is None else dots.split(sizes)
    for x, g, length, out, product in zip(parts, *split, products, strict=True):
        _launch(unit_backward_kernel, BLOCK // 2, *x.shape, g, x.contiguous(), length, out, product)
    return dx
