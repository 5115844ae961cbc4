"""Features of a whole split."""

import torch
from torch import Tensor, nn


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
    """The images themselves as features: float32 `[n, channels * h * w]` in [0, 1]."""
    return images.flatten(1).float() / 255
