"""Launchers of the softmax contrast: allocate, launch on the current stream, never wait.

Which kernel runs for what is here; which tile it uses is in info_nce_config.
"""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from .. import reference
from . import info_nce_config as config
from .info_nce_backward import coefficients_kernel, own_kernel, weights_kernel
from .info_nce_combine import fold_kernel, statistics_kernel, weighted_kernel
from .info_nce_forward import online_kernel, positives_kernel, sums_kernel
from .info_nce_frozen import frozen_kernel
from .info_nce_tile import id_range_kernel

BLOCK = 128  # entries of a vector one program handles
PARTS = 16  # partial sums it loads at once


class Problem(NamedTuple):
    """The rows, the columns and what their logits are made of."""

    q: Tensor  # [n, d]
    k: Tensor  # [m, d]
    row_ids: Tensor | None  # [n]
    col_ids: Tensor | None  # [m]
    scale: float
    logit_scale: Tensor | None  # []
    symmetric: bool
    plan: config.Plan

    def exchanged(self) -> "Problem":
        """Columns as rows."""
        return self._replace(q=self.k, k=self.q, row_ids=self.col_ids, col_ids=self.row_ids)

    def ranges(self, rows: int, columns: int) -> tuple[Tensor | None, Tensor | None]:
        """Lowest and highest id of every tile of rows and of columns."""
        if self.row_ids is None:
            return None, None
        row_range = id_ranges(self.row_ids, rows)
        if rows == columns and self.col_ids.data_ptr() == self.row_ids.data_ptr():
            return row_range, row_range
        return row_range, id_ranges(self.col_ids, columns)

    def operands(self, tile: config.Tile, depth: int) -> tuple:
        """q and k as a kernel of this tile takes them, with the scale and the ids."""
        q = config.descriptor(self.q, tile.rows, depth, self.plan.bulk)
        k = config.descriptor(self.k, tile.columns, depth, self.plan.bulk)
        ids = self.row_ids, self.col_ids, *self.ranges(tile.rows, tile.columns)
        return q, k, self.scale, self.logit_scale, *ids

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.q.shape[0], self.k.shape[0], self.q.shape[1]


def problem(q, k, row_ids, col_ids, scale, logit_scale, symmetric) -> Problem:
    q = q.contiguous()
    k = q if symmetric else k.contiguous()
    if row_ids is not None:
        row_ids, col_ids = row_ids.contiguous(), col_ids.contiguous()
    return Problem(
        q, k, row_ids, col_ids, scale, logit_scale, symmetric, config.plan(q, k)
    )  # fmt: skip


def options(tile: config.Tile) -> dict:
    return {"num_warps": tile.warps, "num_stages": tile.stages, "enable_fp_fusion": True}


def id_ranges(ids: Tensor, block: int) -> Tensor:
    tiles = triton.cdiv(ids.shape[0], block)
    out = ids.new_empty(tiles, 2)
    id_range_kernel[(tiles,)](ids, out, ids.shape[0], block)
    return out


def empty(like: Tensor, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=like.device)


class Sums(NamedTuple):
    """Partial sums over the negatives; what is absent is None."""

    parts: Tensor | None  # [strips, n] log2
    state: Tensor | None  # [n] float64 log2, what came down the columns
    rank: Tensor | None  # [strips, n]


def fixed_sums(p: Problem, pivot: Tensor | None, columns: bool) -> tuple[Sums, Tensor | None]:
    """Sums of the rows, and down the columns; in a triangle the columns are rows too."""
    (n, m, d), tile = p.sizes, p.plan.sums
    row_tiles, col_tiles = triton.cdiv(n, tile.rows), triton.cdiv(m, tile.columns)
    launch_tiles = min(row_tiles, config.LAUNCH_TILES) if columns else row_tiles
    triangle = p.symmetric and columns
    # A triangle's programs differ in length: shorter ones even out.
    slots = p.plan.processors * (4 if triangle else 2)
    strips, strip = config.strips(launch_tiles, col_tiles, slots)
    parts = empty(p.q, strips, n)
    rank = None if pivot is None else empty(p.q, strips, n, dtype=torch.int32)
    down = empty(p.q, launch_tiles, m) if columns else None
    state = empty(p.q, m, dtype=torch.float64) if columns else None
    operands = p.operands(tile, tile.depth)
    whole = config.whole(tile, d)
    for first in range(0, row_tiles, launch_tiles):
        count = min(launch_tiles, row_tiles - first)
        sums_kernel[(count, strips)](
            *operands, pivot, parts, down, rank, first, strip, n, m, d,
            tile.rows, tile.columns, tile.depth, whole, p.plan.bulk, p.plan.precision,
            p.symmetric, **options(tile),
        )  # fmt: skip
        if columns:
            fold_kernel[(triton.cdiv(m, BLOCK),)](
                down, state, first, count, m, tile.columns, PARTS, BLOCK, triangle
            )
    return Sums(parts, state if triangle else None, rank), state


