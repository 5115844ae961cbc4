"""pytorch-metric-learning: losses with a sum over a row's negatives beside its positive pairs."""

import torch
from pytorch_metric_learning import losses
from pytorch_metric_learning.utils import common_functions as c_f

from ..functional.pairs import log_sum_by_row, pair_products
from ..functional.rows import softplus
from ._common import log_sum
from ._metric_softmax import ids_of, positives_of, rows_of, streams


def _parts(loss, embeddings, labels, ref_emb, ref_labels, scale):
    """Positive pairs, their similarities, and the log of the sum over negatives of every row; None
    where the library finds too few pairs."""
    c_f.labels_or_indices_tuple_required(labels, None)
    removed = None
    if ref_labels is labels:
        removed = torch.arange(len(labels), device=labels.device)
    ids = ids_of(labels, ref_labels)
    a, p, negatives = positives_of(*ids, removed)
    if len(a) <= 1 and negatives <= 1:
        return None
    q, k, unit = rows_of(loss, embeddings, ref_emb, ref_labels is not labels)
    lse = log_sum(q, k, scale, ids[0] if k is None else ids, unit)
    return a, p, negatives, pair_products(q, q if k is None else k, a, p), lse


class MultiSimilarityLoss(losses.MultiSimilarityLoss):
    """How near a row's positives and how far its negatives are, each a soft maximum.

    Equal to pytorch_metric_learning.losses.MultiSimilarityLoss, in memory linear in the number of
    rows and of positive pairs. Explicit pairs or triplets take the library's way.
    """

    def compute_loss(self, embeddings, labels, indices_tuple, ref_emb, ref_labels):
        ours = streams(self, "mat_based_loss", self.alpha, self.beta)
        if indices_tuple is not None or not ours:
            return super().compute_loss(embeddings, labels, indices_tuple, ref_emb, ref_labels)
        parts = _parts(self, embeddings, labels, ref_emb, ref_labels, self.beta)
        if parts is None:
            return self.zero_losses()
        a, _, _, s, lse = parts
        near = log_sum_by_row(self.alpha * (self.base - s), a, len(lse))
        values = softplus(near) / self.alpha + softplus(lse - self.beta * self.base) / self.beta
        return {
            "loss": {
                "losses": c_f.to_dtype(values, embeddings)[:, None],
                "indices": torch.arange(len(lse), device=lse.device),
                "reduction_type": "element",
            }
        }


class TupletMarginLoss(losses.TupletMarginLoss):
    """Every positive pair, at an angle wider by a margin, against all negatives of its row.

    Equal to pytorch_metric_learning.losses.TupletMarginLoss, in memory linear in the number of
    rows and of positive pairs. Explicit pairs or triplets, and statistics, take the library's way.
    """

    def compute_loss(self, embeddings, labels, indices_tuple, ref_emb, ref_labels):
        listed = indices_tuple is not None or self.collect_stats
        if listed or not streams(self, "pair_based_loss", self.scale):
            return super().compute_loss(embeddings, labels, indices_tuple, ref_emb, ref_labels)
        parts = _parts(self, embeddings, labels, ref_emb, ref_labels, self.scale)
        if parts is None or len(parts[0]) == 0 or parts[2] == 0:
            return self.zero_losses()
        a, p, _, s, lse = parts
        values = softplus(lse[a] - self.scale * torch.cos(torch.acos(s) - self.margin))
        return {
            "loss": {
                "losses": c_f.to_dtype(values, embeddings)[:, None],
                "indices": (a, p),
                "reduction_type": "pos_pair",
            }
        }
