"""Every loss as one would write it in plain PyTorch, in the dtype of its inputs."""

import math

import torch
import torch.nn.functional as F


def unit(x):
    return F.normalize(x, dim=1, eps=1e-12)


def with_duplicates(s, own, same, duplicates, smoothing=0.0):
    """Cross-entropy of logits s with masks of every row's own column and of its duplicates."""
    if smoothing:
        return F.cross_entropy(
            s, same.to(s.dtype) / same.sum(1, keepdim=True), label_smoothing=smoothing
        )
    if duplicates == "ignore":
        s, same = s.masked_fill(same & ~own, -torch.inf), own
    log_p = torch.where(same, s.log_softmax(1), 0)
    return -(log_p.sum(1) / same.sum(1)).mean()


def info_nce(
    query, key, negatives=None, *, temperature, negative_mode="unpaired", ids=None, duplicates=None,
    label_smoothing=0.0,
):  # fmt: skip
    q, k = unit(query), unit(key)
    if ids is not None:
        own, same = torch.eye(len(q), dtype=torch.bool), ids[:, None] == ids
        return with_duplicates(q @ k.T / temperature, own, same, duplicates, label_smoothing)
    if negatives is None:
        own = torch.arange(len(q))
        return F.cross_entropy(q @ k.T / temperature, own, label_smoothing=label_smoothing)
    positive = (q * k).sum(1, keepdim=True)
    if negative_mode == "unpaired":
        others = q @ unit(negatives).T
    else:
        others = torch.einsum("nd,nmd->nm", q, F.normalize(negatives, dim=2, eps=1e-12))
    logits = torch.cat([positive, others], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))


def _two_views(z0, z1, temperature):
    z = unit(torch.cat([z0, z1]))
    s = (z @ z.T / temperature).masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf)
    return s, torch.arange(len(z)).roll(len(z0))


def nt_xent(z0, z1, *, temperature, ids=None, duplicates=None):
    s, partner = _two_views(z0, z1, temperature)
    if ids is None:
        return F.cross_entropy(s, partner)
    ids, itself = ids.repeat(2), torch.eye(len(s), dtype=torch.bool)
    return with_duplicates(s, itself[partner], (ids[:, None] == ids) & ~itself, duplicates)


def dcl(z0, z1, *, temperature):
    s, partner = _two_views(z0, z1, temperature)
    rows = torch.arange(len(s))
    negatives = s.index_put((rows, partner), torch.tensor(-torch.inf, dtype=s.dtype))
    return (negatives.logsumexp(1) - s[rows, partner]).mean()


def flat_nce(z0, z1, *, temperature):
    value = dcl(z0, z1, temperature=temperature)
    return nt_xent(z0, z1, temperature=temperature).detach() + value - value.detach()


def sup_con(z, labels, *, temperature, base_temperature=None):
    z = unit(z)
    itself = torch.eye(len(z), dtype=torch.bool)
    s = (z @ z.T / temperature).masked_fill(itself, -torch.inf)
    same = (labels[:, None] == labels) & ~itself
    log_p = torch.where(same, s.log_softmax(1), 0)
    loss = -(log_p.sum(1) / same.sum(1).clamp(min=1)).mean()
    return loss * (temperature / (base_temperature or temperature))


def clip(image, text, logit_scale, *, ids=None, duplicates=None, label_smoothing=0.0):
    s = logit_scale * unit(image) @ unit(text).T
    if ids is not None:
        masks = torch.eye(len(s), dtype=torch.bool), ids[:, None] == ids
        return sum(with_duplicates(x, *masks, duplicates, label_smoothing) for x in (s, s.T)) / 2
    labels, options = torch.arange(len(s)), {"label_smoothing": label_smoothing}
    return (F.cross_entropy(s, labels, **options) + F.cross_entropy(s.T, labels, **options)) / 2


def moco(query, key, queue, *, temperature, ids=None, queue_ids=None, duplicates=None):
    q, k = unit(query), unit(key.detach())
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / temperature
    if ids is not None:
        own = torch.arange(len(queue) + 1).expand(len(q), -1) == 0
        same = torch.cat([own[:, :1], ids[:, None] == queue_ids], 1)
        return with_duplicates(logits, own, same, duplicates)
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))


