"""sentence-transformers: GISTEmbed, whose guide says which negatives are false, plain and cached.

Another similarity, `sim_matrix` or cross-entropy takes the library's way.
"""

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.sentence_transformer import losses
from sentence_transformers.util import batch_to_device
from torch import Tensor, nn

from .. import distributed
from ..functional import row_products, unit_rows
from ..functional.rows import held_to, softplus, wide
from ..functional.rows import log_sum as of_logits
from ..reference import accumulate_dtype
from ._common import hooked, in_dtype_of, log_sum, of_one_dtype, replaced


class GISTEmbedLoss(losses.GISTEmbedLoss):
    """Every anchor against its positive, the anchors, positives and negatives of the batch, less
    those that the guide holds for closer.

    Equal to the library's class of this name, in memory linear in the number of rows.
    """

    def forward(
        self,
        sentence_features: Iterable[dict[str, Tensor]],
        labels: Tensor,
    ) -> Tensor:
        """A scalar; labels are not used."""
        features = list(sentence_features)
        if len(features) not in (2, 3) or not _streams(self):
            return super().forward(features, labels)
        # The model writes into what it is given, and Matryoshka wrappers come back for that.
        guided = [dict(x) for x in features]
        embeddings = embed_columns(self.model, features)
        with torch.no_grad():
            if self.must_retokenize:
                guided = [self._for_guide(x) for x in guided]
            guides = embed_columns(self.guide, guided)
        return guided_loss(self, embeddings, guides)

    def _for_guide(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same texts in the guide's tokens."""
        ids = features["input_ids"]
        if "cu_seq_lens_q" in features:  # sequences one after the other
            ids = ids[0].tensor_split(features["cu_seq_lens_q"][1:-1].cpu())
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return batch_to_device(self.guide.preprocess(texts), self.guide.device)


class CachedGISTEmbedLoss(losses.CachedGISTEmbedLoss):
    """The cached form: embeddings in mini-batches, the loss over all of them at once.

    Equal to the library's class of this name. The loss stage needs no chunks and shows no progress
    bar.
    """

    def calculate_loss(
        self,
        reps: list[list[Tensor]],  # mini-batches of anchors, of positives, of negatives
        reps_guided: list[list[Tensor]],
        *,
        with_backward: bool = False,
    ) -> Tensor:
        """A scalar, without a graph where with_backward."""
        if len(reps) != len(reps_guided):
            raise ValueError(
                f"reps_guided must be as many as reps, {len(reps)}, got {len(reps_guided)}"
            )
        if not _streams(self):
            return super().calculate_loss(reps, reps_guided, with_backward=with_backward)
        loss = guided_loss(self, [torch.cat(r) for r in reps], [torch.cat(r) for r in reps_guided])
        if with_backward:
            loss.backward()
            loss = loss.detach()
        return loss


def _streams(loss: Any) -> bool:
    """Cosines and the plain cross-entropy, which nobody watches."""
    cosine, entropy = loss.similarity_fct, loss.cross_entropy_loss
    plain = type(cosine) is nn.CosineSimilarity and type(entropy) is nn.CrossEntropyLoss
    if not plain or replaced(loss, "sim_matrix", homes=("sentence_transformers",)):
        return False
    if hooked(cosine) or hooked(entropy):
        return False
    options = cosine.dim, cosine.eps, entropy.weight, entropy.reduction, entropy.label_smoothing
    return options == (-1, 1e-8, None, "mean", 0.0)  # as the library makes them


def guided_loss(
    loss: Any,  # of the library, whose options count
    embeddings: list[Tensor],  # anchors, positives and kinds of negatives, [n, d] each
    guides: list[Tensor],  # the guide's, [n, g] each
) -> Tensor:
    """The mean over the anchors, a scalar in the dtype that the library's has."""
    embeddings = of_one_dtype(embeddings)
    x, n = embeddings[0], len(embeddings[0])
    if len(embeddings[1]) < n:
        raise ValueError(f"positives must be as many as anchors, {n}, got {len(embeddings[1])}")
    rows, own, *others = [unit_rows(e.to(accumulate_dtype(e.dtype))) for e in embeddings]
    # Cosines in the dtype that the operator compares in: equal ones are to stay equal.
    judge, own_judge, *judges = [unit_rows(g) for g in wide(guides, x)]
    docs, doc_judges, first = [own, *others], [own_judge, *judges], 0
    if loss.gather_across_devices:
        first = distributed.rank() * n
        docs = [distributed.gather_with_gradient(d, equal=True) for d in docs]
        doc_judges = [distributed.gather(g, equal=True) for g in doc_judges]
    own, own_judge = own[:n], own_judge[:n]
    limit = _limit(loss, row_products(judge, own_judge))
    scale = 1 / loss.temperature
    columns, judges = torch.cat(docs), torch.cat(doc_judges)
    documents = torch.arange(len(columns), device=x.device)  # negatives have ids of their own
    ids, world = documents[first : first + n], len(docs[0])

    def others_of(q, k, ids, guide):
        return log_sum(q, k, scale, ids, limit=limit, guide=guide)

    sums = [others_of(rows, columns, (ids, documents), (judge, judges))]
    if loss.contrast_anchors:
        sums += [others_of(rows, rows, ids, (judge, judge)), _itself(rows, judge, limit, scale)]
    if loss.contrast_positives:
        pair = own_judge, doc_judges[0]
        sums += [others_of(own, docs[0], (ids, documents[:world]), pair)]
        sums += [_itself(own, own_judge, limit, scale)]
    positive = scale * row_products(rows, own)
    return in_dtype_of(x, softplus(of_logits(torch.stack(sums), 0) - positive).mean())


def _limit(loss: Any, own: Tensor) -> Tensor:
    """The guide's cosine above which a negative of the row is left out, [n]."""
    margin = loss.margin * own.abs() if loss.margin_strategy == "relative" else loss.margin
    return held_to(own - margin, 0.0)


def _itself(x: Tensor, judge: Tensor, limit: Tensor, scale: float | Tensor) -> Tensor:
    """The logit of a row with itself, which the library leaves out only where the guide does: not
    where anchor and positive are the same to it. Its cosine is one, whatever the row: constant."""
    cosine = row_products(x, x).detach()
    return torch.where(row_products(judge, judge) > limit, -torch.inf, scale * cosine)
