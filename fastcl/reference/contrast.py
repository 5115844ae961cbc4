"""The softmax contrast in plain PyTorch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..contrast.problem import Problem
from .common import accumulate_dtype, logits, no_autocast, scaled
from .unit_rows import unit_rows_backward, unit_rows_forward

Lengths = tuple[Tensor | None, Tensor | None, Tensor | None]  # of q, k and own, where divided


def divided(p: Problem) -> tuple[Tensor, Tensor, Tensor | None, Lengths]:
    """Rows, columns and own as they go into the products, and their lengths."""

    def of(parts, normalize):
        return unit_rows_forward(parts) if normalize else (torch.cat(parts), None)

    q, q_lengths = of(p.q, p.normalize_q)
    k, k_lengths = (q, None) if p.symmetric else of(p.k, p.normalize_k)
    own, own_lengths = (None, None) if p.own is None else of([p.own], p.normalize_own)
    return q, k, own, (q_lengths, k_lengths, own_lengths)


def undivided(gradients, lengths: Lengths) -> tuple[Tensor, ...]:
    """Gradients of the rows that went into the products, each beside its rows as they came, as
    those of these."""
    return tuple(
        unit_rows_backward(grad, parts, length) if length is not None and len(grad) else grad
        for (grad, parts), length in zip(gradients, lengths, strict=False)
    )


def _matches(s: Tensor, p: Problem):
    """Which columns carry the row's id, and which columns are the row itself: two [n, m] masks."""
    self_ = torch.zeros_like(s, dtype=torch.bool)
    if p.symmetric:
        self_.fill_diagonal_(True)
    row_ids, col_ids = p.ids
    if row_ids is None:
        return torch.zeros_like(self_), self_
    return (row_ids[:, None] == col_ids[None, :]) & ~self_, self_


def _sets(s: Tensor, p: Problem, q: Tensor, k: Tensor):
    """Positives, denominator and negatives of every row: three [n, m] masks."""
    matches, self_ = _matches(s, p)
    negatives = ~(matches | self_)
    if p.limit is not None:
        if p.guide_q is not None:
            q, k = (unit_rows_forward([x.to(s.dtype)])[0] for x in (p.guide_q, p.guide_k))
        negatives = negatives & ~(q.to(s.dtype) @ k.to(s.dtype).T > p.limit[:, None])
    inside = p.positives_in and p.own is None
    return matches, negatives | matches if inside else negatives, negatives


def _statistics(s, denominator, positives, extra=None):
    """Loss, rest of lse, mean positive logit and number of positives of every row: [4, n].

    Near convergence lse and positive agree to many digits, so the loss is summed relative to the
    positive and is not their difference. The rest is what the largest logit hides of the sum.
    """
    if extra is None:
        count = positives.sum(1).to(s.dtype)
        positive = torch.where(positives, s, 0).sum(1) / count.clamp(min=1)
    else:
        count, positive = torch.ones_like(extra), extra
    away = torch.where(denominator, s - positive[:, None], -torch.inf)
    top = away.amax(1)
    top = torch.where(top.isfinite(), top, 0)
    log_sum = (away - top[:, None]).exp().sum(1).log()
    loss = top + log_sum
    rest = torch.where(loss.isfinite(), log_sum - (loss - top), 0)
    if extra is not None:
        rest = torch.where(loss > 0, rest, 0)
        loss = -F.logsigmoid(-loss)
    return torch.stack([loss, rest, positive, count])


