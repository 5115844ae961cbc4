"""The methods as users of lightly write them, of its heads, losses, memory bank and schedules.

Each takes fastcl's method, starts at its weights and has its numbers; what lightly has besides, a
bias or a shift, starts at zero. `backbone` is what is judged, `update` comes after the optimiser.
Crops pass through the network one after the other, as in lightly's documentation; "dino-exchanged"
passes them as fastcl does.
"""

import copy
from collections.abc import Callable, Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcl import methods

from .absent import imported
from .accuracy_methods import EXCHANGED

losses, modules, utils, scheduler = (
    imported(f"lightly.{name}")
    for name in ("loss", "models.modules", "models.utils", "utils.scheduler")
)


def one_by_one(
    backbone: nn.Module, head: Callable[[Tensor], Tensor], crops: Sequence[Tensor]
) -> list[Tensor]:
    return [head(backbone(crop)) for crop in crops]


def together(
    backbone: nn.Module, head: Callable[[Tensor], Tensor], crops: Sequence[Tensor]
) -> list[Tensor]:
    """The crops of a size through the backbone at once, and all through the head."""
    sizes = groupby(crops, key=lambda crop: crop.shape[1:])
    features = torch.cat([backbone(torch.cat(list(group))) for _, group in sizes])
    return list(head(features).chunk(len(crops)))


def sizes(head: nn.Module) -> tuple[int, int, int]:
    """Widths of the input, inside and of the output."""
    linear = [module for module in head.modules() if isinstance(module, nn.Linear)]
    return linear[0].in_features, linear[0].out_features, linear[-1].out_features


@torch.no_grad()
def started(theirs: nn.Module, own: nn.Module) -> nn.Module:
    """A head of lightly with the weights of fastcl's."""
    layers = [
        [module for module in head.modules() if isinstance(module, nn.Linear | nn.BatchNorm1d)]
        for head in (theirs, own)
    ]
    for layer, source in zip(*layers, strict=True):
        layer.weight.copy_(source.weight)
        if layer.bias is not None:
            layer.bias.zero_() if source.bias is None else layer.bias.copy_(source.bias)
    return theirs


class Method(nn.Module):
    """A backbone, its head, and how many steps there were."""

    step: Tensor
    passed = staticmethod(one_by_one)

    def __init__(self, own: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = copy.deepcopy(own.backbone), head
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def embed(self, crops: Sequence[Tensor]) -> list[Tensor]:
        return self.passed(self.backbone, self.head, crops)

    def update(self) -> None:
        self.step += 1


class Twinned(Method):
    """With a twin that follows before every forward, as lightly has it; fastcl's moves after the
    step before, by the same share."""

    def __init__(self, own: nn.Module, head: nn.Module, twin_head: nn.Module) -> None:
        super().__init__(own, head)
        self.twin = nn.ModuleList([copy.deepcopy(own.backbone), twin_head])
        utils.deactivate_requires_grad(self.twin)

    def follow(self, momentum: float, steps: int | None) -> None:
        done = int(self.step)
        if done and steps:
            momentum = scheduler.cosine_schedule(done - 1, steps + 1, momentum, 1.0)
        for fast, slow in zip((self.backbone, self.head), self.twin, strict=True):
            utils.update_momentum(fast, slow, m=momentum)

    @torch.no_grad()
    def target(self, crops: Sequence[Tensor]) -> list[Tensor]:
        return self.passed(*self.twin, crops)


class SimCLR(Method):
    def __init__(self, own: methods.SimCLR) -> None:
        super().__init__(own, started(modules.SimCLRProjectionHead(*sizes(own.head)), own.head))
        self.loss = losses.NTXentLoss(own.temperature)

    def forward(self, *views: Tensor) -> Tensor:
        return self.loss(*self.embed(views))


class MoCo(Twinned):
    def __init__(self, own: methods.MoCo) -> None:
        head = started(modules.MoCoProjectionHead(*sizes(own.head)), own.head)
        super().__init__(own, head, copy.deepcopy(head))
        self.momentum = own.target.momentum
        self.loss = losses.NTXentLoss(own.temperature, memory_bank_size=own.queue.rows.shape)
        self.loss.memory_bank.bank.copy_(own.queue.rows)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        self.follow(self.momentum, None)
        return self.loss(*self.embed([query]), *self.target([key]))


class BYOL(Twinned):
    def __init__(self, own: methods.BYOL) -> None:
        head = started(modules.BYOLProjectionHead(*sizes(own.head)), own.head)
        super().__init__(own, head, copy.deepcopy(head))
        predictor = modules.BYOLPredictionHead(*sizes(own.predictor))
        self.predictor = started(predictor, own.predictor)
        self.momentum, self.total_steps = own.momentum, own.total_steps
        self.loss = losses.NegativeCosineSimilarity()

    def forward(self, *views: Tensor) -> Tensor:
        self.follow(self.momentum, self.total_steps)
        p1, p2 = (self.predictor(z) for z in self.embed(views))
        z1, z2 = self.target(views)
        return 0.5 * (self.loss(p1, z2) + self.loss(p2, z1))


class SwAV(Method):
    def __init__(self, own: methods.SwAV) -> None:
        super().__init__(own, started(modules.SwaVProjectionHead(*sizes(own.head)), own.head))
        count, dim = own.prototypes.shape
        self.prototypes = modules.SwaVPrototypes(dim, count, own.freeze)
        with torch.no_grad():
            self.prototypes.heads[0].weight.copy_(own.prototypes)
            self.prototypes.heads[0].bias.zero_()
        self.loss = losses.SwaVLoss(own.temperature, own.iterations, own.epsilon)

    def score(self, features: Tensor) -> Tensor:
        return self.prototypes(F.normalize(self.head(features), dim=1), int(self.step))

    def forward(self, *crops: Tensor) -> Tensor:
        self.prototypes.normalize()
        scores = self.passed(self.backbone, self.score, crops)
        return self.loss(scores[:2], scores[2:])


class DINO(Twinned):
    def __init__(self, own: methods.DINO) -> None:
        super().__init__(own, self.head_of(own), self.head_of(own))
        self.momentum, self.total_steps = own.momentum, own.total_steps
        sharp = own.loss.teacher_temperature
        self.loss = losses.DINOLoss(
            len(own.prototypes.weight), sharp, sharp, student_temp=own.loss.temperature,
            center_momentum=own.loss.momentum,
        )  # fmt: skip

    @staticmethod
    def head_of(own: methods.DINO) -> nn.Module:
        batch_norm = any(isinstance(layer, nn.BatchNorm1d) for layer in own.head)
        head = modules.DINOProjectionHead(
            *sizes(own.head), len(own.prototypes.weight), batch_norm=batch_norm
        )
        started(head.layers, own.head)
        with torch.no_grad():
            head.last_layer.weight_v.copy_(own.prototypes.weight)
        return head

    def forward(self, *crops: Tensor) -> Tensor:
        self.follow(self.momentum, self.total_steps)
        return self.loss(self.target(crops[:2]), self.embed(crops))


class DINOTogether(DINO):
    passed = staticmethod(together)


METHODS: dict[str, type[Method]] = {
    "simclr": SimCLR, "moco": MoCo, "byol": BYOL, "swav": SwAV, "dino": DINO,
    EXCHANGED: DINOTogether,
}  # fmt: skip