def online_sums(p: Problem, pivot: Tensor | None, flags: Tensor | None = None) -> Sums:
    """Sums of any rows under a running maximum, or of the row tiles that are flagged."""
    (n, m, d), tile = p.sizes, p.plan.sums
    row_tiles, col_tiles = triton.cdiv(n, tile.rows), triton.cdiv(m, tile.columns)
    strips, strip = config.strips(row_tiles, col_tiles, p.plan.processors * 2)
    parts = empty(p.q, strips, n)
    rank = None if pivot is None else empty(p.q, strips, n, dtype=torch.int32)
    online_kernel[(row_tiles, strips)](
        *p.operands(tile, tile.depth), pivot, flags, parts, rank, strip, n, m, d,
        tile.rows, tile.columns, tile.depth, config.whole(tile, d), p.plan.bulk,
        p.plan.precision, p.symmetric, **options(tile),
    )  # fmt: skip
    return Sums(parts, None, rank)


def positive_sums(p: Problem) -> Tensor:
    """Sums over the positives of every row: [strips, 3, n]."""
    (n, m, d), tile = p.sizes, config.POSITIVES
    row_tiles, col_tiles = triton.cdiv(n, tile.rows), triton.cdiv(m, tile.columns)
    strips, strip = config.strips(row_tiles, col_tiles, p.plan.processors * 4)
    out = empty(p.q, strips, 3, n)
    pointers = p._replace(plan=p.plan._replace(bulk=False))
    positives_kernel[(row_tiles, strips)](
        *pointers.operands(tile, tile.depth), out, strip, n, m, d,
        tile.rows, tile.depth, config.SCAN, p.plan.precision, p.symmetric, **options(tile),
    )  # fmt: skip
    return out


def finish(
    p: Problem,
    sums: Sums,
    positives: Tensor | None,
    extra: Tensor | None,
    positives_in: bool,
    fixed: bool,
) -> tuple[Tensor, Tensor]:
    """Statistics [4, n] and rank [n] from the sums, repaired where the fixed shift failed."""
    n, block = p.sizes[0], p.plan.sums.rows
    grid = (triton.cdiv(n, block),)
    rows = empty(p.q, 4, n)
    rank = empty(p.q, 0 if sums.rank is None else n, dtype=torch.int64)
    flags = empty(p.q, grid[0], dtype=torch.int32) if fixed else None

    def combine(sums: Sums, only: Tensor | None, flags: Tensor | None) -> None:
        statistics_kernel[grid](
            sums.parts, 0 if sums.parts is None else sums.parts.shape[0], sums.state,
            positives, 0 if positives is None else positives.shape[0], extra, sums.rank,
            p.scale, p.logit_scale, only, flags, rows, None if sums.rank is None else rank,
            n, PARTS, block, positives_in,
        )  # fmt: skip

    combine(sums, None, flags)
    if fixed:
        combine(online_sums(p, None, flags), flags, None)
    return rows, rank


def frozen_statistics(p: Problem, extra: Tensor | None, pivot: Tensor | None):
    """Statistics, rank and weighted sum of the columns in one pass over them."""
    (n, m, d), tile = p.sizes, p.plan.own
    row_tiles, col_tiles = triton.cdiv(n, tile.rows), triton.cdiv(m, tile.columns)
    strips, strip = config.strips(row_tiles, col_tiles, p.plan.processors)
    parts, weighted_parts = empty(p.q, strips, n), empty(p.q, strips, n, d)
    rank = None if pivot is None else empty(p.q, strips, n, dtype=torch.int32)
    frozen_kernel[(row_tiles, strips)](
        *p.operands(tile, tile.depth), pivot, parts, rank, weighted_parts, strip, n, m, d,
        tile.rows, tile.columns, tile.depth, p.plan.bulk, p.plan.precision, **options(tile),
    )  # fmt: skip
    rows, rank = finish(p, Sums(parts, None, rank), None, extra, True, False)
    weighted = empty(p.q, n, d)
    weighted_kernel[(n,)](
        weighted_parts, parts, rows, weighted, strips, n, d, PARTS, triton.next_power_of_2(d)
    )
    return rows, rank, weighted


