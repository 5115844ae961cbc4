"""Launchers of the forward softmax contrast: allocate, launch on the current stream, never wait."""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from . import contrast_common as common
from . import contrast_config as config
from . import contrast_hopper as hopper
from .chunks import pitch_of
from .contrast_combine import fold_kernel, statistics_kernel, weighted_kernel
from .contrast_common import Operands
from .contrast_forward import online_kernel, positives_kernel, sums_kernel
from .contrast_frozen import frozen_kernel
from .contrast_gradient import Sides, coefficients, gradients


class Sums(NamedTuple):
    """Partial sums over the negatives; what is absent is None."""

    parts: Tensor | None  # [strips, n]
    tops: Tensor | None  # [strips, n] log2 of their units; None: the fixed shift
    state: Tensor | None  # [n] float64, what came down the columns
    rank: Tensor | None  # [strips, n]


def fixed_sums(
    p: Operands, pivot: Tensor | None, columns: bool, kept: Tensor | None = None
) -> tuple[Sums, Tensor | None]:
    """Sums of the rows, and down the columns; in a triangle the columns are rows too. kept
    [n, m] gets the exponentials.
    """
    if hopper.serves(p, pivot, columns):
        parts, state = hopper.fixed_sums(p)
        return Sums(parts, None, None, None), state
    (n, m, d), tile = p.sizes, p.plan.sums
    row_tiles, col_tiles = triton.cdiv(n, tile.rows), triton.cdiv(m, tile.columns)
    launch_tiles = min(row_tiles, config.LAUNCH_TILES) if columns else row_tiles
    triangle = p.symmetric and columns
    # A triangle's programs differ in length: shorter ones even out.
    slots = config.slots(tile, p.plan.processors) * (4 if triangle else 2)
    strips, strip = config.strips(launch_tiles, col_tiles, slots)
    parts = common.empty(p.q, strips, n)
    rank = None if pivot is None else common.empty(p.q, strips, n, dtype=torch.int32)
    down = common.empty(p.q, launch_tiles, m) if columns else None
    state = common.empty(p.q, m, dtype=torch.float64) if columns else None
    operands, whole = p.of(tile, tile.depth), config.whole(tile, d)
    held, guide = p.held(tile)
    for first in range(0, row_tiles, launch_tiles):
        count = min(launch_tiles, row_tiles - first)
        sums_kernel[(count, strips)](
            *operands, *held, pivot, parts, down, rank, kept, pitch_of(kept), first, strip, n, m, d,
            tile.rows, tile.columns, tile.depth, whole, p.plan.precision, p.symmetric, *guide,
            **common.options(tile),
        )  # fmt: skip
        if columns:
            fold_kernel[(triton.cdiv(m, common.BLOCK),)](
                down, state, first, count, m,
                tile.rows, max(tile.rows, tile.columns), common.PARTS, common.BLOCK, triangle,
            )  # fmt: skip
    return Sums(parts, None, state if triangle else None, rank), state


def online_sums(p: Operands, pivot: Tensor | None, flags: Tensor | None = None) -> Sums:
    """Sums of any rows under a running maximum, or of the row tiles that are flagged."""
    (n, m, d), tile = p.sizes, p.plan.sums
    row_tiles, col_tiles = triton.cdiv(n, tile.rows), triton.cdiv(m, tile.columns)
    strips, strip = config.strips(row_tiles, col_tiles, 2 * config.slots(tile, p.plan.processors))
    parts, tops = common.empty(p.q, strips, n), common.empty(p.q, strips, n)
    rank = None if pivot is None else common.empty(p.q, strips, n, dtype=torch.int32)
    held, guide = p.held(tile)
    online_kernel[(row_tiles, strips)](
        *p.of(tile, tile.depth), *held, pivot, flags, parts, tops, rank, strip, n, m, d,
        tile.rows, tile.columns, tile.depth, config.whole(tile, d),
        p.plan.precision, p.symmetric, *guide, **common.options(tile),
    )  # fmt: skip
    return Sums(parts, tops, None, rank)


def positive_strips(p: Operands) -> tuple[int, int, int]:
    """Row tiles of a kernel over the positives, strips of columns, column tiles of a strip."""
    (n, m, _), tile = p.sizes, config.POSITIVES
    row_tiles, col_tiles = triton.cdiv(n, tile.rows), triton.cdiv(m, tile.columns)
    return row_tiles, *config.strips(row_tiles, col_tiles, p.plan.processors * 4)


def positive_sums(p: Operands) -> Tensor:
    """Sums over the positives of every row: [strips, 4, n]."""
    (n, m, d), tile = p.sizes, config.positives_tile(p.q.element_size())
    row_tiles, strips, strip = positive_strips(p)
    out = common.empty(p.q, strips, 4, n)
    positives_kernel[(row_tiles, strips)](
        *p.pointers(tile), out, strip, n, m, d,
        tile.rows, tile.depth, config.SCAN, p.plan.precision, p.symmetric, **common.options(tile),
    )  # fmt: skip
    return out


