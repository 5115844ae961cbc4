"""Every case in plain PyTorch: what fastcl is timed against, and in float64 the truth.

`CHUNKED` holds the same with the matrix formed again in the backward, 1,024 rows at a time: the
linear memory that a few lines of PyTorch can reach.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .cases import BANK_MOMENTUM, BIAS, EPSILON, ITERATIONS, MOMENTUM, TEMPERATURE, Function

CHUNK = 1024


def cosines(q: Tensor, k: Tensor) -> Tensor:
    return F.normalize(q, dim=1) @ F.normalize(k, dim=1).T


def nt_xent(z0: Tensor, z1: Tensor) -> Tensor:
    z = F.normalize(torch.cat([z0, z1]), dim=1)
    s = z @ z.T / TEMPERATURE
    s.fill_diagonal_(-torch.inf)
    return F.cross_entropy(s, torch.arange(len(z), device=z.device).roll(len(z0)))


def sup_con(z: Tensor, labels: Tensor) -> Tensor:
    z = F.normalize(z, dim=1)
    s = z @ z.T / TEMPERATURE
    s = s.fill_diagonal_(-torch.inf)
    same = (labels[:, None] == labels).fill_diagonal_(False)
    log_p = s.log_softmax(1).masked_fill(~same, 0)
    return -(log_p.sum(1) / same.sum(1)).mean()


def clip(image: Tensor, text: Tensor) -> Tensor:
    s = cosines(image, text) / TEMPERATURE
    labels = torch.arange(len(s), device=s.device)
    return (F.cross_entropy(s, labels) + F.cross_entropy(s.T, labels)) / 2


def siglip(image: Tensor, text: Tensor) -> Tensor:
    t = cosines(image, text) / TEMPERATURE + BIAS
    sign = 2 * torch.eye(len(t), dtype=t.dtype, device=t.device) - 1
    return -F.logsigmoid(sign * t).sum() / len(t)


def info_nce(query: Tensor, key: Tensor) -> Tensor:
    s = cosines(query, key) / TEMPERATURE
    return F.cross_entropy(s, torch.arange(len(s), device=s.device))


def moco(query: Tensor, key: Tensor, queue: Tensor) -> Tensor:
    q, k = F.normalize(query, dim=1), F.normalize(key, dim=1)
    s = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / TEMPERATURE
    return F.cross_entropy(s, torch.zeros(len(s), dtype=torch.long, device=s.device))


def nce(x: Tensor, bank: Tensor, index: Tensor) -> Tensor:
    """With the constant that the authors' code adds to both denominators."""
    c = (index.shape[1] - 1) / len(bank)
    s = torch.einsum("bd,bkd->bk", F.normalize(x, dim=1), bank[index])
    p = (s / TEMPERATURE).exp() / len(bank)
    positive = (p[:, 0] / (p[:, 0] + c + 1e-7)).log()
    return -(positive + (c / (p[:, 1:] + c + 1e-7)).log().sum(1)).mean()


def sinkhorn(scores: Tensor) -> Tensor:
    q = (scores / EPSILON).exp()
    for _ in range(ITERATIONS):
        q = q / q.sum(0)
        q = q / q.sum(1, keepdim=True)
    return q


def swav(scores0: Tensor, scores1: Tensor) -> Tensor:
    """Two views that predict each other's assignments."""
    with torch.no_grad():
        targets = [sinkhorn(s) for s in (scores1, scores0)]
    pairs = zip((scores0, scores1), targets, strict=True)
    return sum(F.cross_entropy(s / TEMPERATURE, q) for s, q in pairs) / 2


def bank_update(bank: Tensor, index: Tensor, x: Tensor) -> None:
    rows = BANK_MOMENTUM * bank[index] + (1 - BANK_MOMENTUM) * F.normalize(x, dim=1)
    bank[index] = F.normalize(rows, dim=1)


def moco_push(query: Tensor, key: Tensor, queue: Tensor, pointer: Tensor) -> Tensor:
    """With the copy that MoCo needs because the queue changes before the backward."""
    loss = moco(query, key, queue.clone())
    place = (pointer + torch.arange(len(key), device=key.device)) % len(queue)
    queue[place] = F.normalize(key, dim=1)
    pointer += len(key)
    return loss


def momentum(target: list[Tensor], online: list[Tensor]) -> None:
    for t, o in zip(target, online, strict=True):
        t.lerp_(o.to(t.dtype), 1 - MOMENTUM)