def info_nce_forward(
    q, k, scale, logit_scale, row_ids, col_ids, extra, pivot,
    symmetric, both, positives_in, unit, frozen,
):  # fmt: skip
    """`reference.info_nce_forward` without the n x m matrix."""
    if not config.supported(q):
        return reference.info_nce_forward(
            q, k, scale, logit_scale, row_ids, col_ids, extra, pivot,
            symmetric, both, positives_in, unit, frozen,
        )  # fmt: skip
    p = problem(q, k, row_ids, col_ids, scale, logit_scale, symmetric)
    n, m, d = p.sizes
    cols, weighted = empty(q, 4, m if both else 0), empty(q, 0, d)
    if n == 0:
        rank = empty(q, 0, dtype=torch.int64)
        return empty(q, 4, 0), cols.fill_(-torch.inf), rank, weighted
    aside = row_ids is None or extra is not None
    with torch.cuda.device_of(q):
        if frozen and aside and not (symmetric or both) and p.plan.own is not None:
            rows, rank, weighted = frozen_statistics(p, extra, pivot)
            return rows, cols, rank, weighted
        down = None
        if unit:
            sums, down = fixed_sums(p, pivot, both or (symmetric and pivot is None))
        else:
            sums = online_sums(p, pivot)
        positives = None if aside else positive_sums(p)
        rows, rank = finish(p, sums, positives, extra, positives_in, unit)
        if both:
            turned = p.exchanged()
            if positives is not None:
                positives = positive_sums(turned)
            sums = Sums(None, down, None) if unit else online_sums(turned, None)
            cols, _ = finish(turned, sums, positives, None, positives_in and extra is None, unit)
        if frozen:
            total = torch.full((), scale, device=q.device)
            total = total if logit_scale is None else total * logit_scale.float()
            ones = torch.ones_like(rows[0])
            coef = coefficients(p, ones, None, rows, 1 / total, None, True, True)
            weighted = gradients(p, coef, None, None, True, False)[0]
    return rows, cols, rank, weighted


def coefficients(p: Problem, grad_loss, grad_positive, stats, lift, wide, positives_in, extra):
    """What rows (or columns) contribute to the weights: [4, n], None where no gradient comes."""
    if grad_loss is None and grad_positive is None:
        return None
    n = stats.shape[1]
    out = torch.empty_like(stats)
    coefficients_kernel[(triton.cdiv(n, BLOCK),)](
        grad_loss, grad_positive, stats, p.scale, p.logit_scale, lift, out, wide, n,
        BLOCK, positives_in, extra,
    )  # fmt: skip
    return out