def finish(
    p: Operands,
    sums: Sums,
    positives: Tensor | None,
    extra: Tensor | None,
    positives_in: bool,
    fixed: bool,
) -> tuple[Tensor, Tensor]:
    """Statistics [4, n] and rank [n] from the sums, repaired where the fixed shift failed."""
    n, block = p.sizes[0], p.plan.sums.rows
    grid = (triton.cdiv(n, block),)
    rows = common.empty(p.q, 4, n)
    rank = common.empty(p.q, 0 if sums.rank is None else n, dtype=torch.int64)
    fallible = fixed and (p.logit_scale is not None or p.scale > config.SAFE_SCALE)
    flags = common.empty(p.q, grid[0], dtype=torch.int32) if fallible else None

    def combine(sums: Sums, only: Tensor | None, flags: Tensor | None) -> None:
        statistics_kernel[grid](
            sums.parts, sums.tops, 0 if sums.parts is None else sums.parts.shape[0], sums.state,
            positives, 0 if positives is None else positives.shape[0], extra, sums.rank,
            p.scale, p.logit_scale, only, flags, rows, None if sums.rank is None else rank,
            n, common.PARTS, block, positives_in,
        )  # fmt: skip

    combine(sums, None, flags)
    if fallible:
        combine(online_sums(p, None, flags), flags, None)
    return rows, rank


def frozen_sums(p: Operands, pivot: Tensor | None) -> tuple[Sums, Tensor]:
    """Sums of the rows, and [strips, n, d] of the columns, weighted, in the same units."""
    (n, m, d), tile = p.sizes, p.plan.frozen
    row_tiles, col_tiles = triton.cdiv(n, tile.rows), triton.cdiv(m, tile.columns)
    strips, strip = config.strips(row_tiles, col_tiles, config.slots(tile, p.plan.processors))
    parts, tops = common.empty(p.q, strips, n), common.empty(p.q, strips, n)
    weighted = common.empty(p.q, strips, n, d)
    rank = None if pivot is None else common.empty(p.q, strips, n, dtype=torch.int32)
    frozen_kernel[(row_tiles, strips)](
        *p.of(tile, tile.depth), p.side_limits[0], pivot, parts, tops, rank, weighted,
        strip, n, m, d, tile.rows, tile.columns, tile.depth, p.plan.precision,
        **common.options(tile),
    )  # fmt: skip
    return Sums(parts, tops, None, rank), weighted


def frozen_statistics(p: Operands, extra: Tensor | None, pivot: Tensor | None):
    """Statistics, rank and weighted sum of the columns in one pass over them."""
    n, _, d = p.sizes
    sums, strips = frozen_sums(p, pivot)
    rows, rank = finish(p, sums, None, extra, True, False)
    weighted = common.empty(p.q, n, d)
    weighted_kernel[(n,)](
        strips, sums.tops, rows, weighted, len(strips), n, d,
        common.PARTS, triton.next_power_of_2(d),
    )  # fmt: skip
    return rows, rank, weighted


def statistics(
    p: Operands,
    extra: Tensor | None,  # [n] similarity of a positive that is no column
    pivot: Tensor | None,  # [n]
    both: bool,
    positives_in: bool,
    unit: bool,
    finishes: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`reference.contrast_forward` of rows as they go into the products."""
    n, m, d = p.sizes
    cols, weighted = common.empty(p.q, 4, m if both else 0), common.empty(p.q, 0, d)
    if n == 0:
        rank = common.empty(p.q, 0, dtype=torch.int64)
        return common.empty(p.q, 4, 0), cols.fill_(-torch.inf), rank, weighted
    if finishes and p.plan.frozen is not None:
        rows, rank, weighted = frozen_statistics(p, extra, pivot)
        return rows, cols, rank, weighted
    down, aside = None, p.row_ids is None or extra is not None
    if unit:
        sums, down = fixed_sums(p, pivot, both or (p.symmetric and pivot is None))
    else:
        sums = online_sums(p, pivot)
    positives = None if aside else positive_sums(p)
    rows, rank = finish(p, sums, positives, extra, positives_in, unit)
    if both:
        turned = p.exchanged()
        if positives is not None:
            positives = positive_sums(turned)
        sums = Sums(None, None, down, None) if unit else online_sums(turned, None)
        cols, _ = finish(turned, sums, positives, None, positives_in, unit)
    if finishes:
        total = torch.full((), p.scale, device=p.q.device)
        total = total if p.logit_scale is None else total * p.logit_scale.float()
        ones = torch.ones_like(rows[0])
        coef = coefficients(p, ones, None, rows, 1 / total, None, True, True)
        weighted = gradients(p, Sides(coef, None, None, (False,)), True, False)[0]
    return rows, cols, rank, weighted
