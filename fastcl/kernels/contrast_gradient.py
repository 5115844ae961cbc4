"""Launchers of the gradient of the softmax contrast: allocate, launch, never wait."""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from . import contrast_common as common
from . import contrast_config as config
from .chunks import Chunk, chunk_gradients, pitch_of
from .contrast_backward import own_kernel, weights_kernel
from .contrast_coefficients import COEFFICIENTS, coefficients_kernel
from .contrast_common import Operands


class Sides(NamedTuple):
    """What rows and columns contribute to the weights, and the kernels that may be needed."""

    rows: Tensor | None  # [6, n]; None where no gradient comes
    cols: Tensor | None  # [6, m]
    wide: Tensor | None  # [] int32: on the device, whether factors leave float32
    shared: tuple[bool, ...]  # launches: one exponential for both, or one for each

    def exchanged(self) -> "Sides":
        return self._replace(rows=self.cols, cols=self.rows)


def coefficients(p: Operands, grad_loss, grad_positive, stats, lift, wide, positives_in, extra):
    """What rows (or columns) contribute to the weights: [6, n], None where no gradient comes."""
    if grad_loss is None and grad_positive is None:
        return None
    n = stats.shape[1]
    out = common.empty(stats, COEFFICIENTS, n)
    coefficients_kernel[(triton.cdiv(n, common.BLOCK),)](
        grad_loss, grad_positive, stats, p.scale, p.logit_scale, lift, out, wide, n,
        common.BLOCK, positives_in, extra,
    )  # fmt: skip
    return out


def both_sides(p: Operands, grads, rows, cols, lift, positives_in, extra, unit: bool) -> Sides:
    """Coefficients of the rows and, but in a symmetric problem, of the columns."""
    shared, wide = (False,), None
    if unit and (p.symmetric or (any_of(grads[:2]) and any_of(grads[2:]))):
        shared = (True,)
        # Unit rows at a lower scale stay near the shift: e^(2 scale) is a float32 number.
        if p.logit_scale is not None or p.scale > config.NEAR_SCALE:
            shared = (True, False)
            wide = torch.zeros(1, dtype=torch.int32, device=p.q.device)
    row_coef = coefficients(p, *grads[:2], rows, lift, wide, positives_in, extra)
    if p.symmetric:
        return Sides(row_coef, row_coef, wide, shared)
    col_coef = coefficients(p, *grads[2:], cols, lift, wide, positives_in, extra)
    return Sides(row_coef, col_coef, wide, shared)


def any_of(grads) -> bool:
    return any(g is not None for g in grads)


def tile_for(whole: config.Tile, sides: Sides, shared: bool) -> config.Tile:
    """The tile, or half of it where every logit has an exponential for each side."""
    apart = not shared and sides.rows is not None and sides.cols is not None
    columns = max(whole.columns // 2, config.LEAST_DEPTH)
    return whole._replace(columns=columns) if apart else whole


def own_gradient(p: Operands, sides: Sides) -> Tensor:
    """sum_j G_ij k_j with the rows' sums in registers: [n, d]."""
    (n, m, d), whole = p.sizes, p.plan.own
    row_tiles, col_tiles = triton.cdiv(n, whole.rows), triton.cdiv(m, whole.columns)
    strips, strip = config.strips(row_tiles, col_tiles, config.slots(whole, p.plan.processors))
    out = common.empty(p.q, strips, n, d)
    for shared in sides.shared:
        tile = tile_for(whole, sides, shared)
        own_kernel[(row_tiles, strips)](
            *p.of(tile, tile.depth), *p.side_limits, sides.rows, sides.cols, sides.wide, out,
            strip * (whole.columns // tile.columns), n, m, d,
            tile.rows, tile.columns, tile.depth, p.plan.precision, p.symmetric, shared,
            **common.options(tile),
        )  # fmt: skip
    return out[0] if strips == 1 else out.sum(0)


def chunked(p: Operands, sides: Sides, need_q: bool, need_k: bool):
    """dq and dk from chunks of G; half of them in a symmetric one."""
    n, m, d = p.sizes
    launches = []
    for shared in sides.shared:
        tile = tile_for(p.plan.weights, sides, shared)
        held, guide = p.held(tile)
        launches.append((shared, tile, (*p.of(tile, tile.depth), *held), guide))

    def fill(chunk: Chunk) -> None:
        rows, columns = chunk.shape
        for shared, tile, operands, guide in launches:
            weights_kernel[(triton.cdiv(rows, tile.rows), triton.cdiv(columns, tile.columns))](
                *operands, sides.rows, sides.cols, sides.wide, chunk.weights,
                *chunk.corner, pitch_of(chunk.weights), n, m, d,
                tile.rows, tile.columns, tile.depth, config.whole(tile, d),
                p.plan.precision, p.symmetric, shared, *guide, **common.options(tile),
            )  # fmt: skip

    return chunk_gradients(p, fill, need_q, need_k and not p.symmetric, is_triangle(p, sides))


def is_triangle(p: Operands, sides: Sides) -> bool:
    """Whether G is symmetric."""
    return p.symmetric and sides.cols is sides.rows


def gradients(p: Operands, sides: Sides, need_q: bool, need_k: bool):
    """dq [n, d] and dk [m, d], [0, d] where not needed."""
    twice = is_triangle(p, sides) or (need_q and need_k)  # own rows would form every logit twice
    if p.plan.own is None or (twice and p.sizes[2] > config.BOTH_WIDTH):
        return chunked(p, sides, need_q, need_k)
    dq = dk = common.empty(p.q, 0, p.sizes[2])
    if need_q:
        dq = own_gradient(p, sides)
    if need_k:
        dk = own_gradient(p.exchanged(), sides.exchanged())
    return dq, dk


def lift_factor(p: Operands, grads) -> Tensor | None:
    """Brings the weights of float16 rows to at most 2^13: below 2^-14 they would lose bits."""
    if p.q.dtype != torch.float16:
        return None
    total = p.scale if p.logit_scale is None else p.scale * p.logit_scale.float().abs()
    bound = sum(g.abs().amax() for g in grads if g is not None) * total
    return 4096 / bound.clamp(min=1e-30)


def problem_gradients(
    p: Operands, grads, rows, cols, positives_in: bool, extra: bool, unit: bool,
    need_q: bool, need_k: bool,
):  # fmt: skip
    """dq [n, d] and dk [m, d], [0, d] where not needed, from four gradients, not all None."""
    lift = lift_factor(p, grads)
    sides = both_sides(p, grads, rows, cols, lift, positives_in, extra, unit)
    dq, dk = gradients(p, sides, need_q, need_k)
    return (dq, dk) if lift is None else (dq / lift, dk / lift)
