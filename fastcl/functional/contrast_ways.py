"""The ways of `contrast`: what the operators know by themselves, and what goes beside them."""

from typing import Any

import torch
from torch import Tensor

from ..contrast.node import mean_loss, row_losses
from ..contrast.problem import Problem, problem
from ..reference import accumulate_dtype
from . import positives
from .asked import Asked
from .levels import of_labels
from .pairs import log_sum_by_row, pair_products
from .positives import Rows, sides
from .rows import held_to, reduced, row_products, softplus, wide
from .unit_rows import unit_rows

# Rows are filled up to a multiple: whole vectors, and what a bulk copy is aligned to.
WIDTH_STEP = 8


def _of_mean(mean: Tensor, rows: Tensor, reduction: str) -> Tensor:
    return mean * len(rows) if reduction == "sum" else mean


def joined(x: Asked, losses: list[Tensor]) -> Tensor:
    """The result, from the loss of every row [n] and, where both, of every column [m]."""
    if len({len(loss) for loss in losses}) > 1:
        mean = sum(loss.mean() for loss in losses) / len(losses)
        return mean * len(losses[0]) if x.reduction == "sum" else mean
    return reduced(_weighted(sum(losses) / len(losses), x.row_weight), x.reduction)


def _weighted(loss: Tensor, weight: Tensor | None) -> Tensor:
    """What has weight zero takes no part, whatever its loss, but for the gradient of the weight."""
    if weight is None or weight.requires_grad:
        return loss if weight is None else weight * loss
    return torch.where(weight == 0, 0, weight * loss)


def _row_by_row(x: Asked) -> bool:
    """Whether the loss of every row is wanted, by the caller or by the gradient of its weight."""
    return x.reduction == "none" or (x.row_weight is not None and x.row_weight.requires_grad)


def by_ids(x: Asked, query: Tensor, key: Tensor | None, normalize: bool) -> Tensor:
    """One positive per row, or those of one label: what the operators know by themselves."""
    if normalize and not (x.plain and x.smoothing == 0):
        query, key = unit_rows(query), None if key is None else unit_rows(key)
        normalize = False
    if not x.plain:
        query, key = _matrices(x, query, key)
    options: dict[str, Any] = {
        "scale": x.scale,
        "both": x.both,
        "normalize": normalize,
        "unit": x.plain,
    }
    if x.diagonal:
        options["diagonal"] = True
    else:
        row_ids, col_ids = (labels[:, 0] for labels in x.labels)
        options |= {"ids": row_ids if key is None else (row_ids, col_ids), "paired": False}
    spread = _spread(x, query, key)
    if _row_by_row(x):
        found = row_losses(problem(query, key, **options))
        losses = [torch.where(found.count > 0, found.loss, 0)]
        if x.both:
            losses.append(torch.where(found.col_count > 0, found.col_loss, 0))
        loss = joined(x, [a + b for a, b in zip(losses, spread, strict=True)])
    else:
        weights = {"row_weight": x.row_weight, "col_weight": x.row_weight if x.both else None}
        loss = mean_loss(problem(query, key, **options, **weights))[0]
        if x.smoothing:
            loss = loss + sum(_weighted(side, x.row_weight).mean() for side in spread) / len(spread)
        loss = _of_mean(loss, query, x.reduction)
    return loss if x.level_weights is None else loss * x.level_weights[0]


def _spread(x: Asked, query: Tensor, key: Tensor | None) -> list[Tensor | float]:
    """What label smoothing adds to the loss of every row, and of every column where both: its share
    of the positive's logit less that of all. Without it near convergence nothing is lost."""
    if x.smoothing == 0:
        return [0.0] * (1 + x.both)
    dtype, itself = accumulate_dtype(query.dtype), key is None
    q = query.to(dtype)
    rows, labels, found = sides(q, q if itself else key.to(dtype), itself), x.labels, []
    for _ in range(1 + x.both):
        if labels is None:
            count, total = positives.diagonal(rows)
        else:
            count, total = of_labels(rows, *labels, q.new_ones(1))
            labels = labels[::-1]
        size, everything = positives.all_columns(rows)
        found.append(x.smoothing * x.scale * (total - count * (everything / size)))
        rows = rows.turned()
    return found


