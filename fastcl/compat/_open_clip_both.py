"""open_clip's distillation where both directions are those of one square matrix: CLIP's loss and
that of the teacher from the same similarities.

    S = q k^T (student)   T = its teacher's   P, R = their softmax, by rows and by columns
    clip    = -sum_i (log P_ii by rows + by columns) / 2n
    distill = -sum_ij (R_ij log P_ij by rows + by columns) / 2n
    dS      = sum of both directions of (a + b) P - b R - a I, over 2n; a, b: upstream gradients

A block of rows of S and T exists at a time, and again in the backward: six products in all, where
the formula takes eight of whole matrices.
"""

from typing import Any

import torch
from torch import Tensor

from ..contrast.gradients import refuse_second_derivative
from ..reference import no_autocast

BLOCK = 2**19  # similarities of a block: 2 MB in float32


def _blocks(n: int) -> list[slice]:
    rows = max(1, BLOCK // n)
    return [slice(start, min(start + rows, n)) for start in range(0, n, rows)]


class Both(torch.autograd.Function):
    """Both losses; the teacher's rows are constants."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,  # [n, d]
        k: Tensor,  # [n, d]
        teacher_q: Tensor,  # [n, e]
        teacher_k: Tensor,  # [n, e]
    ) -> tuple[Tensor, Tensor]:
        with no_autocast(q):
            sums = _sums(q, k, teacher_q, teacher_k)
            own = (q * k).sum(1)
        by_row, by_column, _, _, wanted = sums
        ctx.save_for_backward(q, k, teacher_q, teacher_k, *sums[:4])
        lse = (by_row + by_column).mean() / 2
        return lse - own.mean(), lse - wanted / (2 * len(q))

    @staticmethod
    def backward(ctx: Any, a: Tensor, b: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        q, k, teacher_q, teacher_k, by_row, by_column, teacher_row, teacher_column = (
            ctx.saved_tensors
        )
        n = len(q)
        dq, dk = torch.empty_like(q), torch.zeros_like(k)
        with no_autocast(q):
            for block in _blocks(n):
                s, t = q[block] @ k.T, teacher_q[block] @ teacher_k.T
                ds = (s - by_row[block, None]).exp_().add_(s.sub_(by_column).exp_()).mul_(a + b)
                r = (t - teacher_row[block, None]).exp_().add_(t.sub_(teacher_column).exp_())
                ds.sub_(r.mul_(b)).diagonal(block.start).sub_(2 * a)
                ds.mul_(1 / (2 * n))
                torch.mm(ds, k, out=dq[block])
                dk.addmm_(ds.T, q[block])
        return dq, dk, None, None


def _sums(q: Tensor, k: Tensor, teacher_q: Tensor, teacher_k: Tensor) -> tuple[Tensor, ...]:
    """The logarithms of the sums of S by rows and by columns, and of T, `[n]` each; and the sum of
    S under both softmaxes of T."""
    n = len(q)
    by_row, teacher_row = q.new_empty(n), q.new_empty(n)
    by_column, teacher_column = (q.new_full((n,), -torch.inf) for _ in range(2))
    wanted, in_column = q.new_zeros(()), q.new_zeros(n)
    for block in _blocks(n):
        s, t = q[block] @ k.T, teacher_q[block] @ teacher_k.T
        by_row[block], teacher_row[block] = s.logsumexp(1), t.logsumexp(1)
        wanted += (t - teacher_row[block, None]).exp_().mul_(s).sum()
        by_column = torch.logaddexp(by_column, s.logsumexp(0))
        before, teacher_column = teacher_column, torch.logaddexp(teacher_column, t.logsumexp(0))
        part = t.sub_(teacher_column).exp_().mul_(s).sum(0)
        in_column = in_column * (before - teacher_column).exp() + part
    return by_row, by_column, teacher_row, teacher_column, wanted + in_column.sum()
