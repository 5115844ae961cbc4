"""Whole methods in plain PyTorch, in the order of the papers' algorithm boxes."""

import copy
import math

import plain
import torch
from torch import nn


class SimCLR:
    """Chen et al. 2020, algorithm 1."""

    def __init__(self, network: nn.Module, temperature: float) -> None:
        self.network, self.temperature = network, temperature

    def loss(self, view1, view2):
        z1, z2 = self.network(torch.cat([view1, view2])).chunk(2)
        return plain.nt_xent(z1, z2, temperature=self.temperature)


class MoCo:
    """He et al. 2020, algorithm 1, with the queue as a list of rows, oldest first."""

    def __init__(self, network: nn.Module, queue, momentum: float, temperature: float) -> None:
        self.network, self.target = network, copy.deepcopy(network)
        self.queue = list(queue)
        self.size, self.momentum, self.temperature = len(queue), momentum, temperature

    def loss(self, view1, view2):
        q = self.network(view1)
        with torch.no_grad():
            follow(self.target, self.network, self.momentum)
            k = self.target(view2)
        loss = plain.moco(q, k, torch.stack(self.queue), temperature=self.temperature)
        self.queue = (self.queue + list(plain.unit(k)))[-self.size :]
        return loss


def follow(target: nn.Module, online: nn.Module, momentum: float) -> None:
    with torch.no_grad():
        for t, o in zip(target.parameters(), online.parameters(), strict=True):
            t.copy_(momentum * t + (1 - momentum) * o)


def rising(start: float, step: int, steps: int | None) -> float:
    if steps is None:
        return start
    return 1 - (1 - start) * (math.cos(math.pi * min(1, step / steps)) + 1) / 2


class Plain:
    """A method from the copied networks of ours; only the arithmetic is written anew."""

    def __init__(self, method, **options) -> None:
        self.nets, self.count = method, 0
        vars(self).update(options)
        self.begin()

    def begin(self) -> None: ...

    def after(self) -> None: ...

    def encode(self, view):
        return self.nets.head(self.nets.backbone(view))


class SimCLRLoss(Plain):
    """The other losses of SimCLR."""

    def loss(self, view1, view2, labels=None):
        z1, z2 = self.encode(torch.cat([view1, view2])).chunk(2)
        if labels is not None:
            z = torch.cat([z1, z2])
            return plain.sup_con(z, labels.repeat(2), temperature=self.temperature)
        return getattr(plain, self.name)(z1, z2, temperature=self.temperature)


class InvaSpread(Plain):
    """Ye et al. 2019."""

    def loss(self, view1, view2):
        return plain.inva_spread(
            self.encode(view1), self.encode(view2), temperature=self.temperature,
            negative_weight=self.weight,
        )  # fmt: skip


def bank_step(bank, index, x, momentum) -> None:
    for i, row in zip(index.tolist(), plain.unit(x.detach()), strict=True):
        bank[i] = plain.unit((momentum * bank[i] + (1 - momentum) * row)[None])[0]


def normalizer(x, bank, temperature) -> float:
    return float((plain.unit(x.detach()) @ bank.T / temperature).exp().sum(1).mean())


class InstDisc(Plain):
    """Wu et al. 2018."""

    def begin(self) -> None:
        self.bank, self.z = self.nets.bank.rows.clone(), None

    def loss(self, view, index):
        x = self.encode(view)
        self.seen = index, x
        if self.noise is None:
            return plain.inst_disc(x, self.bank, index, temperature=self.temperature)
        drawn = torch.randint(len(self.bank), (len(x), self.noise))
        self.z = self.z or normalizer(x, self.bank, self.temperature)
        index = torch.cat([index[:, None], drawn], 1)
        return plain.nce(x, self.bank, index, temperature=self.temperature, normalizer=self.z)

    def after(self) -> None:
        bank_step(self.bank, *self.seen, self.momentum)


class CMC(Plain):
    """Tian et al. 2020, all pairs of views."""

    def begin(self) -> None:
        self.banks, self.z = [bank.rows.clone() for bank in self.nets.banks], {}

    def loss(self, views, index):
        parts = zip(self.nets.heads, self.nets.backbone, views, strict=True)
        x = [head(backbone(view)) for head, backbone, view in parts]
        self.seen = index, x
        drawn = torch.randint(len(self.banks[0]), (len(index), self.noise))
        drawn = torch.cat([index[:, None], drawn], 1)
        total = 0
        for a in range(len(x)):
            for b in range(len(x)):
                if a != b:
                    z = self.z.setdefault((a, b), normalizer(x[a], self.banks[b], 0.5))
                    total = total + plain.nce(
                        x[a], self.banks[b], drawn, temperature=0.5, normalizer=z
                    )
        return total

    def after(self) -> None:
        for bank, x in zip(self.banks, self.seen[1], strict=True):
            bank_step(bank, self.seen[0], x, 0.5)


class BatchCMC(Plain):
    """Without banks: every view finds the image's other ones among the batch's."""

    def loss(self, views, index):
        parts = zip(self.nets.heads, self.nets.backbone, views, strict=True)
        x = [plain.unit(head(backbone(view))) for head, backbone, view in parts]
        own, total = torch.arange(len(index)), 0
        for a in range(len(x)):
            for b in range(len(x)):
                if a != b:
                    total = total + nn.functional.cross_entropy(x[a] @ x[b].T / 0.5, own)
        return total