def _matrices(x: Asked, query: Tensor, key: Tensor | None) -> tuple[Tensor, Tensor]:
    """Rows and columns whose products times the scale are the logits."""
    q, k = query, query if key is None else key
    if x.row_scale is not None:
        q = (q * x.row_scale[:, None]).to(query.dtype)
    if x.column_bias is None:
        return q, k
    # A feature of ones meets the bias; of 16 bits three, that hold as many digits as float32.
    rest, parts = x.column_bias / x.scale, []
    for _ in range(3 if query.dtype.itemsize == 2 else 1):
        parts.append(rest.to(query.dtype))
        rest = rest - parts[-1].to(rest.dtype)
    width = q.shape[1] + len(parts)
    empty = -width % WIDTH_STEP
    ones = q.new_ones(len(q), len(parts))
    q = torch.cat([q, ones, q.new_zeros(len(q), empty)], 1)
    return q, torch.cat([k, torch.stack(parts, 1), k.new_zeros(len(k), empty)], 1)


def beside_lse(x: Asked, query: Tensor, key: Tensor | None) -> Tensor:
    """The log-sum-exp over all columns from one pass without positives, and these beside it."""
    itself, products = key is None, query.dtype
    # Near convergence the gradients of both parts nearly cancel: they meet before they are rounded.
    q, k = _matrices(x, query, key)
    same, q = k is q, q.to(accumulate_dtype(products))
    k = q if same else k.to(q.dtype)
    rows = sides(q, k, itself)
    options: dict[str, Any] = {
        "scale": x.scale,
        "unit": x.plain,
        "normalize": False,
        "both": x.both,
    }
    triangle = itself and x.plain
    if itself and not triangle:  # a row leaves out itself as its positive, which then comes back
        options |= {"ids": torch.arange(len(q), device=q.device), "positives_in": False}
    both = [_side(x, rows, False)] + ([_side(x, rows.turned(), True)] if x.both else [])
    columns = None if triangle else k
    if _row_by_row(x) or any(count.requires_grad for count, _ in both):
        found = row_losses(problem(q, columns, **options), products=products)
        lse = [found.loss + found.positive, found.col_loss][: len(both)]
        lse = [torch.where(sums == -torch.inf, 0, sums) for sums in lse]  # of a row alone
        return joined(x, [
            _weighted(sums, count) - positive
            for sums, (count, positive) in zip(lse, both, strict=True)
        ])  # fmt: skip
    weights = [count if x.row_weight is None else count * x.row_weight for count, _ in both]
    row_weight, col_weight = (*weights, None)[:2]
    p = problem(q, columns, row_weight=row_weight, col_weight=col_weight, **options)
    loss, _ = mean_loss(p, products)
    if itself and not triangle:
        loss = loss + (row_weight * x.scale * rows.own).mean()
    positive = sum(_weighted(side, x.row_weight).mean() for _, side in both) / len(both)
    return _of_mean(loss - positive, query, x.reduction)


def summed_labels(x: Asked, query: Tensor, key: Tensor | None) -> Tensor:
    """The logarithm of the sum over the columns of a label, beside that over all others."""
    q, k = _matrices(x, query, key)
    dtype, itself = accumulate_dtype(q.dtype), key is None
    options: dict[str, Any] = {
        "scale": x.scale,
        "unit": x.plain,
        "normalize": False,
        "positives_in": False,
    }
    losses = []
    for a, b, labels in ((q, k, x.labels), (k, q, x.labels[::-1]))[: 1 + x.both]:
        rows, total = sides(a.to(dtype), b.to(dtype), itself), 0
        levels = zip(*(side.unbind(1) for side in labels), strict=True)
        for share, ids in zip(x.shares(labels[0].shape[1], rows.q), levels, strict=True):
            positive = positives.log_sums_of_labels(rows, *ids, x.scale)
            alone = itself and x.plain
            p = problem(a, None if alone else b, ids=ids[0] if alone else ids, **options)
            others, some = row_losses(p), positive != -torch.inf
            away = others.loss + others.positive - torch.where(some, positive, 0)
            total = total + share * torch.where(some, softplus(away), 0)
        losses.append(total)
    return joined(x, losses)


