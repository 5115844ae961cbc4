"""The general contrast as one would write it with the matrix, in the dtype of its inputs."""

import math

import plain
import torch


def positive_weights(n, m, itself, labels=None, targets=None, pairs=None):
    """y of every level, [n, m] each."""
    both = lambda x: (x, x) if itself else x  # noqa: E731
    if labels is not None:
        a, b = (x if x.dim() == 2 else x[:, None] for x in both(labels))
        return [(a[:, None, level] == b[None, :, level]) for level in range(a.shape[1])]
    if targets is not None:
        a, b = both(targets)
        return [a @ b.T]
    if pairs is not None:
        row, column, weight = pairs
        weight = torch.ones(len(row)) if weight is None else weight
        return [torch.zeros(n, m, dtype=weight.dtype).index_put((row, column), weight, True)]
    return [torch.eye(n, m)]


def one_direction(s, judge, inside, levels, shares, positives, margin, smoothing):
    total = 0
    for share, y in zip(shares, levels, strict=True):
        y = torch.where(inside, y, 0).to(s.dtype)
        some, allowed = y.sum(1) > 0, inside
        if margin is not None:
            limit = (judge * (y > 0)).sum(1, keepdim=True) + margin
            allowed = inside & ~((judge > limit) & (y == 0))
        lse = torch.where(allowed, s, -torch.inf).logsumexp(1)
        if positives == "sum":
            positive = torch.where(y > 0, s + torch.where(y > 0, y, 1).log(), -torch.inf)
            positive = torch.where(some[:, None], positive, 0).logsumexp(1)
        else:
            spread = smoothing * inside.to(s.dtype) / inside.sum(1, keepdim=True)
            size = torch.where(some, y.sum(1), 1)[:, None]
            weights = (1 - smoothing) * y / size + spread
            positive = torch.where(inside, weights * s, 0).sum(1)
        total = total + share * torch.where(some, lse - positive, 0)
    return total


def contrast(
    query, key=None, *, temperature=0.1, labels=None, level_weights=None, targets=None, pairs=None,
    positives="mean", row_weight=None, column_bias=None, margin=None, guide=None,
    label_smoothing=0.0, both=False, reduction="mean", normalize=True,
):  # fmt: skip
    itself = key is None
    q = plain.unit(query) if normalize else query
    k = q if itself else (plain.unit(key) if normalize else key)
    n, m = len(q), len(k)
    cosine = q @ k.T
    t = temperature if not isinstance(temperature, torch.Tensor) else temperature.reshape(-1, 1)
    s = cosine / t
    if column_bias is not None:
        s = s + column_bias
    judge = cosine.detach()
    if guide is not None:
        a, b = (guide, guide) if itself else guide
        judge, margin = plain.unit(a) @ plain.unit(b).T, margin or 0.0
    inside = torch.ones(n, m, dtype=torch.bool)
    if itself:
        inside.fill_diagonal_(False)
    levels = positive_weights(n, m, itself, labels, targets, pairs)
    shares = [1.0] * len(levels) if level_weights is None else level_weights
    options = shares, positives, margin, label_smoothing
    loss = one_direction(s, judge, inside, levels, *options)
    weight = 1 if row_weight is None else row_weight
    if both:
        turned = one_direction(s.T, judge.T, inside.T, [y.T for y in levels], *options)
        if n == m:
            loss = weight * (loss + turned) / 2
        else:
            return (loss.mean() + turned.mean()) / 2
    else:
        loss = weight * loss
    return {"mean": loss.mean(), "sum": loss.sum(), "none": loss}[reduction]


def mil_nce(query, keys, *, temperature):
    n, p, d = keys.shape
    s = plain.unit(query) @ plain.unit(keys.reshape(n * p, d)).T / temperature
    own = torch.arange(n).repeat_interleave(p) == torch.arange(n)[:, None]
    return (s.logsumexp(1) - torch.where(own, s, -torch.inf).logsumexp(1)).mean()


def _views(z0, z1, temperature):
    """Logits of positives [2n] and of negatives [2n, 2n - 2]."""
    n, z = len(z0), plain.unit(torch.cat([z0, z1]))
    s = z @ z.T / temperature
    index = torch.arange(2 * n)
    negative = (index[:, None] % n) != (index % n)
    return s[index, index.roll(n)], s[negative].view(2 * n, -1)


