"""Rotation: which way is up?"""

import torch
from torch import Tensor, nn

from .. import _check
from .base import Pretext, check_images


def rotate(
    images: Tensor,  # [b, channels, side, side]
    label: Tensor,  # [b] int64 from 0 to 3
) -> Tensor:
    """Every image turned counter-clockwise by `label` quarters.

    Equal to ``stack([torch.rot90(x, int(k), (1, 2)) for x, k in zip(images, label)])``.
    """
    turns = torch.stack([torch.rot90(images, k, (2, 3)) for k in range(4)])
    return turns[label, torch.arange(len(images), device=images.device)]


class Rotation(Pretext):
    """By how many quarters was the image turned?

    All four turns of every image are in one batch, which the paper found better than drawing one.
    Quarter turns are transpositions and mirror images: nothing is interpolated and no border is
    filled, so that no artefact tells the angle.

    Args:
        backbone: Maps images to features `[b, width]`.
        width: Features of the backbone.

    Raises:
        ValueError, TypeError: In the forward, images that are no square floating-point pictures.

    Source: Gidaris et al. 2018, "Unsupervised Representation Learning by Predicting Image
    Rotations", equations 2 and 3.
    """

    def __init__(self, backbone: nn.Module, *, width: int) -> None:
        super().__init__()
        _check.count("width", width)
        self.backbone = backbone
        self.classifier = nn.Linear(width, 4)

    def draw(self, images: Tensor) -> tuple[Tensor, Tensor]:  # [b, channels, side, side]
        """All turns `[4 b, channels, side, side]`, and int64 quarters `[4 b]`."""
        check_images(images)
        label = torch.arange(4, device=images.device).repeat_interleave(len(images))
        return rotate(images.repeat(4, 1, 1, 1), label), label

    def loss(self, turned: Tensor, label: Tensor) -> Tensor:
        return self.cross_entropy(self.classifier(self.backbone(turned)), label)
