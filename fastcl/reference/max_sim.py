"""Late interaction in plain PyTorch: documents scored token by token."""

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import accumulate_dtype, no_autocast
from .unit_rows import SHORTEST


class _Tokens:
    """Tokens [..., length, d] as they go into products, zero where there is none."""

    def __init__(self, x: Tensor, mask: Tensor | None, normalize: bool) -> None:
        self.there = x.new_ones(x.shape[:-1], dtype=torch.bool) if mask is None else mask
        x = torch.where(self.there[..., None], x.to(accumulate_dtype(x.dtype)), 0)
        self.length = torch.linalg.vector_norm(x, dim=-1, keepdim=True) if normalize else None
        self.y = x if self.length is None else x / self.length.clamp(min=SHORTEST)

    def gradient(self, dy: Tensor) -> Tensor:
        """To the tokens as they came."""
        if self.length is None:
            return dy
        across = dy - self.y * (self.y * dy).sum(-1, keepdim=True)
        return torch.where(self.length < SHORTEST, 0, across / self.length)


class _Scores:
    """Of every query and the documents of its row, [n, documents]."""

    def __init__(self, query: _Tokens, document: _Tokens, row: str) -> None:
        self.row = row  # the letters of a document: "m", or "nh" where it belongs to a query
        s = torch.einsum(f"ntd,{row}ud->n{row[-1]}tu", query.y, document.y)
        there = document.there if row == "nh" else document.there[None]
        s = s.masked_fill(~there[:, :, None], -torch.inf)
        self.best = s.argmax(-1)  # [n, documents, Lq], the first of equals
        found = s.gather(-1, self.best[..., None])[..., 0]
        self.query, self.document = query, document
        total = torch.where(query.there[:, None], found, 0).sum(-1)
        some = there.any(-1) & query.there.any(-1, keepdim=True)
        self.total = torch.where(some, total, torch.nan)

    def gradients(self, ds: Tensor) -> tuple[Tensor, Tensor]:  # [n, documents]
        """Of query and document, by the gradient of the scores."""
        each = torch.where(self.query.there[:, None], ds[..., None], 0)
        weights = each.new_zeros(*each.shape, self.document.y.shape[-2])
        weights = weights.scatter(-1, self.best[..., None], each[..., None])
        one, other = f"n{self.row[-1]}tu", f"{self.row}ud"
        dq = torch.einsum(f"{one},{other}->ntd", weights, self.document.y)
        return dq, torch.einsum(f"{one},ntd->{other}", weights, self.query.y)


def max_sim_mean(
    query: Tensor,  # [n, Lq, d]
    document: Tensor,  # [m, Ld, d], m no less than n
    hard: Tensor | None,  # [n, h, Lh, d]
    query_mask: Tensor | None,  # [n, Lq] bool, where there are tokens
    document_mask: Tensor | None,  # [m, Ld]
    hard_mask: Tensor | None,  # [n, h, Lh]
    logit_scale: Tensor | None,  # []
    scale: float,
    normalize: bool,
    need_q: bool,
    need_d: bool,
    need_hard: bool,
    need_scale: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Softmax contrast of queries against documents, which score by their best tokens.

        S_ij = sum_t max_u <q_it, k_ju>,   s = scale * logit_scale
        loss = mean_i (log sum_j exp(s S_ij) - s S_ii)

    j being all documents and the hard ones of row i. Khattab & Zaharia 2020, equation 3.

    Returns:
        loss [], the gradients of query, document and hard in the accumulation dtype, each without
        items where not needed, and [1] the derivative to the logarithm of the scale, else [0].
        NaN where a query or a document has no token.
    """
    dtype = accumulate_dtype(query.dtype)
    total = scale if logit_scale is None else scale * logit_scale.to(dtype)
    q, d = _Tokens(query, query_mask, normalize), _Tokens(document, document_mask, normalize)
    with no_autocast(query):
        scores = [_Scores(q, d, "m")]
        if hard is not None:
            scores.append(_Scores(q, _Tokens(hard, hard_mask, normalize), "nh"))
        loss, ds, slope = _weights(torch.cat([x.total for x in scores], 1), total)
        sizes = [x.total.shape[1] for x in scores]
        found = [x.gradients(g) for x, g in zip(scores, ds.split(sizes, 1), strict=True)]
        dq = q.gradient(reduce(torch.add, (dq for dq, _ in found)))
        dk = [x.document.gradient(dk) for x, (_, dk) in zip(scores, found, strict=True)]
    d_hard = dk[1] if hard is not None else query.new_zeros(0, 0, 0, query.shape[2], dtype=dtype)
    return (
        loss, dq if need_q else dq[:0], dk[0] if need_d else dk[0][:0],
        d_hard if need_hard else d_hard[:0], slope[: int(need_scale)],
    )  # fmt: skip


def _weights(scores: Tensor, scale: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of scores [n, documents], the own one on the diagonal: the mean loss, its gradient [n,
    documents], and [1] that to the logarithm of the scale.

    Summed relative to the own document, as in `contrast`: its p - 1 is e^-loss - 1.
    """
    own = scores.diagonal()[:, None]
    own = own.masked_fill(own == torch.inf, torch.nan)  # no finite loss comes of it
    away = (scores - own) * scale
    others = away.clone()
    others.diagonal().fill_(-torch.inf)
    loss = -F.logsigmoid(-others.logsumexp(1))
    if scores.shape[1] == 1:
        loss = (own - own).squeeze(1)  # 0, or NaN
    p = (others - loss[:, None]).exp()
    slope = torch.where(p > 0, p * away, p).sum() / len(p)
    p.diagonal().copy_(torch.expm1(-loss))
    return loss.mean(), p * (scale / len(p)), slope[None]
