"""Late interaction: queries and documents of many tokens each, as ColBERT compares them."""

import torch
from torch import Tensor

from .. import _check
from ..contrast.max_sim import max_sim_mean


def max_sim(
    query: Tensor,  # [n, Lq, d]
    document: Tensor,  # [m, Ld, d]
    query_mask: Tensor | None = None,  # [n, Lq]
    document_mask: Tensor | None = None,  # [m, Ld]
    hard: Tensor | None = None,  # [n, h, Lh, d]
    hard_mask: Tensor | None = None,  # [n, h, Lh]
    *,
    temperature: float | Tensor = 0.02,  # []
    normalize: bool = True,
) -> Tensor:
    """Contrast of every query with its document against the other documents, where a document
    scores the sum over the query's tokens of the cosine with its best token.

    Equal to ``F.cross_entropy(einsum("ntd,mud->nmtu", q, d).amax(3).sum(2) / temperature,
    arange(n))`` with ``q, d = F.normalize(query, dim=2), F.normalize(document, dim=2)``, without
    that tensor. Of equal tokens of a document the first receives the gradient.

    Args:
        query: `[n, Lq, d]`.
        document: `[m, Ld, d]`, m no less than n; document i is that of query i, the others are its
            negatives.
        query_mask: Optional bool `[n, Lq]`: where there are tokens, anywhere in a row. The others
            take no part, whatever they hold.
        document_mask: The same of documents, `[m, Ld]`.
        hard: Optional `[n, h, Lh, d]`: documents chosen for query i as its negatives, which other
            queries do not meet.
        hard_mask: The same of these, `[n, h, Lh]`.
        temperature: Positive; divides the scores. A tensor of one element receives a gradient.
        normalize: False where all tokens have unit length already.

    Returns:
        The mean over queries, a scalar. On a GPU and in a compiled graph, where nobody looks at
        masks, NaN if one leaves a query or a document without a token.

    Raises:
        ValueError: Shapes do not fit, an empty batch, a query or a document without a token, or a
            temperature that is not positive.
        TypeError: Dtypes differ or are not floating point, or a mask is not bool.

    Source: Khattab and Zaharia 2020, "ColBERT: Efficient and Effective Passage Search via
    Contextualized Late Interaction over BERT", equation 3; Santhanam et al. 2022, "ColBERTv2",
    section 3.2, for the softmax over the documents of the batch.
    """
    masks = query_mask, document_mask, hard_mask
    check_max_sim(query, document, hard, masks, temperature)
    scale = _check.inverse("temperature", temperature, query.device)
    return max_sim_mean(query, document, hard, masks, scale, normalize)


def check_max_sim(
    query: Tensor,  # [n, Lq, d]
    document: Tensor,  # [m, Ld, d]
    hard: Tensor | None,  # [n, h, Lh, d]
    masks: tuple[Tensor | None, Tensor | None, Tensor | None],  # [n, Lq], [m, Ld], [n, h, Lh]
    temperature: float | Tensor,  # []
) -> None:
    """The errors of `max_sim`."""
    query_mask, document_mask, hard_mask = masks
    _check.no_transform()
    _check.array("query", query, 3, "[queries, tokens, width]")
    n, _, d = query.shape
    _check.array("document", document, 3, "[documents, tokens, width]", ("query", query))
    _same_width("document", document, d)
    if len(document) < n:
        raise ValueError(
            f"document must have as many items as query, {n}, or more, got {len(document)}"
        )
    if hard is not None:
        _check.array("hard", hard, 4, "[queries, documents, tokens, width]", ("query", query))
        _same_width("hard", hard, d)
        if len(hard) != n:
            raise ValueError(f"hard must have as many items as query, {n}, got {len(hard)}")
    elif hard_mask is not None:
        raise ValueError("hard_mask must be None where hard is")
    _mask("query_mask", query_mask, "query", query)
    _mask("document_mask", document_mask, "document", document)
    if hard is not None:
        _mask("hard_mask", hard_mask, "hard", hard)
    _check.inverse("temperature", temperature, query.device)


def _same_width(name: str, x: Tensor, d: int) -> None:
    if x.shape[-1] != d:
        raise ValueError(f"{name} must have the width of query, {d}, got {x.shape[-1]}")


def _mask(name: str, mask: Tensor | None, of: str, x: Tensor) -> None:
    """Where x [..., length, d] has tokens: each item has one."""
    if mask is None:
        return
    _check.tensor(name, mask)
    if mask.dtype != torch.bool:
        raise TypeError(f"{name} must be bool, got {mask.dtype}")
    if mask.shape != x.shape[:-1]:
        raise ValueError(
            f"{name} must have the shape of {of}'s tokens, {list(x.shape[:-1])}, "
            f"got {list(mask.shape)}"
        )
    if mask.device != x.device:
        raise ValueError(f"{name} must be on the device of {of}, {x.device}, got {mask.device}")
    if _check.seen(mask) and not (some := mask.any(-1)).all():
        at = (~some).nonzero()[0].tolist()
        raise ValueError(f"{name} must leave a token of every item of {of}, none left of {at}")
