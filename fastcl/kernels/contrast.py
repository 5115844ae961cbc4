"""The softmax contrast on a GPU: which launches serve which problem, and what they have in common.

    extra_i = <q_i, own_i>,  dq_i += pull_i own_i,  d_own_i = pull_i q_i,
    pull_i = scale (grad_loss_i (p_i - 1) + grad_positive_i)
Rows are divided by their length once, in their own dtype; gradients stay in float32 until they are
those of the rows as they came. The mean comes with its gradients, so that what the ids of a tile
span is found once, with three products where exponentials are kept (contrast_kept), and in four
launches with a constant key and constant columns (contrast_frozen_mean).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .. import reference
from ..contrast.problem import Problem
from . import contrast_common as common
from . import contrast_config as config
from .contrast_common import Operands
from .contrast_frozen_mean import frozen_mean
from .contrast_gradient import problem_gradients
from .contrast_kept import unit_gradients
from .contrast_statistics import statistics
from .unit_rows import project, unit_rows_forward


class Prepared(NamedTuple):
    """A problem's rows as they go into the products, and the lengths of those divided."""

    p: Problem
    operands: Operands
    own: Tensor | None  # [n, d]
    extra: Tensor | None  # [n]
    lengths: tuple[Tensor | None, Tensor | None, Tensor | None]  # of q, k and own


def prepared(p: Problem) -> Prepared:
    def of(parts, normalize):
        if normalize:
            return unit_rows_forward(parts)
        return (parts[0] if len(parts) == 1 else torch.cat(list(parts))), None

    q, q_lengths = of(p.q, p.normalize_q)
    k, k_lengths = (q, None) if p.symmetric else of(p.k, p.normalize_k)
    own, own_lengths, extra = None, None, None
    if p.own is not None:
        if _is(p.own, p.k) and p.normalize_own == p.normalize_k:
            own, own_lengths = k, k_lengths
        else:
            own, own_lengths = of([p.own], p.normalize_own)
        extra = (q.float() * own.float()).sum(1)
    operands = common.operands(q, k, *p.ids, p.scale, p.logit_scale, p.symmetric)
    return Prepared(p, operands, own, extra, (q_lengths, k_lengths, own_lengths))


def _is(x: Tensor, parts) -> bool:
    """Whether the rows lie where the first part has them, as a constant key beside its column."""
    if len(parts) != 1 or x.shape != parts[0].shape:
        return False
    a, b = x.untyped_storage(), parts[0].untyped_storage()
    return a._cdata == b._cdata and x.storage_offset() == parts[0].storage_offset()


def finished(x: Prepared, dq, dk, pull, need_q, need_k, need_own, need_scale):
    """Gradients of the rows as they went into the products become those of the rows as they came;
    pull() is the gradient of the similarities of own, before the scale."""
    p, q = x.p, x.operands.q
    d_own, slope, beside = common.empty(q, 0, p.width), common.empty(q, 0), 0.0
    if x.own is not None and (need_q or need_own):
        weight = pull() * p.scale
        weight = weight if p.logit_scale is None else weight * p.logit_scale.float()
        if need_q:
            dq = torch.addcmul(dq, weight[:, None], x.own.float())
        if need_own:
            d_own = weight[:, None] * q.float()
        if need_scale and p.symmetric:
            beside = (weight * x.extra).sum()
    q_lengths, k_lengths, own_lengths = x.lengths
    dots = common.empty(dq, len(dq)) if need_scale and q_lengths is not None else None
    if need_scale and dots is None:
        slope = (q.float() * dq).sum()[None]
    if q_lengths is not None and len(dq):
        dq = project(dq, p.q, q_lengths, dots)
    if k_lengths is not None and len(dk):
        dk = project(dk, p.k, k_lengths, None)
    if own_lengths is not None and need_own:
        d_own = project(d_own, [p.own], own_lengths, None)
    if dots is not None:
        slope = dots.sum()[None]
    # Each logit is linear in the scale; a symmetric one is counted twice, that of own is not.
    return dq, dk, d_own, (slope + beside) / 2 if need_scale and p.symmetric else slope


def contrast_forward(p: Problem, pivot, need_q: bool, need_k: bool):
    """`reference.contrast_forward` without the n x m matrix."""
    if not config.supported(p.q[0]):
        return reference.contrast_forward(p, pivot, need_q, need_k)
    x, finishes = prepared(p), p.finishes(need_q, need_k)
    return statistics(x.operands, x.extra, pivot, p.both, p.positives_in, p.unit, finishes)


