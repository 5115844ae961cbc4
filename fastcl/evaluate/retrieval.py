"""Retrieval: how many of the nearest images show the same class."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _check
from .features import labelled
from .knn import nearest


@dataclass(frozen=True)
class Retrieval:
    """Means over the queries, in [0, 1].

    Args:
        k: Neighbours looked at.
        precision: Share of the k neighbours that have the query's label.
        recall: Share of the gallery's rows of the query's label that are among the k; over the
            queries whose label the gallery has.
        hit_rate: Share of the queries with at least one such neighbour ("Recall@k" in metric
            learning).
    """

    k: int
    precision: float
    recall: float
    hit_rate: float


def cosine_neighbours(query: Tensor, gallery: Tensor, k: int) -> Tensor:
    """int64 `[n, k]`: the rows of the gallery nearest to each query by cosine, best first."""
    return nearest(F.normalize(query, dim=1), F.normalize(gallery, dim=1), k)[1]


def retrieve(
    query: Tensor,  # [n, d]
    query_labels: Tensor,  # [n] int64
    gallery: Tensor,  # [m, d]
    gallery_labels: Tensor,  # [m] int64
    *,
    k: int = 10,
) -> Retrieval:
    """Precision, recall and hit rate of the k nearest rows by cosine.

    Args:
        query: Features `[n, d]`, normalised here.
        query_labels: int64 `[n]`; rows of -1, which stands for none, are left out of both.
        gallery: Features `[m, d]`, normalised here; no query is among them.
        gallery_labels: int64 `[m]`.
        k: Neighbours, from 1 to m.

    Raises:
        ValueError: Shapes do not fit, or k is out of range.
        TypeError: Labels that are not int64, or rows that are not floating point.
    """
    _check.rows("gallery", gallery)
    _check.rows("query", query, ("gallery", gallery))
    _check.vector("query_labels", query_labels, query.shape[0], query.device, integer=True)
    _check.vector("gallery_labels", gallery_labels, gallery.shape[0], query.device, integer=True)
    query, query_labels = labelled("query_labels", query_labels, query)
    gallery, gallery_labels = labelled("gallery_labels", gallery_labels, gallery)
    rows = cosine_neighbours(query, gallery, k)
    hits = (gallery_labels[rows] == query_labels[:, None]).sum(1).double()
    classes = int(torch.max(query_labels.max(), gallery_labels.max())) + 1
    relevant = gallery_labels.bincount(minlength=classes)[query_labels]
    known = relevant > 0
    recall = (hits[known] / relevant[known]).mean().item() if known.any() else 0.0
    return Retrieval(k, (hits / k).mean().item(), recall, (hits > 0).double().mean().item())
