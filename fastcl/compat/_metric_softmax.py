"""pytorch-metric-learning: its NT-Xent and SupCon losses and its cross-batch memory."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pytorch_metric_learning import distances, losses
from pytorch_metric_learning.utils import common_functions as c_f
from torch import Tensor

from ..contrast.node import row_losses
from ..contrast.problem import problem
from ..functional import unit_rows
from ..functional.pairs import log_sum_by_row, matching_pairs, pair_products
from ._common import hooked, log_sum, replaced, several, signed_inverse


class AllPairs(NamedTuple):
    """In place of a tuple of indices: all pairs by label, but for a column that is the row."""

    removed: Tensor | None  # [n] the column that row i is, no positive of it


def _is_replaced(owner, *names: str) -> bool:
    return replaced(owner, *names, homes=("pytorch_metric_learning",))


def streams(loss, method: str, *scales: float | Tensor) -> bool:
    """The distance is a product, the formula that of the library by this method, and what divides
    or multiplies similarities one number above zero."""
    distance = loss.distance
    return (
        not _is_replaced(loss, "_compute_loss", method)
        and loss.loss_method == getattr(loss, method)
        and not any(several(x) or x <= 0 for x in scales)
        and type(distance) in (distances.CosineSimilarity, distances.DotProductSimilarity)
        and not _is_replaced(distance, "forward", "compute_mat", "maybe_normalize", "normalize")
        and not hooked(distance)
        and distance.power == 1
        and (distance.p == 2 or not distance.normalize_embeddings)
    )


def rows_of(loss, embeddings, ref_emb, apart=False):
    """Rows and columns as the distance takes them; columns None where they are the rows, unless
    they are to be kept apart, having other labels."""
    distance = loss.distance
    distance.reset_stats()
    distance.check_shapes(embeddings, ref_emb)
    # A memory may be written before the backward.
    make = unit_rows if distance.normalize_embeddings else torch.Tensor.clone
    q = make(embeddings)
    k = None if ref_emb is embeddings and not apart else make(ref_emb)
    distance.set_default_stats(embeddings, ref_emb, q, q if k is None else k)
    return q, k, distance.normalize_embeddings


def ids_of(labels, ref_labels):
    """Labels of any dtype as integers. A memory may be written before the backward."""
    if labels.dtype == torch.long and ref_labels.dtype == torch.long:
        return labels, labels if ref_labels is labels else ref_labels.clone()
    ids = torch.cat([labels, ref_labels]).unique(return_inverse=True)[1]
    return ids[: len(labels)], ids[len(labels) :]


def positives_of(row_ids, col_ids, removed):
    """All pairs of equal label and the number of the others."""
    a, p = matching_pairs(row_ids, col_ids)
    negatives = len(row_ids) * len(col_ids) - len(a)
    if removed is not None:
        other = p != removed[a]
        a, p = a[other], p[other]
    return a, p, negatives


def _removed(indices_tuple, labels, ref_labels):
    """The library takes the diagonal out where both labels are one tensor."""
    if isinstance(indices_tuple, AllPairs):
        return indices_tuple.removed
    return torch.arange(len(labels), device=labels.device) if ref_labels is labels else None


class NTXentLoss(losses.NTXentLoss):
    """NT-Xent with a denominator for every positive pair: that pair and the row's negatives.

    Equal to pytorch_metric_learning.losses.NTXentLoss, in memory linear in the number of rows and
    of positive pairs. Explicit pairs or triplets are streamed too.
    """

    method = "pair_based_loss"

    def compute_loss(self, embeddings, labels, indices_tuple, ref_emb, ref_labels):
        if not streams(self, NTXentLoss.method, self.temperature):
            return super().compute_loss(embeddings, labels, indices_tuple, ref_emb, ref_labels)
        c_f.labels_or_indices_tuple_required(labels, indices_tuple)
        _, scale = signed_inverse(self.temperature, embeddings.device)
        if indices_tuple is None or isinstance(indices_tuple, AllPairs):
            removed = _removed(indices_tuple, labels, ref_labels)
            ids = ids_of(labels, ref_labels)
            a, p, negatives = positives_of(*ids, removed)
            if len(a) == 0 or negatives == 0 or (len(a) <= 1 and negatives <= 1):
                return self.zero_losses()
            q, k, unit = rows_of(self, embeddings, ref_emb, ref_labels is not labels)
            lse = log_sum(q, k, scale, ids[0] if k is None else ids, unit)
        else:
            a, p, a2, n = self._explicit(indices_tuple)
            if len(a) == 0 or len(a2) == 0 or (len(a) <= 1 and len(a2) <= 1):
                return self.zero_losses()
            q, k, _ = rows_of(self, embeddings, ref_emb)
            negatives = scale * pair_products(q, q if k is None else k, a2, n)
            lse = log_sum_by_row(negatives, a2, len(q))
        positive = scale * pair_products(q, q if k is None else k, a, p)
        loss = -F.logsigmoid(positive - lse[a])
        # The library adds the least number to the fraction before it takes the logarithm.
        tiny = loss.new_tensor(math.log(c_f.small_val(embeddings.dtype)))
        values = -torch.logaddexp(-loss, tiny)
        return {
            "loss": {
                "losses": c_f.to_dtype(values, embeddings),
                "indices": (a, p),
                "reduction_type": "pos_pair",
            }
        }

    @staticmethod
    def _explicit(indices_tuple):
        if len(indices_tuple) == 4:
            return indices_tuple
        a, p, n = indices_tuple
        return a, p, a, n


class SupConLoss(losses.SupConLoss):
    """The supervised contrastive loss, the mean over rows whose loss is above zero.

    Equal to pytorch_metric_learning.losses.SupConLoss, in memory linear in the number of rows.
    Explicit pairs or triplets take the library's way, which forms the matrix.
    """

    method = "mat_based_loss"

    def compute_loss(self, embeddings, labels, indices_tuple, ref_emb, ref_labels):
        given = indices_tuple is not None and not isinstance(indices_tuple, AllPairs)
        if given or not streams(self, SupConLoss.method, self.temperature):
            return super().compute_loss(embeddings, labels, indices_tuple, ref_emb, ref_labels)
        c_f.labels_or_indices_tuple_required(labels, indices_tuple)
        if len(embeddings) == 0:  # a memory may have enqueued them all
            return self.zero_losses()
        removed = _removed(indices_tuple, labels, ref_labels)
        ids = ids_of(labels, ref_labels)
        q, k, unit = rows_of(self, embeddings, ref_emb)
        _, scale = signed_inverse(self.temperature, embeddings.device)
        if (k is None) == (removed is not None):
            ids = ids[0] if k is None else ids
            result = row_losses(problem(q, k, scale=scale, ids=ids, unit=unit, normalize=False))
            count, loss = result.count, result.loss
            matches = int(count.sum()) + (len(q) if k is None else 0)
            negatives = len(q) * len(ref_emb) - matches
        else:
            loss, count, negatives = self._but_one(q, k, ids, removed, scale, unit)
        positives = int(count.sum())
        if positives == 0 or negatives == 0 or (positives <= 1 and negatives <= 1):
            return self.zero_losses()
        # The library rounds what is below half a unit in the last place of 1 to zero, and a zero
        # does not take part in the mean.
        zero = (count == 0) | (loss <= torch.finfo(embeddings.dtype).eps / 2)
        return {
            "loss": {
                "losses": c_f.to_dtype(torch.where(zero, 0, loss), embeddings),
                "indices": torch.arange(len(q), device=q.device),
                "reduction_type": "element",
            }
        }

    @staticmethod
    def _but_one(q, k, ids, removed, scale, unit):
        """One column per row is neither positive nor negative: positives are formed apart."""
        a, p, negatives = positives_of(*ids, removed)
        columns = q if k is None else k
        s = scale * pair_products(q, columns, a, p)
        lse = torch.logaddexp(log_sum(q, columns, scale, ids, unit), log_sum_by_row(s, a, len(q)))
        count = torch.bincount(a, minlength=len(q)).to(s.dtype)
        mean = s.new_zeros(len(q)).index_add(0, a, s) / count.clamp(min=1)
        return lse - mean, count, negatives


class CrossBatchMemory(losses.CrossBatchMemory):
    """A ring of embeddings that are positives and negatives of the batch.

    Equal to pytorch_metric_learning.losses.CrossBatchMemory: the batch is enqueued first and does
    not meet itself. Without a miner and explicit indices, no pairs of the losses above are listed.
    """

    def create_indices_tuple(
        self,
        embeddings,
        labels,
        E_mem,
        L_mem,
        input_indices_tuple,
        do_remove_self_comparisons,
    ):
        known = type(self.loss) in (NTXentLoss, SupConLoss) and not hooked(self.loss)
        listed = self.miner or input_indices_tuple is not None
        if listed or not known or not self._unlisted():
            return super().create_indices_tuple(
                embeddings, labels, E_mem, L_mem, input_indices_tuple, do_remove_self_comparisons
            )
        # The library does not find the self-comparison of a single row; neither does this.
        remove = do_remove_self_comparisons and len(self.curr_batch_idx) > 1
        return AllPairs(self.curr_batch_idx if remove else None)

    def _unlisted(self) -> bool:
        """Whether nobody but the losses above sees the pairs."""
        if _is_replaced(self.loss, "forward", "compute_loss"):
            return False
        return streams(self.loss, self.loss.method, self.loss.temperature)
