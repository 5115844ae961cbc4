"""Launchers of the gradient of the softmax contrast: allocate, launch, never wait."""

import torch
import triton
from torch import Tensor

from .. import reference
from . import info_nce_common as common
from . import info_nce_config as config
from .info_nce_backward import coefficients_kernel, own_kernel, weights_kernel
from .info_nce_common import Problem


def coefficients(p: Problem, grad_loss, grad_positive, stats, lift, wide, positives_in, extra):
    """What rows (or columns) contribute to the weights: [4, n], None where no gradient comes."""
    if grad_loss is None and grad_positive is None:
        return None
    n = stats.shape[1]
    out = torch.empty_like(stats)
    coefficients_kernel[(triton.cdiv(n, common.BLOCK),)](
        grad_loss, grad_positive, stats, p.scale, p.logit_scale, lift, out, wide, n,
        common.BLOCK, positives_in, extra,
    )  # fmt: skip
    return out


def own_gradient(p: Problem, row_coef, col_coef, wide) -> Tensor:
    """sum_j G_ij k_j with the rows' sums in registers: [n, d]."""
    (n, m, d), tile = p.sizes, p.plan.own
    row_tiles, col_tiles = triton.cdiv(n, tile.rows), triton.cdiv(m, tile.columns)
    strips, strip = config.strips(row_tiles, col_tiles, p.plan.processors)
    out = common.empty(p.q, strips, n, d)
    own_kernel[(row_tiles, strips)](
        *p.operands(tile, tile.depth), row_coef, col_coef, wide, out, strip, n, m, d,
        tile.rows, tile.columns, tile.depth, p.plan.precision, p.symmetric,
        **common.options(tile),
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
    buffer = common.empty(p.q, min(n, size) * min(m, size), dtype=p.q.dtype)
    for i in range(0, n, size):
        rows = min(size, n - i)
        for j in range(i if triangle else 0, m, size):
            width = min(size, m - j)
            g = buffer[: rows * width].view(rows, width)
            weights_kernel[(triton.cdiv(rows, tile.rows), triton.cdiv(width, tile.columns))](
                *operands, row_coef, col_coef, wide, g, i, j, width, n, m, d,
                tile.rows, tile.columns, tile.depth, config.whole(tile, d),
                p.plan.precision, p.symmetric, **common.options(tile),
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
    dq = dk = common.empty(p.q, 0, p.sizes[2])
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
    p = common.problem(q, k, row_ids, col_ids, scale, logit_scale, symmetric)
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