class Twin(Plain):
    """What BYOL and MoCo v3 share."""

    def begin(self) -> None:
        self.target = copy.deepcopy(nn.Sequential(self.nets.backbone, self.nets.head))

    def loss(self, view1, view2):
        p1, p2 = (self.nets.predictor(self.encode(view)) for view in (view1, view2))
        with torch.no_grad():
            z1, z2 = self.target(view1), self.target(view2)
        return self.compare(p1, p2, z1, z2)

    def after(self) -> None:
        online = nn.Sequential(self.nets.backbone, self.nets.head)
        follow(self.target, online, rising(self.momentum, self.count, self.steps))
        self.count += 1


class BYOL(Twin):
    """Grill et al. 2020, algorithm 1."""

    def compare(self, p1, p2, z1, z2):
        return plain.byol(p1, p2, z1, z2)


class MoCoV3(Twin):
    """Chen et al. 2021, algorithm 1."""

    def compare(self, p1, p2, z1, z2):
        return plain.moco_v3(p1, p2, z1, z2, temperature=self.temperature)


class SimSiam(Plain):
    """Chen and He 2021, algorithm 1."""

    def loss(self, view1, view2):
        z1, z2 = self.encode(view1), self.encode(view2)
        return plain.simsiam(self.nets.predictor(z1), self.nets.predictor(z2), z1, z2)


class BarlowTwins(Plain):
    """Zbontar et al. 2021, algorithm 1."""

    def loss(self, view1, view2):
        z1, z2 = self.encode(view1), self.encode(view2)
        return plain.barlow_twins(z1, z2, off_diagonal=self.weight)


class VICReg(Plain):
    """Bardes et al. 2022, algorithm 1."""

    def loss(self, view1, view2):
        return plain.vicreg(self.encode(view1), self.encode(view2), **self.weights)


class NNCLR(Plain):
    """Dwibedi et al. 2021, algorithm 1, with the queue as a list of rows, oldest first."""

    def begin(self) -> None:
        self.queue = list(self.nets.queue.rows)

    def loss(self, view1, view2):
        z1, z2 = self.encode(view1), self.encode(view2)
        p1, p2 = self.nets.predictor(z1), self.nets.predictor(z2)
        self.seen, support = plain.unit(z1.detach()), torch.stack(self.queue)
        n1, n2 = (support[(plain.unit(z.detach()) @ support.T).argmax(1)] for z in (z1, z2))
        first = plain.info_nce(n1, p2, temperature=self.temperature)
        return (first + plain.info_nce(n2, p1, temperature=self.temperature)) / 2

    def after(self) -> None:
        self.queue = (self.queue + list(self.seen))[-len(self.queue) :]


class SwAV(Plain):
    """Caron et al. 2020, algorithm 1, with two sizes of crops, queue and frozen prototypes."""

    def begin(self) -> None:
        self.queues = [[], []]

    def loss(self, view1, view2, *small):
        c, n = self.nets.prototypes, len(view1)
        h = [self.nets.backbone(torch.cat([view1, view2]))]
        h += [self.nets.backbone(torch.cat(small))] if small else []
        z = plain.unit(self.nets.head(torch.cat(h))).split(n)
        scores = [x @ c.T for x in z]
        losses = []
        for a in (0, 1):
            q = scores[a].detach()
            if self.size and self.count >= self.start and len(self.queues[a]) >= self.size:
                older = torch.stack(self.queues[a]) @ c.detach().T
                q = torch.cat([older, q])
            q = plain.sinkhorn(q, epsilon=0.1, iterations=3)[-n:]
            others = [s for v, s in enumerate(scores) if v != a]
            losses += [nn.functional.cross_entropy(s / 0.2, q) for s in others]
        self.seen = [x.detach() for x in z[:2]]
        if self.count < self.freeze:
            c.register_hook(torch.zeros_like)
        return torch.stack(losses).mean()

    def after(self) -> None:
        with torch.no_grad():
            self.nets.prototypes.copy_(plain.unit(self.nets.prototypes))
            self.nets.prototypes = nn.Parameter(self.nets.prototypes)
        self.count += 1
        for a, x in enumerate(self.seen):
            self.queues[a] = (self.queues[a] + list(x))[-self.size :] if self.size else []


class DINO(Plain):
    """Caron et al. 2021, algorithm 1, with small crops, frozen prototypes and both schedules."""

    def begin(self) -> None:
        self.teacher = copy.deepcopy(self.student())
        self.center = torch.zeros(len(self.nets.prototypes.weight), dtype=torch.float64)

    def student(self):
        return nn.ModuleList([self.nets.backbone, self.nets.head, self.nets.prototypes])

    def loss(self, view1, view2, *small):
        n, large = len(view1), torch.cat([view1, view2])
        h = [self.nets.backbone(large)]
        h += [self.nets.backbone(torch.cat(small))] if small else []
        v = self.nets.prototypes.weight
        scores = (plain.unit(self.nets.head(torch.cat(h))) @ plain.unit(v).T).split(n)
        with torch.no_grad():
            backbone, head, last = self.teacher
            targets = plain.unit(head(backbone(large))) @ plain.unit(last.weight).T
        warm = self.warmup * self.steps if self.steps else 0
        share = min(1, self.count / warm) if warm else 1
        loss = plain.dino(
            scores, targets.split(n), center=self.center, temperature=0.2,
            teacher_temperature=0.04 + (0.07 - 0.04) * share, iterations=self.iterations,
        )  # fmt: skip
        self.center = 0.9 * self.center + 0.1 * targets.mean(0)
        if self.count < self.freeze:
            v.register_hook(torch.zeros_like)
        return loss

    def after(self) -> None:
        follow(self.teacher, self.student(), rising(self.momentum, self.count, self.steps))
        self.nets.prototypes.weight = nn.Parameter(self.nets.prototypes.weight.detach())
        self.count += 1
