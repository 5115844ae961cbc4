"""Mean loss of all rows and its gradients in one pass, in one direction: three products.

    E_ij = e^{s_ij - c},  f_i = scale e^{c - lse_i} / n
    dq_i = f_i sum_j E_ij k_j,  dk_j = sum_i E_ij (f_i q_i),  on a positive E_ij = weight_i / f_i
Bytes: 2 n m of exponentials written and 4 n m read, 16 m d per chunk of rows of dk.
The idea: the log-sum-exp of a row is a factor, which the products do not need. So the exponentials
that the forward sums are kept for a chunk of rows, in bfloat16 with its range of float32, and
become gradients without another pass: f goes to the rows of dq and, rounded, to the rows of q.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import contrast_common as common
from . import contrast_config as config
from .chunks import add_product, padded, pitch_of
from .contrast_backward import HUGE
from .contrast_coefficients import LSE, POSITIVE, SHARED_NEGATIVE, WEIGHT
from .contrast_common import Operands
from .contrast_gradient import coefficients
from .contrast_statistics import finish, fixed_sums, positive_strips, positive_sums
from .contrast_tile import (
    PITCH,
    above,
    cosines,
    factor_parts,
    gradient_shift,
    id_range,
    masks,
    overlapping,
    scale_factor,
)

# A product for dq has few tiles and a long sum: slices of it fill the multiprocessors.
SLICES = 4


@triton.jit(do_not_specialize=["pitch", "strip", "n", "m"])
def pull_kernel(
    q,  # [n, d]
    k,  # [m, d]
    scale: tl.float64,
    logit_scale,  # [] or None
    row_ids,  # [n]
    col_ids,  # [m]
    row_range,  # [row tiles, 2]
    col_range,  # [column tiles, 2]
    coef,  # [6, n]
    kept,  # [n, m] exponentials; the positives' are set
    pitch,  # from one of its rows to the next, in PITCH elements
    strip,  # column tiles per strip
    n,
    m,
    d,
    BLOCK: tl.constexpr,
    DEPTH: tl.constexpr,
    SCAN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The gradient of every positive in the unit of its row's exponentials."""
    row = tl.program_id(0) * BLOCK
    low, high = id_range(row_range, tl.program_id(0))
    total = scale_factor(scale, logit_scale)
    factor, factor_low = factor_parts(total)
    i = row + tl.arange(0, BLOCK)
    inside = i < n
    lse = tl.load(coef + LSE * n + i, mask=inside, other=0.0)
    several = tl.load(coef + POSITIVE * n + i, mask=inside, other=0.0)
    weight = tl.load(coef + WEIGHT * n + i, mask=inside, other=0.0)
    unit = tl.load(coef + SHARED_NEGATIVE * n + i, mask=inside, other=1.0)
    unit = unit / tl.exp2(gradient_shift(total))
    first = tl.program_id(1) * strip
    stop = tl.minimum(first + strip, tl.cdiv(m, BLOCK))
    for scan in range(first, stop, SCAN):
        begin, end = overlapping(col_range, scan, stop, low, high, SCAN)
        for tile in range(begin, end):
            col_low, col_high = id_range(col_range, tile)
            if (low <= col_high) & (col_low <= high):
                col = tile * BLOCK
                acc = cosines(0, q, k, row, col, n, m, d, BLOCK, BLOCK, DEPTH, False, PRECISION)
                p = tl.minimum(tl.exp2(above(acc, factor, factor_low, lse[:, None])), HUGE)
                g = (p * several[:, None] + weight[:, None]) / unit[:, None]
                _, match = masks(row, col, n, m, row_ids, col_ids, BLOCK, BLOCK, False)
                at = kept + i.to(tl.int64)[:, None] * (pitch * PITCH)
                at += (col + tl.arange(0, BLOCK))[None, :]
                tl.store(at, g.to(kept.dtype.element_ty), mask=match)


def _pull(p: Operands, coef: Tensor, kept: Tensor) -> None:
    (n, m, d), tile = p.sizes, config.POSITIVES
    row_tiles, strips, strip = positive_strips(p)
    pull_kernel[(row_tiles, strips)](
        *p.pointers(tile), coef, kept, pitch_of(kept), strip, n, m, d,
        tile.rows, tile.depth, config.SCAN, p.plan.precision, **common.options(tile),
    )  # fmt: skip


def _across(kept: Tensor, k: Tensor) -> Tensor:
    """kept @ k in float32, its long sums in slices that run side by side."""
    length = k.shape[0] // SLICES // PITCH.value * PITCH.value
    out = common.empty(k, SLICES, kept.shape[0], k.shape[1])
    head = SLICES * length
    a = kept[:, :head].unflatten(1, (SLICES, length)).transpose(0, 1)
    b = k[:head].unflatten(0, (SLICES, length))
    if k.is_cuda:
        torch.ops.aten.bmm.dtype_out(a, b, torch.float32, out=out)
    else:
        torch.bmm(a.float(), b.float(), out=out)
    total = out.sum(0)
    if head < k.shape[0]:
        add_product(total, kept[:, head:], k[head:], 1.0)
    return total


def unit_gradients(p: Operands, extra: Tensor | None, need_q: bool, need_k: bool):
    """rows [4, n], dq [n, d] and dk [m, d] of the mean loss, [0, d] where not needed."""
    (n, m, d), size = p.sizes, config.kept_rows(p.q, p.k)
    dq = common.empty(p.q, n if need_q else 0, d)
    dk = common.empty(p.q, m if need_k else 0, d)
    rows = []
    buffer = padded(p.q, min(n, size), m)
    grad = torch.full((min(n, size),), 1 / n, device=p.q.device)
    # Exponentials lie above the shift of a safe scale, 0, and factors above the gradient's.
    alpha = 2.0 ** -config.gradient_shift(p.scale)
    aside = p.row_ids is None or extra is not None
    for start in range(0, n, size):
        here = slice(start, min(start + size, n))
        part = p.rows(here)
        kept = buffer[: here.stop - start, :m]
        sums, _ = fixed_sums(part, None, False, kept)
        positives = None if aside else positive_sums(part)
        beside = None if extra is None else extra[here]
        stats, _ = finish(part, sums, positives, beside, True, True)
        rows.append(stats)
        coef = coefficients(
            part, grad[: here.stop - start], None, stats, None, None, True, extra is not None
        )
        if not aside:
            _pull(part, coef, kept)
        factor = coef[SHARED_NEGATIVE.value][:, None]
        if need_q:
            torch.mul(_across(kept, p.k), factor, out=dq[here])
        if need_k:
            scaled = torch.mul(part.q, factor, out=torch.empty_like(part.q))  # rounded in there
            add_product(dk, kept.T, scaled, alpha, first=start == 0)
    if need_q and alpha != 1.0:
        dq.mul_(alpha)
    return torch.cat(rows, 1), dq, dk
