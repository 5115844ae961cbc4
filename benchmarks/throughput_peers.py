"""Training as other libraries do it: their transforms, torch's DataLoader, their loss.

Each function takes folder, method, side and batch and returns an endless iterator of batches and a
step, which trains ResNet-18 on one. A library that is not installed raises ImportError.
"""

import copy
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from .view_peers import torchvision_v1

QUEUE, MOMENTUM, RATE = 4096, 0.99, 0.03
Batches = Iterator[tuple[Tensor, Tensor]]
Training = tuple[Batches, Callable[[tuple[Tensor, Tensor]], None]]


def lightly(folder: Path, method: str, side: int, batch: int) -> Training:
    from lightly.data import LightlyDataset
    from lightly.loss import NTXentLoss
    from lightly.models.modules import MoCoProjectionHead, SimCLRProjectionHead
    from lightly.models.utils import update_momentum
    from lightly.transforms import MoCoV2Transform, SimCLRTransform

    transform = {"simclr": SimCLRTransform, "moco": MoCoV2Transform}[method](input_size=side)
    data = LightlyDataset(str(folder), transform=transform)
    if method == "simclr":
        model = nn.Sequential(resnet18(side), SimCLRProjectionHead(512, 512, 128))
        loss = NTXentLoss(temperature=0.1)
        return views_of(data, batch), trained(model, lambda a, b: loss(model(a), model(b)))
    model = nn.Sequential(resnet18(side), MoCoProjectionHead(512, 512, 128))
    twin, loss = (
        copy.deepcopy(model).requires_grad_(False),
        NTXentLoss(temperature=0.1, memory_bank_size=(QUEUE, 128)),
    )

    def contrast(a: Tensor, b: Tensor) -> Tensor:
        update_momentum(model, twin, m=MOMENTUM)
        with torch.no_grad():
            key = twin(b)
        return loss(model(a), key)

    return views_of(data, batch), trained(model, contrast)


def torchvision(folder: Path, method: str, side: int, batch: int) -> Training:
    from torchvision.datasets import ImageFolder

    data = ImageFolder(str(folder), transform=ByHand(torchvision_v1(side, 1.0, blur=side >= 96)))
    head = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 128))
    model = nn.Sequential(resnet18(side), head)
    if method == "simclr":
        return views_of(data, batch), trained(model, lambda a, b: nt_xent(model, a, b))
    twin = copy.deepcopy(model).requires_grad_(False)
    queue = F.normalize(torch.randn(QUEUE, 128))

    def contrast(a: Tensor, b: Tensor) -> Tensor:
        nonlocal queue
        with torch.no_grad():
            for slow, fast in zip(twin.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 1 - MOMENTUM)
            key = F.normalize(twin(b))
        query = F.normalize(model(a))
        scores = torch.cat([(query * key).sum(1, keepdim=True), query @ queue.T], 1) / 0.1
        queue = torch.cat([queue[len(key) :], key])
        return F.cross_entropy(scores, torch.zeros(len(key), dtype=torch.int64))

    return views_of(data, batch), trained(model, contrast)


class ByHand:
    """`torchvision_v1` of a Pillow image; a class, as workers are handed it."""

    def __init__(self, call: Callable) -> None:
        self.call = call

    def __call__(self, image) -> tuple[Tensor, Tensor]:
        import numpy as np

        return self.call(np.asarray(image))


def nt_xent(model: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    z = F.normalize(torch.cat([model(a), model(b)]))
    scores = (z @ z.T / 0.1).fill_diagonal_(-torch.inf)
    return F.cross_entropy(scores, torch.arange(len(z)).roll(len(a)))


def views_of(data, batch: int) -> Batches:
    """Two views of each batch, without an end."""
    workers = len(os.sched_getaffinity(0))
    loader = DataLoader(
        data, batch, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True
    )
    while True:
        for views, *_ in loader:
            yield tuple(views)


def trained(model: nn.Module, loss_of: Callable) -> Callable[[tuple[Tensor, Tensor]], None]:
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9, weight_decay=1e-4)

    def step(views: tuple[Tensor, Tensor]) -> None:
        optimizer.zero_grad()
        loss_of(*views).backward()
        optimizer.step()

    return step


def resnet18(side: int) -> nn.Module:
    """Torchvision's, below 96 pixels with the stem of CIFAR as fastcl has it."""
    from torchvision.models import resnet18 as build

    model = build()
    model.fc = nn.Identity()
    if side < 96:
        model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return model


PEERS = {"lightly": lightly, "torchvision in a DataLoader": torchvision}