PLAIN: dict[str, Function] = {
    f.__name__: f
    for f in (
        nt_xent, sup_con, clip, siglip, info_nce, moco, nce, sinkhorn, swav, bank_update,
        moco_push, momentum,
    )
}  # fmt: skip


def _over_chunks(chunk, q: Tensor) -> list[Tensor]:
    """`chunk(rows, start)` of every row chunk; the backward computes each of them again."""
    starts = range(0, len(q), CHUNK)
    return [checkpoint(chunk, q[i : i + CHUNK], i, use_reentrant=False) for i in starts]


def _own(s: Tensor, start: int) -> Tensor:
    """The column of its own for every row of a chunk, [rows]."""
    return torch.arange(start, start + len(s), device=s.device)


def chunked_nt_xent(z0: Tensor, z1: Tensor) -> Tensor:
    z = F.normalize(torch.cat([z0, z1]), dim=1)

    def chunk(rows: Tensor, start: int) -> Tensor:
        s = rows @ z.T / TEMPERATURE
        own = _own(s, start)
        s = s.scatter(1, own[:, None], -torch.inf)
        return F.cross_entropy(s, (own + len(z0)) % len(z), reduction="sum")

    return torch.stack(_over_chunks(chunk, z)).sum() / len(z)


def chunked_sup_con(z: Tensor, labels: Tensor) -> Tensor:
    z = F.normalize(z, dim=1)

    def chunk(rows: Tensor, start: int) -> Tensor:
        s = rows @ z.T / TEMPERATURE
        own = _own(s, start)
        s = s.scatter(1, own[:, None], -torch.inf)
        same = (labels[own][:, None] == labels).scatter(1, own[:, None], False)
        return -(s.log_softmax(1).masked_fill(~same, 0).sum(1) / same.sum(1)).sum()

    return torch.stack(_over_chunks(chunk, z)).sum() / len(z)


def chunked_clip(image: Tensor, text: Tensor) -> Tensor:
    q, k = F.normalize(image, dim=1), F.normalize(text, dim=1)

    def chunk(rows: Tensor, start: int) -> tuple[Tensor, Tensor]:
        s = rows @ k.T / TEMPERATURE
        return F.cross_entropy(s, _own(s, start), reduction="sum"), s.logsumexp(0)

    rows, columns = zip(*_over_chunks(chunk, q), strict=True)
    positives = (q * k).sum() / TEMPERATURE
    down = torch.stack(columns).logsumexp(0).sum() - positives
    return (torch.stack(rows).sum() + down) / (2 * len(q))


def chunked_siglip(image: Tensor, text: Tensor) -> Tensor:
    q, k = F.normalize(image, dim=1), F.normalize(text, dim=1)

    def chunk(rows: Tensor, start: int) -> Tensor:
        t = rows @ k.T / TEMPERATURE + BIAS
        sign = torch.full_like(t, -1).scatter(1, _own(t, start)[:, None], 1)
        return -F.logsigmoid(sign * t).sum()

    return torch.stack(_over_chunks(chunk, q)).sum() / len(q)


def chunked_info_nce(query: Tensor, key: Tensor) -> Tensor:
    q, k = F.normalize(query, dim=1), F.normalize(key, dim=1)

    def chunk(rows: Tensor, start: int) -> Tensor:
        s = rows @ k.T / TEMPERATURE
        return F.cross_entropy(s, _own(s, start), reduction="sum")

    return torch.stack(_over_chunks(chunk, q)).sum() / len(q)


CHUNKED: dict[str, Function] = {
    "nt_xent": chunked_nt_xent,
    "sup_con": chunked_sup_con,
    "clip": chunked_clip,
    "siglip": chunked_siglip,
    "info_nce": chunked_info_nce,
}


def _rows_against(q: Tensor, k: Tensor) -> Tensor:
    """PyTorch's own chunked cross-entropy of a linear layer, with the keys for its weight."""
    labels = torch.arange(len(q), device=q.device)
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(q / TEMPERATURE, k, labels, options=options)


def linear_info_nce(query: Tensor, key: Tensor) -> Tensor:
    return _rows_against(F.normalize(query, dim=1), F.normalize(key, dim=1))


def linear_clip(image: Tensor, text: Tensor) -> Tensor:
    q, k = F.normalize(image, dim=1), F.normalize(text, dim=1)
    return (_rows_against(q, k) + _rows_against(k, q)) / 2


# It has no mask for the row itself, and no column of its own per row.
LINEAR: dict[str, Function] = {"info_nce": linear_info_nce, "clip": linear_clip}
