"""sentence-transformers: the multiple-negatives ranking loss, plain, cached and of sparse rows.

Streamed where similarity_fct is cos_sim or dot_score; another takes the library's way.
"""

import functools
import warnings
from typing import Any

import torch
from sentence_transformers.sentence_transformer import losses
from sentence_transformers.sparse_encoder import losses as sparse
from sentence_transformers.util import cos_sim, dot_score
from torch import Tensor
from typing_extensions import deprecated

from .. import distributed
from ..contrast.node import mean_loss
from ..contrast.problem import problem
from ..functional import row_products, unit_rows
from ..reference import accumulate_dtype
from ._common import log_sum


class MultipleNegativesRankingLoss(losses.MultipleNegativesRankingLoss):
    """Every query against its document, the other documents of the batch and hard negatives.

    Equal to the library's class of this name, with all its directions, partitions and hardness
    modes, in memory linear in the number of rows.
    """

    def compute_loss_from_embeddings(
        self,
        embeddings: list[Tensor],  # queries, positives and hard negatives, [n, d] each
        labels: Tensor | None,
    ) -> Tensor:
        """A scalar, float32 (float64 for float64 embeddings, and under autocast what the library
        makes of it); labels are not used.

        Embeddings of 16 bits are raised to float32, but under autocast.
        """
        _check_columns(embeddings)
        if not self._streams(embeddings):
            return super().compute_loss_from_embeddings(embeddings, labels)
        x = embeddings[0]
        if not torch.is_autocast_enabled(x.device.type):
            embeddings = [e.to(accumulate_dtype(e.dtype)) for e in embeddings]
        return as_library(x, self._loss_of(embeddings))

    def _streams(self, embeddings) -> bool:
        """Products of dense rows, as many of every kind, or more documents and nothing else."""
        if self.similarity_fct not in (cos_sim, dot_score):
            return False
        if any(e.layout != torch.strided or e.dim() != 2 for e in embeddings):
            return False
        counts = {len(e) for e in embeddings}
        if len(counts) == 1:
            return True
        apart = self.gather_across_devices or self._alpha() or "doc_to_doc" in self.directions
        return not apart and len(embeddings[1]) >= len(embeddings[0])

    def _loss_of(self, embeddings):
        unit = self.similarity_fct is cos_sim
        plain, both = self._is_plain(embeddings[1:]), self._is_both(embeddings)
        if (plain or both) and not self.gather_across_devices:
            ids = [torch.arange(len(e), device=e.device) for e in embeddings]
            ids = ids[0] if len(ids[0]) == len(ids[1]) else tuple(ids)
            options: dict[str, Any] = {
                "scale": self.scale,
                "ids": ids,
                "both": both,
                "unit": unit,
                "normalize": unit,
            }
            return mean_loss(problem(*embeddings, **options))[0]
        queries, *docs = [unit_rows(x) if unit else x for x in embeddings]
        rows, own = queries, [docs[0], *docs[1:]]
        first, n = 0, queries.shape[0]
        if self.gather_across_devices:
            first = distributed.rank() * n
            queries, *docs = (
                distributed.gather_with_gradient(x, equal=True) for x in (queries, *docs)
            )
        columns = torch.arange(queries.shape[0], device=queries.device)
        ids = columns[first : first + n]
        if plain:
            options = {"scale": self.scale, "ids": (ids, columns), "unit": unit}
            return mean_loss(problem(rows, docs[0], **options, normalize=False))[0]
        return self._losses(rows, own, queries, docs, ids, columns, unit).mean()

    def _is_plain(self, docs):
        return len(docs) == 1 and self.directions == ("query_to_doc",) and not self._alpha()

    def _is_both(self, embeddings):
        """Rows against columns and columns against rows, each by itself: one matrix, read twice."""
        square = len(embeddings) == 2 and len(embeddings[0]) == len(embeddings[1])
        apart = self.partition_mode == "per_direction" and not self._alpha()
        return square and apart and set(self.directions) == {"query_to_doc", "doc_to_query"}

    def _alpha(self) -> float:
        return self.hardness_strength if self.hardness_mode else 0.0

    def _losses(self, rows, own, queries, docs, ids, columns, unit):
        """Minus the positive logit plus the log of the sums, [n]."""
        docs_all, documents = torch.cat(docs), columns.repeat(len(docs))
        if any(len(x) != len(columns) for x in docs):  # then only the first kind has positives
            own = [own[0][: len(rows)]]
            documents = torch.arange(len(docs_all), device=columns.device)
        positive = self.scale * row_products(rows, own[0])
        sums = [self._query_to_doc(rows, own, docs_all, ids, documents, positive, unit)]
        pairs = {  # the columns of one's own id are left out
            "query_to_query": (rows, queries, (ids, columns)),
            "doc_to_query": (own[0], queries, None),
            "doc_to_doc": (own[0], docs_all, (ids, documents)),
        }
        for name, (q, k, same) in pairs.items():
            if name in self.directions:
                sums.append(log_sum(q, k, self.scale, same, unit))
        stacked = torch.stack(sums)
        if self.partition_mode == "joint":
            return stacked.logsumexp(0) - positive
        return stacked.mean(0) - positive

    def _query_to_doc(self, rows, own, docs_all, ids, documents, positive, unit):
        """The documents of other queries from one pass, the own ones row by row."""
        queries = rows
        others = ("in_batch_negatives", "all_negatives")
        harder = self._alpha() if self.hardness_mode in others else 0.0
        if harder:
            # What is added is a constant: the gradient of the rows is that of the scale alone.
            share = self.scale / (self.scale + harder)
            share = share.detach().to(rows) if isinstance(share, Tensor) else share
            rows, docs_all = _with_gradient(rows, share), _with_gradient(docs_all, share)
        terms = [log_sum(rows, docs_all, self.scale + harder, (ids, documents), unit), positive]
        own_harder = self._alpha() if self.hardness_mode != "in_batch_negatives" else 0.0
        for hard in own[1:]:
            similarity = row_products(queries, hard)
            terms.append(self.scale * similarity + own_harder * similarity.detach())
        return torch.stack(terms).logsumexp(0)


