"""Queries and documents: InfoNCE with all blocks of the batch, and false negatives left out."""

from typing import Any

import torch
from torch import Tensor

from .. import _check
from ..contrast.node import row_losses
from ..contrast.problem import problem
from ..reference import accumulate_dtype, no_autocast
from .rows import held_to, log_sum, row_products, softplus, wide
from .unit_rows import unit_rows


def retrieval(
    query: Tensor,  # [n, d]
    document: Tensor,  # [n, d]
    hard: Tensor | None = None,  # [n, h, d]
    *,
    temperature: float | Tensor = 0.02,  # []
    query_query: bool = True,
    document_document: bool = True,
    margin: float | None = None,
    guide: tuple[Tensor, ...] | None = None,
    normalize: bool = True,
) -> Tensor:
    """Contrast of every query with its document, against the other documents, the other queries,
    the documents beside its own, and hard negatives of its own.

    Equal to ``-log(e(q_i, d_i) / (e(q_i, d_i) + sum_k e(q_i, h_ik) + sum_{j != i} (e(q_i, d_j) +
    e(q_i, q_j) + e(d_i, d_j))))`` averaged over i, with ``e(a, b) = exp(cosine(a, b) /
    temperature)``, of unit rows; what scores above the row's document by more than the margin is
    left out of the sums.

    Args:
        query: `[n, d]`.
        document: `[n, d]`; row i is the positive of query i.
        hard: Optional `[n, h, d]`: negatives chosen for row i, which other rows do not meet.
        temperature: Positive; divides the similarities. A tensor of one element receives a
            gradient.
        query_query: Other queries are negatives of a query.
        document_document: Other documents are negatives of a query's document.
        margin: Columns whose cosine is above that of query and document by more are left out as
            false negatives; None: none is.
        guide: Embeddings of another model, constants, `[n, g]` of queries and `[n, g]` of
            documents, and `[n, h, g]` of the hard negatives where there are some: their cosines
            decide about the margin, 0 where none is given.
        normalize: False where all rows have unit length already.

    Returns:
        The mean over queries, a scalar.

    Raises:
        ValueError: Shapes do not fit, an empty batch, or a temperature that is not positive.
        TypeError: Dtypes differ or are not floating point.

    Source: Li et al. 2023, "Towards General Text Embeddings with Multi-stage Contrastive Learning",
    equation 2; Solatorio 2024, "GISTEmbed", equation 1; Zhang et al. 2025, "Qwen3 Embedding",
    equation 1, where the margin is 0.1.
    """
    _check.pairs("document", document, "query", query)
    scale = _check.inverse("temperature", temperature, query.device)
    if margin is not None:
        _check.finite("margin", margin)
    judges, hard_judge = _guide(guide, hard, query)
    margin = 0.0 if guide is not None and margin is None else margin
    q, d = (unit_rows(query), unit_rows(document)) if normalize else (query, document)
    own = row_products(q, d)
    limit = None
    if margin is not None:
        limit = own.detach()
        if judges is not None:
            limit = row_products(*(unit_rows(x) for x in wide(judges, query)))
        limit = held_to(limit, margin)
    gq, gd = (None, None) if judges is None else judges
    blocks = [(q, d, gq, gd)]
    blocks += [(q, q, gq, gq)] * query_query + [(d, d, gd, gd)] * document_document
    # Relative to the own logit: near one over the temperature the sums' last digit is a large one.
    sums = [_others(*block, scale, limit, scale * own) for block in blocks]
    if hard is not None:
        sums.append(_hard(q, hard, hard_judge, gq, scale, limit, own, normalize))
    return softplus(log_sum(torch.stack(sums), 0)).mean()


def _others(rows, columns, row_guide, col_guide, scale, limit, own) -> Tensor:
    """The log of the sum over the columns of other rows, less the own logit, [n]."""
    if limit is None and columns is rows:
        return row_losses(problem(rows, scale=scale, normalize=False)).loss - own
    columns = columns.view_as(columns)
    guide = None if row_guide is None else (row_guide, col_guide)
    ids = torch.arange(len(rows), device=rows.device)
    options: dict[str, Any] = {
        "scale": scale,
        "ids": ids,
        "positives_in": False,
        "normalize": False,
    }
    found = row_losses(problem(rows, columns, limit=limit, guide=guide, **options))
    return found.loss + (found.positive - own)


def _hard(q, hard, judge, row_guide, scale, limit, own, normalize) -> Tensor:
    """The same over a row's own hard negatives; own: a similarity, not a logit."""
    n, h, width = hard.shape
    rows = unit_rows(hard.reshape(n * h, width)).view(n, h, width) if normalize else hard
    dtype = accumulate_dtype(q.dtype)
    with no_autocast(q):
        s = torch.einsum("nd,nhd->nh", q.to(dtype), rows.to(dtype))
        if limit is not None:
            found = s.detach()
            if judge is not None:
                a = unit_rows(row_guide.to(dtype))
                b = unit_rows(judge.flatten(0, 1).to(dtype)).view(judge.shape)
                found = torch.einsum("ng,nhg->nh", a, b)
            s = torch.where(found > limit[:, None], -torch.inf, s)
    return log_sum(scale * (s - own[:, None]), 1)


def _guide(guide, hard, query):
    """Of queries and documents, and of hard negatives."""
    if hard is not None:
        _check.array("hard", hard, 3, "[rows, negatives, width]", ("query", query))
        if len(hard) != len(query) or hard.shape[2] != query.shape[1]:
            raise ValueError(
                f"hard must have shape [{len(query)}, negatives, {query.shape[1]}], "
                f"got {list(hard.shape)}"
            )
    if guide is None:
        return None, None
    if len(guide) != 2 + (hard is not None):
        raise ValueError(
            "guide must hold embeddings of queries and documents, and of hard negatives where "
            f"there are some, got {len(guide)}"
        )
    for i, x in enumerate(guide):
        _check.tensor(f"guide[{i}]", x)
    a, b = (x.detach() for x in guide[:2])
    _check.pairs("guide[1]", b, "guide[0]", a)
    if len(a) != len(query) or a.device != query.device:
        raise ValueError(f"guide[0] must have {len(query)} rows on {query.device}, got {len(a)}")
    judge = None
    if hard is not None:
        judge = guide[2].detach()
        _check.array("guide[2]", judge, 3, "[rows, negatives, width]", ("guide[0]", a))
        if judge.shape != (*hard.shape[:2], a.shape[1]):
            raise ValueError(
                f"guide[2] must have shape {[*hard.shape[:2], a.shape[1]]}, got {list(judge.shape)}"
            )
    return (a, b), judge
