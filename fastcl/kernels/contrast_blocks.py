"""Problems whose columns are held to a limit: the reference, a block of rows at a time.

No kernel leaves columns out by their similarity yet. A block of the reference's matrices takes
128 MB each, whatever the number of rows.
"""

import torch
from torch import Tensor

from .. import reference
from ..contrast.problem import Problem

BLOCK = 1 << 25  # logits


def _parts(p: Problem):
    """Slices of the rows, and the problem of each."""
    step, n = max(1, BLOCK // max(p.columns, 1)), p.rows
    q = p.q[0] if len(p.q) == 1 else torch.cat(list(p.q))
    row_ids, col_ids = p.ids
    for start in range(0, n, step):
        here = slice(start, min(start + step, n))
        own, ids, weight, limit, guide = (
            None if x is None else x[here]
            for x in (p.own, row_ids, p.row_weight, p.limit, p.guide_q)
        )
        yield here, p._replace(
            q=(q[here],), own=own, row_ids=ids, col_ids=col_ids, row_weight=weight, limit=limit,
            guide_q=guide,
        )  # fmt: skip


def contrast_forward(p: Problem, pivot: Tensor | None, need_q: bool, need_k: bool):
    """`reference.contrast_forward`."""
    found = [
        reference.contrast_forward(part, None if pivot is None else pivot[here], need_q, need_k)
        for here, part in _parts(p)
    ]
    rows, cols, rank, weighted = zip(*found, strict=True)
    return torch.cat(rows, 1), cols[0], torch.cat(rank), torch.cat(weighted)


def contrast_backward(p: Problem, rows, cols, weighted, *rest):
    """`reference.contrast_backward`."""
    grads, needs = rest[:2], rest[4:]
    found = []
    for here, part in _parts(p):
        some = (None if g is None else g[here] for g in grads)
        kept = weighted[here] if len(weighted) else weighted
        found.append(
            reference.contrast_backward(part, rows[:, here], cols, kept, *some, None, None, *needs)
        )
    return _joined(found)


def contrast_mean(p: Problem, *needs: bool):
    """`reference.contrast_mean`."""
    loss, losses, found = 0, [], []
    for here, part in _parts(p):
        share = (here.stop - here.start) / p.rows
        mean, each, *gradients = reference.contrast_mean(part, *needs)
        loss = loss + mean * share
        losses.append(each)
        found.append([g * share for g in gradients])
    return loss, torch.cat(losses), *_joined(found)


def _joined(found):
    """dq, dk, d_own and slope of all rows."""
    dq, dk, d_own, slope = zip(*found, strict=True)
    return torch.cat(dq), sum(dk[1:], dk[0]), torch.cat(d_own), sum(slope[1:], slope[0])