def _sums(x: Asked, rows: Rows, way) -> positives.Sums:
    if x.diagonal:
        return positives.diagonal(rows)
    if x.targets is not None:
        return positives.of_targets(rows, *way(x.targets))
    return positives.of_pairs(rows, *way(x.pairs[:2]), x.pairs[2])


def _side(x: Asked, rows: Rows, turned: bool) -> tuple[Tensor, Tensor]:
    """How often lse counts in the loss of every row, and what is subtracted, both [n]."""

    def way(pair):
        return pair[::-1] if turned else pair

    if x.summed and x.pairs is not None:
        row, column = way(x.pairs[:2])
        return _summed_pairs(x, rows, row, column)
    if x.labels is not None:
        row_labels, col_labels = way(x.labels)
        shares = x.shares(row_labels.shape[1], rows.q)
        counts, mean = of_labels(rows, row_labels, col_labels, shares)
    else:
        weight, total = _sums(x, rows, way)
        some = weight > 0
        counts = some.to(total.dtype)
        mean = torch.where(some, total / torch.where(some, weight, 1), 0)
    if x.smoothing:
        size, total = positives.all_columns(rows)
        mean = (1 - x.smoothing) * mean + x.smoothing * counts * (total / size)
    return counts, x.scale * mean


def _summed_pairs(x: Asked, rows: Rows, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithm of the sum over the pairs of every row."""
    weight = x.pairs[2]
    if rows.itself:
        weight = torch.where(row == column, 0, weight)
    s = x.scale * pair_products(rows.q, rows.k, row, column)
    s = torch.where(weight > 0, s + torch.where(weight > 0, weight, 1).log(), -torch.inf)
    sums = log_sum_by_row(s, row, len(rows.q))
    some = sums != -torch.inf
    return some.to(sums.dtype), torch.where(some, sums, 0)


def limited_to_margin(x: Asked, query: Tensor, key: Tensor | None) -> Tensor:
    """With one positive per row, apart from the columns, which are held to its cosine."""
    itself, guide = key is None, x.guide
    if guide is None and not x.plain:  # the logits are no cosines
        guide = query, query if itself else key
    q, k = _matrices(x, query, key)
    sides = [(q, k, guide, False)]
    if x.both:
        sides.append((k, q, None if guide is None else guide[::-1], True))
    problems = [_held(x, *side, itself) for side in sides]
    if _row_by_row(x):
        return joined(x, [row_losses(p).loss for p in problems])
    loss = sum(mean_loss(p)[0] for p in problems) / len(problems)
    return _of_mean(loss, query, x.reduction)


def _held(x: Asked, q, k, guide, turned: bool, itself: bool) -> Problem:
    """One direction of it."""
    ids, partner = _partners(x, q, turned, itself)
    own, judges = k, (q, k)
    if guide is not None:
        judges = [unit_rows(rows) for rows in wide(guide, q)]
    a, b = judges
    if partner is not None:
        own, b = own[partner], b[partner]
    limit = held_to(row_products(a.detach(), b.detach()), x.margin)
    weight = None if _row_by_row(x) else x.row_weight
    return problem(
        q, k, own=own, ids=ids, scale=x.scale, limit=limit, guide=guide, unit=x.plain,
        normalize=False, row_weight=weight,
    )  # fmt: skip


def _partners(x: Asked, q: Tensor, turned: bool, itself: bool):
    """Ids of rows and columns, and the column that is the positive of each row; None: its own."""
    if x.diagonal:
        return torch.arange(len(q), device=q.device), None
    rows, columns = (labels[:, 0] for labels in (x.labels[::-1] if turned else x.labels))
    by_label, order = columns.sort(stable=True)
    first = torch.searchsorted(by_label, rows.contiguous())
    last = torch.searchsorted(by_label, rows.contiguous(), right=True) - 1
    one = (last - first == int(itself)).all()
    if not torch.compiler.is_compiling() and q.device.type == "cpu" and not one:
        raise ValueError("margin and guide take one positive per row, labels name more or none")
    first, last = (order[at.clamp(0, len(order) - 1)] for at in (first, last))
    if not itself:
        return (rows, columns), first
    own = torch.arange(len(q), device=q.device)
    return rows, torch.where(first == own, last, first)