def own_gradient(p: Problem, row_coef, col_coef, wide) -> Tensor:
    """sum_j G_ij k_j with the rows' sums in registers: [n, d]."""
    (n, m, d), tile = p.sizes, p.plan.own
    row_tiles, col_tiles = triton.cdiv(n, tile.rows), triton.cdiv(m, tile.columns)
    strips, strip = config.strips(row_tiles, col_tiles, p.plan.processors)
    out = empty(p.q, strips, n, d)
    own_kernel[(row_tiles, strips)](
        *p.operands(tile, tile.depth), row_coef, col_coef, wide, out, strip, n, m, d,
        tile.rows, tile.columns, tile.depth, p.plan.bulk, p.plan.precision, p.symmetric,
        **options(tile),
    )  # fmt: skip
    return out[0] if strips == 1 else out.sum(0)


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b with float32 sums of narrower factors."""
    if a.dtype == torch.float32:
        total.addmm_(a, b)
    elif a.is_cuda:
        torch.ops.aten.addmm.dtype_out(total, a, b, torch.float32, out=total)
    else:
        total.addmm_(a.float(), b.float())


def chunk_gradients(p: Problem, row_coef, col_coef, wide, need_q: bool, need_k: bool):
    """Both gradients from chunks of G [CHUNK, CHUNK]; in a symmetric G half of them."""
    (n, m, d), tile, size = p.sizes, p.plan.weights, config.CHUNK
    triangle = p.symmetric and row_coef is not None and row_coef is col_coef
    need_k = need_k and not p.symmetric
    dq = torch.zeros(n if need_q else 0, d, device=p.q.device)
    dk = torch.zeros(m if need_k else 0, d, device=p.q.device)
    operands = p.operands(tile, tile.depth)
    buffer = empty(p.q, min(n, size) * min(m, size), dtype=p.q.dtype)
    for i in range(0, n, size):
        rows = min(size, n - i)
        for j in range(i if triangle else 0, m, size):
            width = min(size, m - j)
            g = buffer[: rows * width].view(rows, width)
            weights_kernel[(triton.cdiv(rows, tile.rows), triton.cdiv(width, tile.columns))](
                *operands, row_coef, col_coef, wide, g, i, j, width, n, m, d,
                tile.rows, tile.columns, tile.depth, config.whole(tile, d), p.plan.bulk,
                p.plan.precision, p.symmetric, **options(tile),
            )  # fmt: skip
            if need_q:
                add_product(dq[i : i + rows], g, p.k[j : j + width])
            if need_k:
                add_product(dk[j : j + width], g.T, p.q[i : i + rows])
            if triangle and j > i:
                add_product(dq[j : j + width], g.T, p.q[i : i + rows])
    return dq, dk


def gradients(p: Problem, row_coef, col_coef, wide, need_q: bool, need_k: bool):
    """dq [n, d] and dk [m, d], [0, d] where not needed."""
    if p.plan.own is None:
        return chunk_gradients(p, row_coef, col_coef, wide, need_q, need_k)
    dq = dk = empty(p.q, 0, p.sizes[2])
    if need_q:
        dq = own_gradient(p, row_coef, col_coef, wide)
    if need_k:
        dk = own_gradient(p.exchanged(), col_coef, row_coef, wide)
    return dq, dk


def lift_factor(p: Problem, grads) -> Tensor | None:
    """Brings the weights of float16 rows to at most 2^13: below 2^-14 they would lose bits."""
    if p.q.dtype != torch.float16:
        return None
    total = p.scale if p.logit_scale is None else p.scale * p.logit_scale.float().abs()
    bound = sum(g.abs().amax() for g in grads if g is not None) * total
    return 4096 / bound.clamp(min=1e-30)


def info_nce_backward(
    grad_loss, grad_positive, grad_col_loss, grad_col_positive, q, k, scale, logit_scale,
    row_ids, col_ids, rows, cols, symmetric, positives_in, extra, unit, need_q, need_k,
):  # fmt: skip
    """`reference.info_nce_backward` without the n x m matrix."""
    if not config.supported(q):
        return reference.info_nce_backward(
            grad_loss, grad_positive, grad_col_loss, grad_col_positive, q, k, scale, logit_scale,
            row_ids, col_ids, rows, cols, symmetric, positives_in, extra, unit, need_q, need_k,
        )  # fmt: skip
    p = problem(q, k, row_ids, col_ids, scale, logit_scale, symmetric)
    n, m, d = p.sizes
    need_q, need_k = need_q or symmetric, need_k and not symmetric
    grads = [
        None if g is None else g.contiguous()
        for g in (grad_loss, grad_positive, grad_col_loss, grad_col_positive)
    ]
    if n == 0 or m == 0 or all(g is None for g in grads):
        shapes = (n if need_q else 0, d), (m if need_k else 0, d)
        return tuple(torch.zeros(shape, device=q.device) for shape in shapes)
    with torch.cuda.device_of(q):
        lift = lift_factor(p, grads)
        two_sided = symmetric or (grads[0] is not None and grads[2] is not None)
        wide = None
        if two_sided:  # rows that are not unit can be far apart
            wide = torch.full((1,), 0 if unit else 1, dtype=torch.int32, device=q.device)
        row_coef = coefficients(p, *grads[:2], rows, lift, wide, positives_in, extra)
        col_coef = coefficients(p, *grads[2:], cols, lift, wide, positives_in, extra)
        if symmetric:
            col_coef = row_coef
        dq, dk = gradients(p, row_coef, col_coef, wide, need_q, need_k)
        if lift is not None:
            dq, dk = dq / lift, dk / lift
    return dq, dk