def siglip(image, text, logit_scale, logit_bias, *, ids=None, duplicates=None):
    t = logit_scale * unit(image) @ unit(text).T + logit_bias
    if ids is not None:
        own, same = torch.eye(len(t), dtype=torch.bool), ids[:, None] == ids
        match = own if duplicates == "ignore" else same
        losses = torch.where(match, -F.logsigmoid(t), -F.logsigmoid(-t))
        return losses.masked_fill(same & ~match, 0).sum() / len(t)
    sign = 2 * torch.eye(len(t), dtype=t.dtype) - 1
    return -F.logsigmoid(sign * t).sum() / len(t)


def dclw(z0, z1, *, temperature, sigma=0.5):
    s, partner = _two_views(z0, z1, temperature)
    rows = torch.arange(len(s))
    positive = s[rows, partner]
    negatives = s.index_put((rows, partner), torch.tensor(-torch.inf, dtype=s.dtype))
    weight = 2 - len(z0) * (positive[: len(z0)].detach() * temperature / sigma).softmax(0)
    return (negatives.logsumexp(1) - weight.repeat(2) * positive).mean()


def moco_v3(q1, q2, k1, k2, *, temperature):
    loss = info_nce(q1, k2.detach(), temperature=temperature)
    return 2 * temperature * (loss + info_nce(q2, k1.detach(), temperature=temperature))


def byol(p1, p2, z1, z2):
    first = 2 - 2 * F.cosine_similarity(p1, z2.detach(), eps=1e-12)
    return (first + 2 - 2 * F.cosine_similarity(p2, z1.detach(), eps=1e-12)).mean()


def simsiam(p1, p2, z1, z2):
    first = F.cosine_similarity(p1, z2.detach(), eps=1e-12)
    return -(first + F.cosine_similarity(p2, z1.detach(), eps=1e-12)).mean() / 2


def barlow_twins(z0, z1, *, off_diagonal=0.0051):
    a, b = (F.batch_norm(z, None, None, training=True) for z in (z0, z1))
    c = a.T @ b / len(z0)
    eye = torch.eye(len(c), dtype=c.dtype)
    return ((c - eye).square() * (eye + off_diagonal * (1 - eye))).sum()


def vicreg(z0, z1, *, invariance=25.0, variance=25.0, covariance=1.0):
    loss, off = invariance * F.mse_loss(z0, z1), 1 - torch.eye(z0.shape[1], dtype=z0.dtype)
    for z in (z0, z1):
        loss = loss + variance / 2 * (1 - (z.var(0) + 1e-4).sqrt()).relu().mean()
        c = (z - z.mean(0)).T @ (z - z.mean(0)) / (len(z) - 1)
        loss = loss + covariance * (c * off).square().sum() / len(c)
    return loss


def sinkhorn(scores, *, epsilon, iterations):
    s = scores / epsilon
    for _ in range(iterations):
        s = s - s.logsumexp(0)
        s = s - s.logsumexp(1, keepdim=True)
    return s.exp()


def swav(scores, *, assign=2, temperature, epsilon=0.05, iterations=3):
    losses = []
    for a in range(assign):
        q = sinkhorn(scores[a].detach(), epsilon=epsilon, iterations=iterations)
        others = [s for v, s in enumerate(scores) if v != a]
        losses += [F.cross_entropy(s / temperature, q) for s in others]
    return torch.stack(losses).mean()


def dino(student, teacher, *, center, temperature, teacher_temperature, iterations=0):
    """Softmax of the teacher's scores less the center, or so many of Sinkhorn's iterations."""
    losses = []
    for a, t in enumerate(teacher):
        q = ((t.detach() - center) / teacher_temperature).softmax(1)
        if iterations:
            q = sinkhorn(t.detach(), epsilon=teacher_temperature, iterations=iterations)
        for v, s in enumerate(student):
            if v != a:
                losses.append(-(q * (s / temperature).log_softmax(1)).sum(1).mean())
    return torch.stack(losses).mean()


