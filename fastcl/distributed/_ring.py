"""The contrast with the columns of all ranks passing by, a block at a time.

Forward: columns and ids go round, statistics of the columns follow them home. Backward: columns
with their statistics go round, their gradients follow. Columns travel in their own dtype,
statistics in float64, gradients in the accumulation dtype.
"""

import torch
from torch import Tensor

from ..reference import accumulate_dtype
from . import _blocks
from ._blocks import Plan, Shared, join_two, unseen
from ._schedule import part, ring


def forward(x: Shared, plan: Plan) -> tuple[Tensor, Tensor | None, tuple]:
    """Statistics of the rows, of the columns where both, and what the backward needs again."""
    rows = unseen(x.q.shape[0], x.q.device)

    def visit(step: int, block: list[Tensor]) -> Tensor | None:
        if x.symmetric and step == 0:
            rows.copy_(_blocks.statistics(x, x.q, x.q, x.ids, x.ids)[0])
            return None
        columns, ids = block
        report = unseen(columns.shape[0], columns.device)
        r, c = part(plan.ranks.rank, step, plan.counts, x.symmetric)
        if r.start < r.stop and c.start < c.stop:
            row, col = _blocks.statistics(x, x.q[r], columns[c], x.ids[r], ids[c])
            rows[r] = join_two(rows[r], row)
            if x.reports:
                report[c] = col
        return report

    news = unseen(0, x.q.device) if x.reports else None
    cols = ring(plan.ranks, plan.counts, (x.k, x.ids), x.symmetric, visit, join_two, news)
    return (join_two(rows, cols), None, ()) if x.symmetric else (rows, cols, ())


def backward(
    x: Shared,
    plan: Plan,
    rows: Tensor,  # [n, 5] statistics and gradient of the loss
    cols: Tensor | None,  # [n, 5] where reported
    need_q: bool,
    need_k: bool,
) -> tuple[Tensor, Tensor | None]:
    """dq and dk of this rank [n, d]; what is not needed is meaningless."""
    dtype = accumulate_dtype(x.q.dtype)
    dq = torch.zeros(x.q.shape, dtype=dtype, device=x.q.device)

    def visit(step: int, block: list[Tensor]) -> Tensor | None:
        if x.symmetric and step == 0:
            dq.copy_(_blocks.gradient(x, x.q, x.q, x.ids, x.ids, rows, None, True, False)[0])
            return None
        columns, ids, *stats = block
        report = torch.zeros(columns.shape if need_k else (0,), dtype=dtype, device=x.q.device)
        r, c = part(plan.ranks.rank, step, plan.counts, x.symmetric)
        if r.start < r.stop and c.start < c.stop:
            gq, gk = _blocks.gradient(
                x, x.q[r], columns[c], x.ids[r], ids[c], rows[r],
                stats[0][c] if x.reports else None, need_q, need_k,
            )  # fmt: skip
            if need_q:
                dq[r] += gq
            if need_k:
                report[c] = gk
        return report

    own = (x.k, x.ids, cols) if x.reports else (x.k, x.ids)
    news = torch.empty(0, x.k.shape[1], dtype=dtype, device=x.q.device) if need_k else None
    return dq, ring(plan.ranks, plan.counts, own, x.symmetric, visit, torch.add, news)
