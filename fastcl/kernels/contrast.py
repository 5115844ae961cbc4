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
from ..reference.unit_rows import SHORTEST
from . import contrast_common as common
from . import contrast_config as config
from .contrast_common import Operands
from .contrast_frozen_mean import frozen_mean
from .contrast_gradient import problem_gradients
from .contrast_kept import unit_gradients
from .contrast_limit import Limits
from .contrast_statistics import statistics
from .unit_rows import project, row_products, unit_rows_forward


class Prepared(NamedTuple):
    """A problem's rows as they go into the products, and the lengths of those divided."""

    p: Problem
    operands: Operands
    own: Tensor | None  # [n, d]
    lengths: tuple[Tensor | None, Tensor | None, Tensor | None]  # of q, k and own

    @property
    def total(self) -> float | Tensor:
        """The whole scale."""
        scale, logit_scale = self.p.scale, self.p.logit_scale
        return scale if logit_scale is None else scale * logit_scale.float()

    def extra(self) -> Tensor | None:
        """Similarity [n] of each row and its own."""
        return None if self.own is None else row_products(self.operands.q, self.own)

    def statistics(self, extra: Tensor | None, pivot: Tensor | None, finishes: bool):
        p = self.p
        return statistics(self.operands, extra, pivot, p.both, p.positives_in, p.unit, finishes)


def prepared(p: Problem) -> Prepared:
    def of(parts, normalize):
        if normalize:
            return unit_rows_forward(parts)
        return (parts[0] if len(parts) == 1 else torch.cat(parts)), None

    q, q_lengths = of(p.q, p.normalize_q)
    k, k_lengths = (q, None) if p.symmetric else of(p.k, p.normalize_k)
    own, own_lengths = None, None
    if p.own is not None and _is(p.own, p.k) and p.normalize_own == p.normalize_k:
        own, own_lengths = k, k_lengths
    elif p.own is not None:
        own, own_lengths = of((p.own,), p.normalize_own)
    held = None if p.limit is None else _limits(p)
    operands = common.operands(q, k, *p.ids, p.scale, p.logit_scale, p.symmetric, held)
    return Prepared(p, operands, own, (q_lengths, k_lengths, own_lengths))


def _limits(p: Problem) -> Limits:
    """With a guide, of its products with columns of length one."""
    if p.guide_q is None:
        return Limits(p.limit.contiguous())
    sides = [x.contiguous() for x in (p.guide_q, p.guide_k)]
    lengths, others = (row_products(x, x).sqrt_().clamp_(min=SHORTEST) for x in sides)
    return Limits(lengths.mul_(p.limit), *sides, others.reciprocal_())


def _is(x: Tensor, parts) -> bool:
    """Whether the rows lie where the first part has them, as a constant key beside its column."""
    if len(parts) != 1 or x.shape != parts[0].shape:
        return False
    a, b = x.untyped_storage(), parts[0].untyped_storage()
    return a._cdata == b._cdata and x.storage_offset() == parts[0].storage_offset()


def _pull(x: Prepared, losses: Tensor, grad_loss, grad_positive) -> Tensor | None:
    """Gradient [n] to the similarities of own; None: zero. grad_loss may be a number."""
    pull = None
    if grad_loss is not None:  # p - 1 of the positive, without cancellation
        pull = torch.expm1(-losses) * (grad_loss * x.total)
    if grad_positive is not None:
        beside = grad_positive * x.total
        pull = beside if pull is None else pull + beside
    return pull


def finished(x: Prepared, dq, dk, needs: tuple[bool, ...], upstream: tuple | None = None):
    """Gradients of the rows as they went into the products become those of the rows as they came.

    upstream: the losses and the gradients of loss and positive, from which own's follow.
    """
    p, q, (q_lengths, k_lengths, own_lengths) = x.p, x.operands.q, x.lengths
    need_q, need_k, need_own, need_scale = needs
    d_own, slope, pull = common.empty(q, 0, p.width), common.empty(q, 0), None
    if x.own is not None and (need_q or need_own):
        pull = _pull(x, *upstream)
        if pull is not None and need_q:
            dq = dq.addcmul_(pull[:, None], x.own)
        if need_own:
            d_own = torch.zeros_like(dq) if pull is None else pull[:, None] * q
    if need_scale and q_lengths is None:
        slope = (q * dq).sum()[None]
    if need_q and q_lengths is not None:
        dots = common.empty(dq, len(dq)) if need_scale else None
        dq = project(dq, p.q, q_lengths, dots)
        slope = dots.sum()[None] if need_scale else slope
    if need_k and k_lengths is not None:
        dk = project(dk, p.k, k_lengths, None)
    if need_own and own_lengths is not None:
        d_own = project(d_own, (p.own,), own_lengths, None)
    if need_scale and p.symmetric:  # all but the logits of own are in dq twice
        own = 0 if pull is None else pull @ x.extra()
        slope = (slope + own) / 2
    return dq, dk, d_own, slope


def contrast_forward(p: Problem, pivot, need_q: bool, need_k: bool):
    """`reference.contrast_forward` without the n x m matrix."""
    if not config.supported(p.q[0]):
        return reference.contrast_forward(p, pivot, need_q, need_k)
    x = prepared(p)
    return x.statistics(x.extra(), pivot, p.finishes(need_q, need_k))


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
    if len(weighted) == 0:
        dq, dk = _gradients(x, grads, rows, cols, *needs[:2])
    else:
        none = grads[0] is None
        dq = torch.zeros_like(weighted) if none else weighted * (grads[0] * x.total)[:, None]
        dk = common.empty(weighted, 0, p.width)
    return finished(x, dq, dk, needs, (rows[0], *grads[:2]))


