"""The softmax contrast in plain PyTorch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import accumulate_dtype, logits, no_autocast, scaled


def _matches(s, row_ids, col_ids, symmetric):
    """Which columns carry the row's id, and which columns are the row itself: two [n, m] masks."""
    self_ = torch.zeros_like(s, dtype=torch.bool)
    if symmetric:
        self_.fill_diagonal_(True)
    if row_ids is None:
        return torch.zeros_like(self_), self_
    return (row_ids[:, None] == col_ids[None, :]) & ~self_, self_


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


def info_nce_forward(
    q: Tensor,  # [n, d]
    k: Tensor,  # [m, d]; q itself where symmetric
    scale: float,
    logit_scale: Tensor | None,  # [] multiplies scale
    row_ids: Tensor | None,  # [n] int64; None: no column is a positive
    col_ids: Tensor | None,  # [m] int64
    extra: Tensor | None,  # [n] similarity of a row-aligned positive that is not a column
    pivot: Tensor | None,  # [n] similarity to count the columns above
    symmetric: bool,
    both: bool,
    positives_in: bool,
    unit: bool,
    frozen: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Softmax contrast of rows q against columns k with s_ij = scale * logit_scale * <q_i, k_j>.

    Column j is a positive of row i when their ids are equal. D(i), the denominator, is every
    column but i itself (symmetric), and but the positives where positives_in is False. extra is
    one more positive per row, in D(i); columns with the row's id are then left out.

    Returns:
        rows [4, n]: loss_i = lse_i - mean positive logit, where lse_i is over D(i); what rounding
            took from lse_i = loss_i + positive_i + rest_i, 0 where unknown; the mean positive
            logit (0 without a positive); the number of positives.
        cols [4, m]: the same down the columns where both, else [4, 0].
        rank [n] int64: columns of D(i), positives left out, that score above scale * pivot_i;
            [0] without pivot.
        weighted [n, d]: sum over D(i), positives left out, of p_ij k_j where frozen; else [0, d].

    unit says that all rows have length one at most, which a kernel may use to choose its shift.
    """
    dtype = accumulate_dtype(q.dtype)
    with no_autocast(q):
        s = logits(q, k, scale, logit_scale)
        matches, self_ = _matches(s, row_ids, col_ids, symmetric)
        negatives = ~(matches | self_)
        denominator = negatives | matches if positives_in and extra is None else negatives
        rows = _statistics(s, denominator, matches, scaled(extra, scale, logit_scale, dtype))
        cols = s.new_empty(4, 0)
        if both:
            cols = _statistics(s.T, denominator.T, matches.T)
        rank = torch.empty(0, dtype=torch.int64, device=q.device)
        if pivot is not None:
            bar = scaled(pivot, scale, logit_scale, dtype)
            rank = (negatives & (s > bar[:, None])).sum(1)
        weighted = s.new_empty(0, q.shape[1])
        if frozen:
            loss, rest, positive, _ = rows[:, :, None]
            p = torch.where(negatives, (s - positive - loss - rest).exp(), 0)
            weighted = p @ k.to(dtype)
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


def info_nce_backward(
    grad_loss: Tensor | None,  # [n]
    grad_positive: Tensor | None,  # [n]
    grad_col_loss: Tensor | None,  # [m]
    grad_col_positive: Tensor | None,  # [m]
    q: Tensor,  # [n, d]
    k: Tensor,  # [m, d]
    scale: float,
    logit_scale: Tensor | None,  # []
    row_ids: Tensor | None,  # [n]
    col_ids: Tensor | None,  # [m]
    rows: Tensor,  # [4, n] from the forward
    cols: Tensor,  # [4, m], or [4, 0]
    symmetric: bool,
    positives_in: bool,
    extra: bool,
    unit: bool,
    need_q: bool,
    need_k: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of the rows' and the columns' loss and mean positive logit to q and k.

        dS_ij = grad_loss_i (p_ij - y_ij) + grad_positive_i y_ij + the same down the columns

    with y_ij = 1 / |P(i)| on the positives. Where extra, the positives were no columns: y = 0.

    Returns:
        dq [n, d] and dk [m, d] in the accumulation dtype; [0, d] where not needed; where
        symmetric dq is the whole gradient and dk is [0, d].
    """
    dtype = accumulate_dtype(q.dtype)
    with no_autocast(q):
        s = logits(q, k, scale, logit_scale)
        matches, self_ = _matches(s, row_ids, col_ids, symmetric)
        negatives = ~(matches | self_)
        denominator = negatives | matches if positives_in and not extra else negatives
        positives = torch.zeros_like(matches) if extra else matches
        g = _weights(s, denominator, positives, rows, grad_loss, grad_positive)
        if grad_col_loss is not None or grad_col_positive is not None:
            columns = _weights(
                s.T, denominator.T, positives.T, cols, grad_col_loss, grad_col_positive
            )
            g = g + columns.T
        g = g * scale if logit_scale is None else g * scale * logit_scale.to(dtype)
        dq = dk = s.new_empty(0, q.shape[1])
        if symmetric:
            dq = (g + g.T) @ q.to(dtype)
        else:
            if need_q:
                dq = g @ k.to(dtype)
            if need_k:
                dk = g.T @ q.to(dtype)
    return dq, dk