def contrast_backward(
    p: Problem, rows, cols, weighted, grad_loss, grad_positive, grad_col_loss, grad_col_positive,
    need_q: bool, need_k: bool, need_own: bool, need_scale: bool,
):  # fmt: skip
    """`reference.contrast_backward` without the n x m matrix."""
    grads = grad_loss, grad_positive, grad_col_loss, grad_col_positive
    needs = need_q or p.symmetric, need_k and not p.symmetric, need_own, need_scale
    if not config.supported(p.q[0]):
        return reference.contrast_backward(p, rows, cols, weighted, *grads, *needs)
    x, grads = prepared(p), [None if g is None else g.contiguous() for g in grads]
    if len(weighted):
        total = p.scale if p.logit_scale is None else p.scale * p.logit_scale.float()
        dq = torch.zeros_like(weighted) if grads[0] is None else None
        dq = weighted * (grads[0] * total)[:, None] if dq is None else dq
        dk = common.empty(weighted, 0, p.width)
    else:
        dq, dk = _gradients(x, grads, rows, cols, *needs[:2])

    def pull():
        found = 0 if grads[0] is None else grads[0] * torch.expm1(-rows[0])
        return found if grads[1] is None else found + grads[1]

    return finished(x, dq, dk, pull, *needs)


def _gradients(x: Prepared, grads, rows, cols, need_q: bool, need_k: bool):
    """dq and dk of the rows as they went into the products."""
    p, (n, m, d) = x.p, x.operands.sizes
    if n == 0 or m == 0 or all(g is None for g in grads) or not (need_q or need_k):
        shapes = (n if need_q else 0, d), (m if need_k else 0, d)
        return tuple(torch.zeros(shape, device=x.operands.q.device) for shape in shapes)
    return problem_gradients(
        x.operands, grads, rows, cols, p.positives_in, x.extra is not None, p.unit, need_q, need_k
    )


def contrast_mean(p: Problem, need_q: bool, need_k: bool, need_own: bool, need_scale: bool):
    """`reference.contrast_mean` without the n x m matrix."""
    needs = need_q, need_k and not p.symmetric, need_own, need_scale
    if not config.supported(p.q[0]):
        return reference.contrast_mean(p, *needs)
    if _is_frozen(p, needs):
        return _frozen(p)
    x, share, cols, col_grad = prepared(p), 0.5 if p.both else 1.0, None, None
    finishes = p.finishes(*needs[:2])
    if not (finishes or p.both or p.symmetric) and any(needs[:2]) and config.keeps(
        x.operands.q, x.operands.k, p.scale, p.logit_scale, p.unit, needs[1]
    ):  # fmt: skip
        rows, dq, dk = unit_gradients(x.operands, x.extra, *needs[:2])
        grad = None
    else:
        rows, cols, _, weighted = statistics(
            x.operands, x.extra, None, p.both, p.positives_in, p.unit, finishes
        )
        grad = torch.full_like(rows[0], share / p.rows)
    losses = rows[0]
    if not p.paired:
        alone = rows[3] == 0
        losses = torch.where(alone, 0, losses)
        grad = None if grad is None else torch.where(alone, 0, grad)
    loss = losses.mean()
    if p.both:
        loss, col_grad = (loss + cols[0].mean()) / 2, torch.full_like(cols[0], share / p.columns)
    if grad is not None and finishes:
        total = p.scale if p.logit_scale is None else p.scale * p.logit_scale.float()
        dq, dk = weighted * (total / p.rows), common.empty(weighted, 0, p.width)
    elif grad is not None:
        dq, dk = _gradients(x, (grad, None, col_grad, None), rows, cols, *needs[:2])
    return loss, losses, *finished(x, dq, dk, lambda: torch.expm1(-rows[0]) / p.rows, *needs)


def _is_frozen(p: Problem, needs) -> bool:
    """Whether a small batch against constants takes its four launches."""
    known = p.finishes(*needs[:2]) and p.own is not None and p.logit_scale is None
    plain = len(p.q) == 1 == len(p.k) and not (p.normalize_k or needs[2]) and p.unit
    if not (known and plain and len(p.q[0]) > 0 and len(p.k[0]) > 0):
        return False
    return config.plan(p.q[0], p.k[0]).frozen is not None


def _frozen(p: Problem):
    which = p.normalize_q, p.normalize_own
    losses, dq = frozen_mean(p.q[0], p.own, p.k[0], p.scale, *p.ids, which)
    nothing = (common.empty(dq, 0, p.width) for _ in ("dk", "d_own"))
    return losses.mean(), losses, dq, *nothing, common.empty(dq, 0)