def contrast_forward(
    p: Problem,
    pivot: Tensor | None,  # [n] similarity to count the columns above
    need_q: bool,
    need_k: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Softmax contrast of rows q against columns k with s_ij = scale * logit_scale * <q_i, k_j>.

    Column j is a positive of row i when their ids are equal. D(i), the denominator, is every
    column but i itself (symmetric), and but the positives where positives_in is False. own is one
    more positive per row, in D(i); columns with the row's id are then left out.

    Returns:
        rows [4, n]: loss_i = lse_i - mean positive logit, where lse_i is over D(i); what rounding
            took from lse_i = loss_i + positive_i + rest_i, 0 where unknown; the mean positive
            logit (0 without a positive); the number of positives.
        cols [4, m]: the same down the columns where both, else [4, 0].
        rank [n] int64: columns of D(i), positives left out, that score above scale * pivot_i;
            [0] without pivot.
        weighted [n, d]: sum over D(i), positives left out, of p_ij k_j where the forward finishes
            the gradient (`Problem.finishes`); else [0, d].
    """
    q, k, own, _ = divided(p)
    dtype = accumulate_dtype(q.dtype)
    with no_autocast(q):
        s = logits(q, k, p.scale, p.logit_scale)
        matches, denominator, negatives = _sets(s, p, q, k)
        extra = None if own is None else (q.to(dtype) * own.to(dtype)).sum(1)
        rows = _statistics(s, denominator, matches, scaled(extra, p.scale, p.logit_scale, dtype))
        cols = s.new_empty(4, 0)
        if p.both:
            cols = _statistics(s.T, denominator.T, matches.T)
        rank = torch.empty(0, dtype=torch.int64, device=q.device)
        if pivot is not None:
            bar = scaled(pivot, p.scale, p.logit_scale, dtype)
            rank = (negatives & (s > bar[:, None])).sum(1)
        weighted = s.new_empty(0, p.width)
        if p.finishes(need_q, need_k):
            loss, rest, positive, _ = rows[:, :, None]
            weights = torch.where(negatives, (s - positive - loss - rest).exp(), 0)
            weighted = weights @ k.to(dtype)
    return rows, cols, rank, weighted


def _weights(s, denominator, positives, stats, grad_loss, grad_positive):
    """Gradient of the loss and of the mean positive logit of every row to its logits: [n, m]."""
    loss, rest, positive, count = stats.to(s.dtype)
    y = torch.where(positives, 1 / count.clamp(min=1)[:, None], 0)
    g = torch.zeros_like(s)
    if grad_loss is not None:
        p = torch.where(
            denominator, (s - positive[:, None] - loss[:, None] - rest[:, None]).exp(), 0
        )
        g = g + grad_loss.to(s.dtype)[:, None] * (p - y)
    if grad_positive is not None:
        g = g + grad_positive.to(s.dtype)[:, None] * y
    return g


def contrast_backward(
    p: Problem,
    rows: Tensor,  # [4, n] from the forward
    cols: Tensor,  # [4, m], or [4, 0]
    weighted: Tensor,  # [n, d], or [0, d]; [n, d]: the columns are not read
    grad_loss: Tensor | None,  # [n]
    grad_positive: Tensor | None,  # [n]
    grad_col_loss: Tensor | None,  # [m]
    grad_col_positive: Tensor | None,  # [m]
    need_q: bool,
    need_k: bool,
    need_own: bool,
    need_scale: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the rows' and the columns' loss and mean positive logit.

        dS_ij = grad_loss_i (p_ij - y_ij) + grad_positive_i y_ij + the same down the columns

    with y_ij = 1 / |P(i)| on the positives; with own, no column is one, and own's dS is
    grad_loss_i (p_i - 1) + grad_positive_i.

    Returns:
        dq [n, d], dk [m, d] and d_own [n, d] in the accumulation dtype, of the rows before they
        were divided, [0, d] where not needed (where symmetric dq is the whole gradient); and [1]
        the sum of all dS_ij s_ij, the derivative to the logarithm of the scale, else [0].
    """
    q, k, own, lengths = divided(p)
    dtype = accumulate_dtype(q.dtype)
    total = p.scale if p.logit_scale is None else p.scale * p.logit_scale.to(dtype)
    dq, dk, d_own = (rows.new_empty(0, p.width) for _ in range(3))
    with no_autocast(q):
        if len(weighted):
            dq = torch.zeros_like(weighted)
            if grad_loss is not None:
                dq = weighted * (grad_loss * total)[:, None]
        else:
            grads = grad_loss, grad_positive, grad_col_loss, grad_col_positive
            g = _logit_gradient(p, q, k, own, rows, cols, grads) * total
            if p.symmetric:
                dq = (g + g.T) @ q.to(dtype)
            else:
                dq = g @ k.to(dtype) if need_q else dq
                dk = g.T @ q.to(dtype) if need_k else dk
        alone = 0.0  # what the scale owes to own where all else is counted twice
        if own is not None:
            pull = torch.zeros_like(rows[0])
            if grad_loss is not None:  # p - 1 of the positive, without cancellation
                pull = grad_loss * torch.expm1(-rows[0])
            if grad_positive is not None:
                pull = pull + grad_positive
            pull = (pull * total)[:, None]
            alone = (pull * q.to(dtype) * own.to(dtype)).sum()
            dq = dq + pull * own.to(dtype) if need_q else dq
            d_own = pull * q.to(dtype) if need_own else d_own
        slope = dq.new_empty(0)
        if need_scale:  # each logit is linear in the scale
            slope = (q.to(dtype) * dq).sum()[None]
            slope = (slope + alone) / 2 if p.symmetric else slope
        if not (need_q or p.symmetric):
            dq = dq[:0]
    return *undivided(((dq, p.q), (dk, p.k), (d_own, (p.own,))), lengths), slope


def _logit_gradient(p, q, k, own, rows, cols, grads) -> Tensor:
    """dS [n, m]."""
    s = logits(q, k, p.scale, p.logit_scale)
    matches, denominator, _ = _sets(s, p, q, k)
    positives = matches if own is None else torch.zeros_like(matches)
    g = _weights(s, denominator, positives, rows, *grads[:2])
    if any(x is not None for x in grads[2:]):
        g = g + _weights(s.T, denominator.T, positives.T, cols, *grads[2:]).T
    return g


def _weight(statistics: Tensor, given: Tensor | None, paired: bool) -> Tensor:  # [4, n] -> [n]
    """Of the losses in the mean."""
    weight = torch.ones_like(statistics[0]) if given is None else given
    return weight if paired else torch.where(statistics[3] == 0, 0, weight)


def _mean(losses: Tensor, weight: Tensor) -> Tensor:  # [n] each -> []
    """Weighted; what has weight zero takes no part, whatever its loss."""
    return torch.where(weight == 0, 0, weight * losses).mean()


def contrast_mean(
    p: Problem, need_q: bool, need_k: bool, need_own: bool, need_scale: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The mean of the losses of contrast_forward, weighted, where both of the rows' mean and the
    columns', and its gradients. A row without a positive counts as zero where paired is False.

    Returns:
        loss [], the losses of the rows [n], not weighted, and the four of contrast_backward.
    """
    need = need_q or need_k or need_own or need_scale
    rows, cols, _, weighted = contrast_forward(p, None, need_q, need_k)
    share = 0.5 if p.both else 1.0
    weight, col_grad = _weight(rows, p.row_weight, p.paired), None
    losses = rows[0].clone() if p.paired else torch.where(rows[3] == 0, 0, rows[0])
    loss, grad = _mean(rows[0], weight), weight * (share / p.rows)
    if p.both:
        weight = _weight(cols, p.col_weight, p.paired)
        loss, col_grad = (loss + _mean(cols[0], weight)) / 2, weight * (share / p.columns)
    if not need:
        nothing = (rows.new_empty(0, p.width) for _ in range(3))
        return loss, losses, *nothing, rows.new_empty(0)
    found = contrast_backward(
        p, rows, cols, weighted, grad, None, col_grad, None, need_q, need_k, need_own, need_scale
    )
    dq, *found = found
    return loss, losses, dq if need_q else dq[:0], *found
