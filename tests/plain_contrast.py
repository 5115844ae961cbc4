"""The general contrast as one would write it with the matrix, in the dtype of its inputs."""

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
            positive = torch.where(y > 0, s + y.clamp(min=1e-300).log(), -torch.inf).logsumexp(1)
        else:
            spread = smoothing * inside.to(s.dtype) / inside.sum(1, keepdim=True)
            weights = (1 - smoothing) * y / y.sum(1, keepdim=True).clamp(min=1e-300) + spread
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
    shares = [1 / len(levels)] * len(levels) if level_weights is None else level_weights
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