def _gradients(x: Prepared, grads, rows, cols, need_q: bool, need_k: bool):
    """dq and dk of the rows as they went into the products."""
    p, (n, m, d) = x.p, x.operands.sizes
    if not (need_q or need_k):
        return common.empty(rows, 0, d), common.empty(rows, 0, d)
    if n == 0 or m == 0 or all(g is None for g in grads):
        return rows.new_zeros(n if need_q else 0, d), rows.new_zeros(m if need_k else 0, d)
    return problem_gradients(
        x.operands, grads, rows, cols, p.positives_in, x.own is not None, p.unit, need_q, need_k
    )


def contrast_mean(p: Problem, need_q: bool, need_k: bool, need_own: bool, need_scale: bool):
    """`reference.contrast_mean` without the n x m matrix."""
    needs = need_q, need_k and not p.symmetric, need_own, need_scale
    if not config.supported(p.q[0]):
        return reference.contrast_mean(p, *needs)
    if _is_frozen(p, needs):
        return _frozen(p)
    x = prepared(p)
    if _keeps(x, *needs[:2]):
        rows, dq, dk = unit_gradients(x.operands, x.extra(), *needs[:2])
        loss, losses = rows[0].mean(), rows[0]
    else:
        loss, losses, dq, dk = _in_two_passes(x, *needs[:2])
    grad = 1 / p.rows if p.row_weight is None else p.row_weight / p.rows
    return loss, losses, *finished(x, dq, dk, needs, (losses, grad, None))


def _keeps(x: Prepared, need_q: bool, need_k: bool) -> bool:
    """Whether the exponentials of the forward become the gradient."""
    p, one_way = x.p, not (x.p.symmetric or x.p.both)
    plain = one_way and p.paired and (p.positives_in or p.aside) and (need_q or need_k)
    return (
        plain
        and p.row_weight is None
        and config.keeps(
            x.operands.q,
            x.operands.k,
            p.scale,
            p.logit_scale,
            p.unit,
            need_k,
            p.guide_q is not None,
        )  # fmt: skip
    )


def _in_two_passes(x: Prepared, need_q: bool, need_k: bool):
    """Mean, losses, and the gradients that are needed, of statistics that are known before."""
    p, share = x.p, 0.5 if x.p.both else 1.0
    # Without a positive, and without own, every row may be one that counts as zero.
    finishes = p.finishes(need_q, need_k) and (p.paired or p.own is not None)
    rows, cols, _, weighted = x.statistics(x.extra(), None, finishes)
    losses, alone = _counted(rows, p.paired)
    loss, others = _mean(losses, p.row_weight), None
    if p.both:
        found, others = _counted(cols, p.paired)
        loss = (loss + _mean(found, p.col_weight)) / 2
    if finishes:
        dq = weighted * (x.total / p.rows)
        dq = dq if p.row_weight is None else dq.mul_(p.row_weight[:, None])
        return loss, losses, dq, common.empty(rows, 0, p.width)
    grad = col_grad = None
    if need_q or need_k:
        grad = _upstream(losses, alone, p.row_weight, share)
        col_grad = _upstream(cols[0], others, p.col_weight, share) if p.both else None
    return loss, losses, *_gradients(x, (grad, None, col_grad, None), rows, cols, need_q, need_k)


def _counted(statistics: Tensor, paired: bool) -> tuple[Tensor, Tensor | None]:
    """Losses [n], 0 without a positive, and where that is."""
    if paired:
        return statistics[0], None
    alone = statistics[3] == 0
    return torch.where(alone, 0, statistics[0]), alone


def _mean(losses: Tensor, weight: Tensor | None) -> Tensor:
    """What has weight zero takes no part, whatever its loss."""
    return (losses if weight is None else torch.where(weight == 0, 0, weight * losses)).mean()


def _upstream(losses: Tensor, alone: Tensor | None, weight: Tensor | None, share: float) -> Tensor:
    """The gradient of the mean to every loss."""
    share = share / len(losses)
    grad = torch.full_like(losses, share) if weight is None else weight * share
    return grad if alone is None else torch.where(alone, 0, grad)


def _is_frozen(p: Problem, needs) -> bool:
    """Whether a small batch against constants takes its four launches."""
    known = p.finishes(*needs[:2]) and p.own is not None and p.logit_scale is None
    plain = len(p.q) == 1 == len(p.k) and not (p.normalize_k or needs[2]) and p.unit
    plain = plain and p.row_weight is None and p.guide_q is None
    if not (known and plain and len(p.q[0]) > 0 and len(p.k[0]) > 0):
        return False
    return config.plan(p.q[0], p.k[0]).frozen is not None


def _frozen(p: Problem):
    which, held = (p.normalize_q, p.normalize_own), None if p.limit is None else _limits(p)
    losses, dq = frozen_mean(p.q[0], p.own, p.k[0], p.scale, *p.ids, held, which)
    nothing = (common.empty(dq, 0, p.width) for _ in ("dk", "d_own"))
    return losses.mean(), losses, dq, *nothing, common.empty(dq, 0)
