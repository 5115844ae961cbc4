"""PyLate's contrastive losses of late interaction, plain and cached, as version 1.6.0 has them.

Only the step from token embeddings to the loss differs, which is `functional.max_sim`. Other scores
than `ColBERTScores`, and a temperature that is no positive number of Python, are the library's; its
choice among backends has no part in this.
"""

import math
from typing import Any

import torch
from pylate import losses
from pylate.losses.contrastive import extract_skiplist_mask
from pylate.scores import ColBERTScores
from pylate.utils import all_gather, all_gather_with_gradients
from torch import Tensor

from .. import distributed
from ..functional import max_sim

__all__ = ["CachedContrastive", "Contrastive"]


def _streams(loss: Any) -> bool:
    plain = type(loss.temperature) in (int, float) and 0 < loss.temperature < math.inf
    return plain and type(loss.score_metric) is ColBERTScores


def _of_model(model: Any, name: str) -> Any:
    """An attribute of the ColBERT model, which may be wrapped for several devices."""
    return getattr(model if hasattr(model, name) else model.module, name)


def _loss(
    loss: Any,
    query: Tensor,  # [n, Lq, d]
    documents: list[Tensor],  # positives and hard negatives, [n, L, d] each
    masks: list[Tensor],  # bool [n, Lq], [n, L] each
) -> Tensor:
    """The mean over the queries, each against the documents of all, in the dtype of the library's;
    times the number of ranks where they gather."""
    n, first, counts = len(query), 0, [len(x) for x in documents]
    if not documents or min(counts) < n:
        raise ValueError(f"every column of documents must have {n} rows at least, got {counts}")
    if loss.gather_across_devices:
        first = distributed.rank() * n
        documents = [torch.cat(tuple(all_gather_with_gradients(x))) for x in documents]
        masks = [masks[0], *(torch.cat(tuple(all_gather(mask))) for mask in masks[1:])]
    # A token that does not count scores 0, which may be the best: as zeros in its place do.
    if not _of_model(loss.model, "do_query_expansion"):
        query = query * masks[0].unsqueeze(2)
    document = torch.stack(
        [x * mask.unsqueeze(2) for x, mask in zip(documents, masks[1:], strict=True)]
    )  # [columns, m, L, d]: all positives before the hard ones
    if first:  # the own ones before the others
        document = document.roll(-first, 1)
    document = document.flatten(0, 1)
    value = max_sim(query, document, temperature=loss.temperature, normalize=False)
    if loss.gather_across_devices:
        value = value * distributed.world_size()
    return value if torch.is_autocast_enabled(query.device.type) else value.to(query.dtype)


class Contrastive(losses.Contrastive):
    """Every query against all documents of the batch, which score by their best tokens.

    Equal to the library's class of this name, without the tensor of all products; queries are not
    scored in chunks.
    """

    def forward(self, sentence_features, labels=None) -> Tensor:
        """A scalar; labels are not used."""
        if not _streams(self):
            return super().forward(sentence_features, labels)
        query, *documents = (
            torch.nn.functional.normalize(self.model(x)["token_embeddings"], dim=-1)
            for x in sentence_features
        )
        skiplist = _of_model(self.model, "skiplist")
        masks = extract_skiplist_mask(sentence_features=sentence_features, skiplist=skiplist)
        value = _loss(self, query, documents, masks)
        return value if self.size_average else value * len(query)


class CachedContrastive(losses.CachedContrastive):
    """The cached form: token embeddings in mini-batches, the loss over all of them at once.

    Equal to the library's class of this name, whose gradients are those of the sum over the queries
    where its value is the mean, too. No part of the tensor of products is formed, so the loss stage
    needs no chunks and shows no progress bar.
    """

    def calculate_loss(
        self,
        reps: list[list[Tensor]],  # mini-batches of queries, of positives, of hard negatives
        masks: list[Tensor],
        with_backward: bool = False,
    ) -> Tensor:
        """A scalar, without a graph where with_backward."""
        if not _streams(self):
            return super().calculate_loss(reps, masks, with_backward=with_backward)
        query, *documents = (torch.cat(parts) for parts in reps)
        total = _loss(self, query, documents, masks) * len(query)
        if with_backward:
            total.backward()
            total = total.detach()
        return total / len(query) if self.size_average else total
