"""Every loss as one would write it in plain PyTorch, in the dtype of its inputs."""

import torch
import torch.nn.functional as F


def unit(x):
    return F.normalize(x, dim=1, eps=1e-12)


def info_nce(query, key, negatives=None, *, temperature, negative_mode="unpaired"):
    q, k = unit(query), unit(key)
    if negatives is None:
        return F.cross_entropy(q @ k.T / temperature, torch.arange(len(q)))
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


def nt_xent(z0, z1, *, temperature):
    return F.cross_entropy(*_two_views(z0, z1, temperature))


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


def clip(image, text, logit_scale):
    s = logit_scale * unit(image) @ unit(text).T
    labels = torch.arange(len(s))
    return (F.cross_entropy(s, labels) + F.cross_entropy(s.T, labels)) / 2


def moco(query, key, queue, *, temperature):
    q, k = unit(query), unit(key.detach())
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))


def siglip(image, text, logit_scale, logit_bias):
    t = logit_scale * unit(image) @ unit(text).T + logit_bias
    sign = 2 * torch.eye(len(t), dtype=t.dtype) - 1
    return -F.logsigmoid(sign * t).sum() / len(t)
