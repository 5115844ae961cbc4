"""Features of a whole split."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST_SIDE = 32


@torch.no_grad()
def extract(
    backbone: nn.Module,
    images: Tensor,  # uint8 [n, channels, h, w]
    statistics: tuple[Tensor, Tensor],  # mean and deviation [channels]
    batch_size: int = 512,
) -> Tensor:
    """Output of the backbone in evaluation mode, float32 `[n, width]` where the images are."""
    training = backbone.training
    backbone.eval()
    mean, deviation = (x.to(images.device).view(1, -1, 1, 1) for x in statistics)
    found = [
        backbone((batch.float() / 255 - mean) / deviation).float()
        for batch in images.split(batch_size)
    ]
    backbone.train(training)
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
