"""The nearest rows of a bank, without the matrix of all similarities, and what they vote for."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _check
from .features import labelled

# Rows of either side in one product: 4M similarities are 16 MB.
BLOCK = 2048


def _top(s: Tensor, k: int) -> tuple[Tensor, Tensor]:  # [n, m] -> two of [n, k]
    """The k highest of each row, falling; of equals the leftmost, which `topk` does not promise."""
    values, index = s.topk(k, dim=1)
    last = values[:, -1:]
    tied = (s == last).sum(1) > (values == last).sum(1)
    if tied.any():
        rows, last = s[tied], last[tied]
        above, equal = rows > last, rows == last
        kept = above | (equal & (equal.cumsum(1) <= k - above.sum(1, keepdim=True)))
        index[tied] = kept.nonzero()[:, 1].view(-1, k)
    index = index.sort(dim=1).values
    values, order = s.gather(1, index).sort(dim=1, descending=True, stable=True)
    return values, index.gather(1, order)


def nearest(
    query: Tensor,  # [n, d]
    bank: Tensor,  # [m, d]
    k: int,
    block: int = BLOCK,
) -> tuple[Tensor, Tensor]:
    """The k rows of the bank of highest inner product with each query.

    Equal to ``(query @ bank.T).sort(dim=1, descending=True, stable=True)`` cut to k columns, a
    block of queries and of the bank at a time: of equal similarities the lower row comes first.

    Args:
        query: `[n, d]`.
        bank: `[m, d]` of the same dtype.
        k: Neighbours, from 1 to m.
        block: Rows of either side in one product.

    Returns:
        Similarities `[n, k]`, falling, and int64 rows of the bank `[n, k]`.

    Raises:
        ValueError: k out of range, or shapes that do not fit.
        TypeError: Dtypes that differ or are not floating point.
    """
    _check.rows("query", query)
    _check.rows("bank", bank, ("query", query))
    if not 1 <= k <= bank.shape[0]:
        raise ValueError(f"k must be from 1 to the {bank.shape[0]} rows of the bank, got {k}")
    found = []
    for q in query.split(block):
        best = q.new_empty(q.shape[0], 0)
        rows = torch.empty(q.shape[0], 0, dtype=torch.int64, device=q.device)
        for start in range(0, bank.shape[0], block):
            s = q @ bank[start : start + block].T
            values, index = _top(s, min(k, s.shape[1]))
            # What is there already is of lower rows, so a stable sort keeps it ahead of equals.
            merged = torch.cat([best, values], dim=1)
            best, order = merged.sort(dim=1, descending=True, stable=True)
            rows = torch.cat([rows, index + start], dim=1).gather(1, order)
            best, rows = best[:, :k], rows[:, :k]
        found.append((best, rows))
    values, rows = zip(*found, strict=True)
    return torch.cat(values), torch.cat(rows)


def knn_predict(
    query: Tensor,  # [n, d]
    bank: Tensor,  # [m, d]
    labels: Tensor,  # [m] int64
    *,
    k: int = 20,
    temperature: float = 0.07,
    classes: int | None = None,
) -> Tensor:
    """The label that the nearest neighbours vote for, each with weight exp(cosine / temperature).

    Args:
        query: Features `[n, d]`, normalised here.
        bank: Features `[m, d]` of known label, normalised here.
        labels: int64 `[m]`; rows of -1, which stands for none, are left out.
        k: Neighbours; all of the bank where it has fewer.
        temperature: Of the weights, above zero.
        classes: Number of labels; the highest in `labels` plus one by default.

    Returns:
        int64 `[n]`; -1 for a query that has no votes, as its similarities are not finite.

    Raises:
        ValueError: A temperature or k that is not positive, shapes that do not fit, or labels that
            reach `classes` or are all -1.
        TypeError: Labels that are not int64, or rows that are not floating point.

    Source: Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance
    Discrimination", section 3.4, with their temperature.
    """
    _check.rows("bank", bank)
    _check.vector("labels", labels, bank.shape[0], bank.device, integer=True)
    temperature = _check.positive("temperature", temperature)
    _check.count("k", k)
    bank, labels = labelled("labels", labels, bank)
    highest = int(labels.max())
    classes = highest + 1 if classes is None else classes
    if highest >= classes:
        raise ValueError(f"labels must be below classes, {classes}, got {highest}")
    query, bank = F.normalize(query, dim=1), F.normalize(bank, dim=1)
    similarity, rows = nearest(query, bank, min(k, bank.shape[0]))
    # Relative to the nearest: the vote is the same and nothing overflows.
    weight = ((similarity - similarity[:, :1]) / temperature).exp()
    votes = weight.new_zeros(query.shape[0], classes)
    votes.scatter_add_(1, labels[rows], weight)
    return torch.where(votes.isfinite().all(1), votes.argmax(1), -1)
