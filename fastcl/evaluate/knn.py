"""Classification by the nearest neighbours, without the matrix of all similarities."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Similarities formed at once: 4M floats are 16 MB.
BLOCK = 2048


def nearest(
    query: Tensor,  # [n, d]
    bank: Tensor,  # [m, d]
    k: int,
    block: int = BLOCK,
) -> tuple[Tensor, Tensor]:
    """The k rows of the bank of highest inner product with each query.

    Equal to ``(query @ bank.T).topk(k)``, a block of queries and of the bank at a time.

    Args:
        query: `[n, d]`.
        bank: `[m, d]`.
        k: Neighbours, from 1 to m.
        block: Rows of either side in one product.

    Returns:
        Similarities `[n, k]`, falling, and int64 rows of the bank `[n, k]`.

    Raises:
        ValueError: k out of range.
    """
    if not 1 <= k <= bank.shape[0]:
        raise ValueError(f"k must be from 1 to the {bank.shape[0]} rows of the bank, got {k}")
    found = []
    for q in query.split(block):
        best = q.new_empty(q.shape[0], 0)
        rows = torch.empty(q.shape[0], 0, dtype=torch.int64, device=q.device)
        for start in range(0, bank.shape[0], block):
            s = q @ bank[start : start + block].T
            s, index = s.topk(min(k, s.shape[1]), dim=1)
            best, rows = torch.cat([best, s], dim=1), torch.cat([rows, index + start], dim=1)
            best, index = best.topk(min(k, best.shape[1]), dim=1)
            rows = rows.gather(1, index)
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
        labels: int64 `[m]`.
        k: Neighbours; all of the bank where it has fewer.
        temperature: Of the weights.
        classes: Number of labels; the highest in `labels` plus one by default.

    Returns:
        int64 `[n]`.

    Source: Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance
    Discrimination", section 3.4, with their temperature.
    """
    classes = int(labels.max()) + 1 if classes is None else classes
    query, bank = F.normalize(query, dim=1), F.normalize(bank, dim=1)
    similarity, rows = nearest(query, bank, min(k, bank.shape[0]))
    # Relative to the nearest: the vote is the same and nothing overflows.
    weight = ((similarity - similarity[:, :1]) / temperature).exp()
    votes = weight.new_zeros(query.shape[0], classes)
    return votes.scatter_add_(1, labels[rows], weight).argmax(1)