def _check_columns(embeddings: list[Tensor]) -> None:
    if len(embeddings) < 2:
        raise ValueError(f"Expected at least 2 embeddings, got {len(embeddings)}")
    n, own = len(embeddings[0]), len(embeddings[1])
    if own < n:
        raise ValueError(f"positives must be as many as anchors, {n}, got {own}")


def _with_gradient(x: Tensor, share: float | Tensor) -> Tensor:
    """The same value, of whose gradient a share is left."""
    return x.detach() + share * (x - x.detach())


def as_library(x: Tensor, loss: Tensor) -> Tensor:
    """The dtype of the library's loss: under autocast its products are lowered, and on the CPU
    logsumexp with them."""
    kind = x.device.type
    if kind == "cpu" and x.dtype != torch.float64 and torch.is_autocast_enabled(kind):
        return loss.to(torch.get_autocast_dtype(kind))
    return loss


class CachedMultipleNegativesRankingLoss(losses.CachedMultipleNegativesRankingLoss):
    """The cached form: embeddings in mini-batches, the loss over all of them at once.

    Equal to the library's class of this name. No part of the score matrix is formed, so the loss
    stage needs no chunks and shows no progress bar.
    """

    @functools.wraps(losses.CachedMultipleNegativesRankingLoss.__init__)  # its signature
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        # What the library made, checked and warned of, with fastcl's way to its value.
        self.loss.__class__ = MultipleNegativesRankingLoss

    def calculate_loss(
        self,
        reps: list[list[Tensor]],  # mini-batches of queries, of positives, of hard negatives
        labels: Tensor | None = None,
        *,
        with_backward: bool = False,
    ) -> Tensor:
        """A scalar, without a graph where with_backward."""
        embeddings = [torch.cat(r) for r in reps]
        _check_columns(embeddings)
        ours = isinstance(self.loss, MultipleNegativesRankingLoss)
        if not (ours and self.loss._streams(embeddings)):
            return super().calculate_loss(reps, labels, with_backward=with_backward)
        loss = self.loss.compute_loss_from_embeddings(embeddings, labels)
        if with_backward:
            loss.backward()
            loss = loss.detach()
        return loss


class SparseMultipleNegativesRankingLoss(
    MultipleNegativesRankingLoss, sparse.SparseMultipleNegativesRankingLoss
):
    """The ranking loss of a sparse encoder, for SpladeLoss and CSRLoss.

    Equal to the library's class of this name. Rows are dense in training, as wide as the
    vocabulary.
    """


def _symmetric(original: type) -> Any:
    """The warning of the library's own class."""
    return deprecated(str(original.__deprecated__))


with warnings.catch_warnings():
    # The library warns of subclasses too: that of these is not the user's.
    warnings.simplefilter("ignore", DeprecationWarning)

    @_symmetric(losses.MultipleNegativesSymmetricRankingLoss)
    class MultipleNegativesSymmetricRankingLoss(
        MultipleNegativesRankingLoss, losses.MultipleNegativesSymmetricRankingLoss
    ):
        """Queries against documents and documents against queries, the mean of both.

        Equal to the library's class of this name.
        """

    @_symmetric(losses.CachedMultipleNegativesSymmetricRankingLoss)
    class CachedMultipleNegativesSymmetricRankingLoss(
        CachedMultipleNegativesRankingLoss, losses.CachedMultipleNegativesSymmetricRankingLoss
    ):
        """Its cached form. Equal to the library's class of this name."""