def hcl(z0, z1, *, temperature, tau_plus, beta):
    """All over the positive's exponential, and what is large as a logarithm: exp(200) is more than
    float32 holds."""
    pos, neg = _views(z0, z1, temperature)
    count = math.log(neg.shape[1])
    hard = ((1 + beta) * neg).logsumexp(1) - (beta * neg).logsumexp(1) + count - pos
    taken = math.log(tau_plus) + count if tau_plus else -torch.inf
    left = hard > taken
    rest = torch.where(left, 1 - (taken - torch.where(left, hard, taken + 1)).exp(), 1).log()
    g = torch.where(left, hard + rest - math.log(1 - tau_plus), -torch.inf)
    return plain.F.softplus(g.maximum(count - 1 / temperature - pos)).mean()


def debiased(z0, z1, *, temperature, tau_plus):
    return hcl(z0, z1, temperature=temperature, tau_plus=tau_plus, beta=0.0)


def rince(z0, z1, *, temperature, q, lam):
    pos, neg = _views(z0, z1, temperature)
    everything = torch.cat([pos[:, None], neg], 1).logsumexp(1) + math.log(lam)
    return ((q * everything).exp() / q - (q * pos).exp() / q).mean()


def retrieval(
    query, document, hard=None, *, temperature, query_query=True, document_document=True,
    margin=None, guide=None,
):  # fmt: skip
    q, d = plain.unit(query), plain.unit(document)
    n, g = len(q), (q, d) if guide is None else [plain.unit(x) for x in guide[:2]]
    margin = 0.0 if guide is not None and margin is None else margin
    own, limit = (q * d).sum(1), (g[0] * g[1]).sum(1, keepdim=True)
    blocks = [(q, d, g[0], g[1])]
    blocks += [(q, q, g[0], g[0])] * query_query + [(d, d, g[1], g[1])] * document_document
    logits = [own[:, None] / temperature]
    for a, b, u, v in blocks:
        out = torch.eye(n, dtype=torch.bool)
        if margin is not None:
            out = out | ((u @ v.T).detach() > limit.detach() + margin)
        logits.append((a @ b.T / temperature).masked_fill(out, -torch.inf))
    if hard is not None:
        s = torch.einsum("nd,nhd->nh", q, plain.F.normalize(hard, dim=2))
        judge = s.detach()
        if guide is not None:
            judge = torch.einsum("ng,nhg->nh", g[0], plain.F.normalize(guide[2], dim=2))
        if margin is not None:
            s = s.masked_fill(judge > limit.detach() + margin, -torch.inf)
        logits.append(s / temperature)
    return plain.F.cross_entropy(torch.cat(logits, 1), torch.zeros(n, dtype=torch.long))


def matryoshka(query, key, *, widths, weights=None, temperature):
    weights = [1.0] * len(widths) if weights is None else weights
    return sum(
        weight * plain.info_nce(query[:, :w], key[:, :w], temperature=temperature)
        for w, weight in zip(widths, weights, strict=True)
    )


def max_sim(
    query, document, query_mask=None, document_mask=None, hard=None, hard_mask=None, *, temperature
):  # fmt: skip
    q, k = (plain.F.normalize(x, dim=2) for x in (query, document))
    s = [torch.einsum("ntd,mud->nmtu", q, k)]
    masks = [None if document_mask is None else document_mask[None, :, None]]
    if hard is not None:
        s.append(torch.einsum("ntd,nhud->nhtu", q, plain.F.normalize(hard, dim=3)))
        masks.append(None if hard_mask is None else hard_mask[:, :, None])
    scores = []
    for x, mask in zip(s, masks, strict=True):
        x = x if mask is None else x.masked_fill(~mask, -torch.inf)
        best = x.gather(3, x.argmax(3, keepdim=True))[..., 0]  # the first of equals
        scores.append((best if query_mask is None else best * query_mask[:, None]).sum(2))
    return plain.F.cross_entropy(torch.cat(scores, 1) / temperature, torch.arange(len(query)))
