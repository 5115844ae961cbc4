"""The contrast with the columns of all ranks in memory.

What a rank finds out about the columns goes to their owners: statistics by all-to-all in the
forward, gradients by reduce-scatter in the backward.
"""

import torch
from torch import Tensor

from ..reference import accumulate_dtype
from . import _blocks
from ._blocks import Plan, Shared, join, join_two, unseen
from ._schedule import runs


def _visits(x: Shared, plan: Plan) -> list[tuple[slice, slice]]:
    """Own rows and gathered columns that this rank contrasts, beside its rows with each other."""
    if x.symmetric:
        return runs(plan.ranks.rank, plan.counts)
    return [(slice(0, x.q.shape[0]), slice(0, sum(plan.counts)))]


def forward(x: Shared, plan: Plan) -> tuple[Tensor, Tensor | None, tuple[Tensor, Tensor]]:
    """Statistics of the rows, of the columns where both, and what the backward needs again."""
    columns, ids = (plan.ranks.gather(own, plan.counts) for own in (x.k, x.ids))
    if x.symmetric:
        rows = _blocks.statistics(x, x.q, x.q, x.ids, x.ids)[0].contiguous()
    else:
        rows = unseen(x.q.shape[0], x.q.device)
    found = unseen(columns.shape[0] if x.reports else 0, x.q.device)
    for r, c in _visits(x, plan):
        row, col = _blocks.statistics(x, x.q[r], columns[c], x.ids[r], ids[c])
        rows[r] = join_two(rows[r], row)
        if x.reports:
            found[c] = join_two(found[c], col)
    cols = join(plan.ranks.transpose(found, plan.counts)) if x.reports else None
    if x.symmetric:
        return join_two(rows, cols), None, (columns, ids)
    return rows, cols, (columns, ids)


def backward(
    x: Shared,
    plan: Plan,
    rows: Tensor,  # [n, 5] statistics and gradient of the loss
    cols: Tensor | None,  # [n, 5] where reported
    need_q: bool,
    need_k: bool,
    columns: Tensor,  # [m, d]
    ids: Tensor,  # [m]
) -> tuple[Tensor, Tensor]:
    """dq and dk of this rank [n, d]; what is not needed is meaningless."""
    everyone = plan.ranks.gather(cols, plan.counts) if x.reports else None
    dtype = accumulate_dtype(x.q.dtype)
    dq = torch.zeros(x.q.shape, dtype=dtype, device=x.q.device)
    dk = torch.zeros(columns.shape if need_k else (0,), dtype=dtype, device=x.q.device)
    if x.symmetric:
        dq += _blocks.gradient(x, x.q, x.q, x.ids, x.ids, rows, None, True, False)[0]
    for r, c in _visits(x, plan):
        gq, gk = _blocks.gradient(
            x, x.q[r], columns[c], x.ids[r], ids[c], rows[r],
            everyone[c] if x.reports else None, need_q, need_k,
        )  # fmt: skip
        if need_q:
            dq[r] += gq
        if need_k:
            dk[c] += gk
    return dq, plan.ranks.scatter_sum(dk, plan.counts) if need_k else dk
