"""One block of a softmax contrast by the raw operators, and how blocks are joined.

Statistics of a row are four float64 numbers: its loss, what rounding took from it, its mean
positive logit and its number of positives over the columns seen so far, with
lse = loss + rest + positive. They are kept `[n, 4]`, so that they can be cut and sent by rows.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .._library import ops
from .._ranks import Ranks
from ..contrast.problem import Problem
from ..reference import accumulate_dtype


class Plan(NamedTuple):
    """Who takes part, with how many rows each, and how the columns travel."""

    ranks: Ranks
    counts: list[int]
    mode: str  # "gather" or "ring"


class Shared(NamedTuple):
    """The problem of this rank's rows, whose columns are those of all ranks."""

    p: Problem  # q [n, d] and k [n, d] of this rank in one part each, one id for both
    negatives_only: bool  # lse over the negatives is wanted, not its difference to the positive

    @property
    def symmetric(self) -> bool:
        return self.p.symmetric

    @property
    def q(self) -> Tensor:
        return self.p.q[0]

    @property
    def k(self) -> Tensor:
        return self.q if self.symmetric else self.p.k[0]

    @property
    def ids(self) -> Tensor:
        return self.p.row_ids

    @property
    def reports(self) -> bool:
        """What a rank finds out about the columns of another is of use there."""
        return self.p.both or self.symmetric

    def result(self, stats: Tensor) -> Tensor:  # [n, 4] -> [n]
        return stats[:, :3].sum(1) if self.negatives_only else stats[:, 0]

    def block(self, q: Tensor, k: Tensor, row_ids: Tensor, col_ids: Tensor) -> Problem:
        """Of rows q and columns k; of q with each other where k is q."""
        itself = k is q
        return self.p._replace(
            q=(q,), k=() if itself else (k,), row_ids=row_ids, col_ids=None if itself else col_ids,
            both=self.reports and not itself,
        )  # fmt: skip


def unseen(n: int, device: torch.device) -> Tensor:
    """The statistics [n, 4] of rows that have seen no column."""
    out = torch.zeros(n, 4, dtype=torch.float64, device=device)
    out[:, 0] = -torch.inf
    return out


def join(parts: Tensor) -> Tensor:  # [parts, n, 4] -> [n, 4]
    """The statistics over the columns of all parts.

    The loss is summed relative to the joint positive, so that a small one keeps its digits.
    """
    loss, rest, positive, count = parts.unbind(2)
    total = count.sum(0)
    mean = (count * positive).sum(0) / total.clamp(min=1)
    loss = (loss + rest + (positive - mean)).logsumexp(0)
    return torch.stack([loss, torch.zeros_like(loss), mean, total], dim=1)


def join_two(a: Tensor, b: Tensor) -> Tensor:  # [n, 4] each
    return join(torch.stack([a, b]))


def _operand(stats: Tensor, dtype: torch.dtype) -> Tensor:  # [n, 4] -> [4, n]
    """What the backward operator takes: loss and rest in its dtype give lse in float64."""
    loss, rest, positive, count = stats.unbind(1)
    lse = loss + rest + positive
    rounded = [x.to(dtype) for x in (loss, positive)]
    rest = lse - rounded[0].double() - rounded[1].double()
    return torch.stack([rounded[0], rest.to(dtype), rounded[1], count.to(dtype)])


def statistics(
    x: Shared,
    q: Tensor,  # [n, d] rows of this rank
    k: Tensor,  # [m, d] columns of any; q itself: a row is not contrasted with itself
    row_ids: Tensor,  # [n]
    col_ids: Tensor,  # [m]
) -> tuple[Tensor, Tensor]:
    """Statistics of the rows [n, 4] over these columns; of the columns [m, 4] where reported."""
    block = x.block(q, k, row_ids, col_ids)
    rows, cols, _, _ = ops.contrast_forward(*block, None, False, False)
    return rows.double().T, cols.double().T


def gradient(
    x: Shared,
    q: Tensor,  # [n, d]
    k: Tensor,  # [m, d]; q itself: dq is its whole gradient
    row_ids: Tensor,  # [n]
    col_ids: Tensor,  # [m]
    rows: Tensor,  # [n, 5] statistics over the columns of all ranks, and the loss's gradient
    cols: Tensor | None,  # [m, 5] the same of the columns where reported
    need_q: bool,
    need_k: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients dq [n, d] and dk [m, d] of these pairs, in the accumulation dtype."""
    dtype = accumulate_dtype(q.dtype)
    grad, grad_cols = rows[:, 4].to(dtype).contiguous(), None
    stats = q.new_empty(4, 0, dtype=dtype)
    if cols is not None and k is not q:
        grad_cols, stats = cols[:, 4].to(dtype).contiguous(), _operand(cols[:, :4], dtype)
    # lse is loss plus positive: one gradient for both.
    positives = (grad, grad_cols) if x.negatives_only else (None, None)
    dq, dk, _, _ = ops.contrast_backward(
        *x.block(q, k, row_ids, col_ids), _operand(rows[:, :4], dtype), stats,
        stats.new_empty(0, q.shape[1]), grad, positives[0], grad_cols, positives[1],
        need_q, need_k and k is not q, False, False,
    )  # fmt: skip
    return dq, dk
