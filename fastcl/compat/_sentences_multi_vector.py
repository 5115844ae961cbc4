"""sentence-transformers' multi-vector ranking losses, plain and cached, over `functional.max_sim`.

Only the step from token embeddings to the loss differs. Documents or queries without a token, and
another function of scores, are the library's. Mimics version 6.2.0.
"""

from typing import Any

import torch
from sentence_transformers.base.losses.merged_forward import embed_columns_padded
from sentence_transformers.multi_vector_encoder import losses
from sentence_transformers.multi_vector_encoder.scoring import colbert_scores
from sentence_transformers.util import (
    all_gather_padded,
    cat_padded_token_embeddings,
    stack_padded_token_embeddings,
)
from torch import Tensor
from torch.nn.functional import cross_entropy

from .. import distributed
from ..functional import max_sim


def _loss(
    loss: Any,
    query: Tensor,  # [n, Lq, d]
    query_mask: Tensor,  # [n, Lq]
    documents: list[Tensor],  # positives and hard negatives, [n, L, d] each
    masks: list[Tensor],  # [n, L] each
) -> Tensor:
    """The mean over the queries, each against the documents of all."""
    counts, first = [len(x) for x in documents], 0
    if len(set(counts)) != 1 or counts[0] < len(query):
        raise ValueError(
            f"every column of documents must be as long, {len(query)} at least, got {counts}"
        )
    if loss.gather_across_devices:
        first = distributed.rank() * len(query)
        gathered = [
            all_gather_padded(x, mask, with_grad=True)
            for x, mask in zip(documents, masks, strict=True)
        ]
        documents, masks = ([pair[i] for pair in gathered] for i in (0, 1))
    document, mask = stack_padded_token_embeddings(documents, masks)  # [m, columns, L, d]
    if not (query_mask.any(1).all() and mask.any(2).all()):
        scores = colbert_scores(query, document, queries_mask=query_mask, documents_mask=mask)
        own = first + torch.arange(len(query), device=query.device)
        return cross_entropy(scores * loss.scale, own * len(documents))
    if first:  # the own ones before the others
        document, mask = document.roll(-first, 0), mask.roll(-first, 0)
    # All positives before the hard ones.
    document, mask = (x.transpose(0, 1).flatten(0, 1) for x in (document, mask))
    return max_sim(query, document, query_mask, mask, temperature=1 / loss.scale, normalize=False)


class MultiVectorMultipleNegativesRankingLoss(losses.MultiVectorMultipleNegativesRankingLoss):
    """Every query against all documents of the batch, which score by their best tokens.

    Equal to the library's class of this name, without the tensor of all products; queries are not
    scored in chunks.
    """

    def forward(self, sentence_features, labels=None) -> Tensor:
        """A scalar; labels are not used."""
        if self.similarity_fct is not colbert_scores:
            return super().forward(sentence_features, labels)
        query, *documents = (dict(x) for x in sentence_features)
        outputs = self.model(query, task=query.get("task", "query"))
        embed = embed_columns_padded(
            self.model, documents, self.mini_batch_size, task_default="document"
        )
        mask = outputs["attention_mask"].bool()
        return _loss(self, outputs["token_embeddings"], mask, *embed)


class CachedMultiVectorMultipleNegativesRankingLoss(
    losses.CachedMultiVectorMultipleNegativesRankingLoss
):
    """The cached form: token embeddings in mini-batches, the loss over all of them at once.

    Equal to the library's class of this name. No part of the tensor of products is formed, so the
    loss stage needs no chunks and shows no progress bar.
    """

    def calculate_loss(
        self,
        reps: list[list[Tensor]],  # mini-batches of queries, of positives, of hard negatives
        masks_chunks: list[list[Tensor]],
        *,
        with_backward: bool = False,
    ) -> Tensor:
        """A scalar, without a graph where with_backward."""
        if self.similarity_fct is not colbert_scores:
            return super().calculate_loss(reps, masks_chunks, with_backward=with_backward)
        columns = [
            cat_padded_token_embeddings(x, mask) for x, mask in zip(reps, masks_chunks, strict=True)
        ]
        embeddings, masks = ([pair[i].bool() if i else pair[i] for pair in columns] for i in (0, 1))
        loss = _loss(self, embeddings[0], masks[0], embeddings[1:], masks[1:])
        if with_backward:
            loss.backward()
            loss = loss.detach()
        return loss