def soft_cross_entropy(scores, target, *, temperature):
    return -(target * (scores / temperature).log_softmax(1)).sum(1).mean()


def inst_disc(x, bank, target, *, temperature):
    return F.cross_entropy(unit(x) @ bank.T / temperature, target)


def nce(x, bank, index, *, temperature, normalizer, noise=None):
    noise = torch.full((len(bank),), 1 / len(bank), dtype=x.dtype) if noise is None else noise
    c = (index.shape[1] - 1) * noise[index]
    s = torch.einsum("bd,bkd->bk", unit(x), bank[index]) / temperature
    log_p, log_c = s - math.log(normalizer), (c + 1e-7).log()
    positive = F.logsigmoid(log_p[:, 0] - log_c[:, 0])
    negative = F.logsigmoid(log_c - log_p)[:, 1:] - torch.log1p(1e-7 / c[:, 1:])
    return -(positive + negative.sum(1)).mean()


def cmc(l, ab, bank_l, bank_ab, index, *, temperature, normalizer_l, normalizer_ab):  # noqa: E741
    loss = nce(l, bank_ab, index, temperature=temperature, normalizer=normalizer_l)
    return loss + nce(ab, bank_l, index, temperature=temperature, normalizer=normalizer_ab)


def inva_spread(z0, z1, *, temperature, negative_weight=1.0):
    z = unit(torch.cat([z0, z1]))
    itself = torch.eye(len(z), dtype=torch.bool)
    positive = itself.roll(len(z0), 1)
    s = (z @ z.detach().T / temperature).masked_fill(itself, -torch.inf)
    weighted = torch.where(positive, s, s + math.log(negative_weight))
    log_p = s - weighted.logsumexp(1, keepdim=True)
    p = log_p.masked_fill(positive, -torch.inf).exp()
    return -(log_p[positive].mean() + negative_weight * torch.log1p(-p).sum(1).mean())


def cpc(future, context, weight):
    losses = []
    for encoding, matrix in zip(future, weight, strict=True):
        s = encoding @ (context @ matrix.T).T
        losses.append(F.cross_entropy(s, torch.arange(len(s))))
    return torch.stack(losses).mean()


def _own_and_others(local, summary):
    """Logits of the same sample [n, m, l], of all others [n, m, n - 1, l]."""
    u = torch.einsum("idm,jdl->imjl", summary, local)
    n = len(u)
    same = torch.eye(n, dtype=torch.bool)[:, None, :].expand(n, u.shape[1], n)
    return u[same].view(n, u.shape[1], -1), u[~same].view(n, u.shape[1], n - 1, -1)


def dim_jsd(local, summary):
    own, others = _own_and_others(local, summary)
    return F.softplus(others).mean() + F.softplus(-own).mean() - 2 * math.log(2)


def dim_nce(local, summary, *, self_logit=-10.0):
    own, others = _own_and_others(local, summary)
    leak = own.new_full(own.shape, self_logit)
    negatives = torch.cat([others.flatten(2), leak], 2).logsumexp(2, keepdim=True)
    return (torch.logaddexp(own, negatives) - own).mean()


def sim_cse(z0, z1, hard=None, *, temperature, hard_weight=0.0, ids=None, duplicates=None):
    q, rows = unit(z0), torch.arange(len(z0))
    s = q @ unit(z1).T / temperature
    if hard is not None:
        eye = torch.eye(len(q), dtype=q.dtype)
        s = torch.cat([s, q @ unit(hard).T / temperature + hard_weight * eye], 1)
    if ids is not None:
        own = torch.arange(s.shape[1]) == rows[:, None]
        same = F.pad(ids[:, None] == ids, (0, s.shape[1] - len(q)))
        return with_duplicates(s, own, same, duplicates)
    return F.cross_entropy(s, rows)


def dim_dv(local, summary):
    own, others = _own_and_others(local, summary)
    return others.exp().mean().log() - own.mean()


def negative_sampling(x, bank, index):
    s = torch.einsum("bd,bkd->bk", x, bank[index])
    return -(F.logsigmoid(s[:, 0]) + F.logsigmoid(-s[:, 1:]).sum(1)).mean()
