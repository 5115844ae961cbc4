"""Features of a whole split."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST_SIDE = 32


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every module has its own back, frozen ones theirs."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def labelled(name: str, labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The rows `[n, ...]` of a label, and the labels `[n]`: -1 stands for none.

    Raises:
        ValueError: None has a label.
    """
    known = labels >= 0
    if known.all():
        return rows, labels
    if not known.any():
        raise ValueError(f"{name} must have a label from 0; all are below, which stands for none")
    return rows[known], labels[known]


@torch.no_grad()
def extract(
    backbone: nn.Module,
    images: Tensor,  # uint8 [n, channels, h, w]
    statistics: tuple[Tensor, Tensor],  # mean and deviation [channels]
    batch_size: int = 512,
) -> Tensor:
    """Output of the backbone in evaluation mode, float32 `[n, width]` where the images are."""
    mean, deviation = (x.to(images.device).view(1, -1, 1, 1) for x in statistics)
    with evaluating(backbone):
        found = [
            backbone((batch.float() / 255 - mean) / deviation).float()
            for batch in images.split(batch_size)
        ]
    return torch.cat(found)


def pixels(images: Tensor) -> Tensor:
    """The images themselves as features: float32 `[n, channels * side * side]` in [0, 1].

    Larger images are averaged down to 32 x 32 pixels: a million photographs would not fit.
    """
    side = min(images.shape[2], LARGEST_SIDE)
    found = []
    for batch in images.split(512):
        x = batch.float() / 255
        if side < batch.shape[2]:
            x = F.adaptive_avg_pool2d(x, side)
        found.append(x.flatten(1))
    return torch.cat(found)
