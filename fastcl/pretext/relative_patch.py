"""Relative patch: where does the second patch lie, seen from the first?"""

import torch
from torch import Tensor, nn

from .. import _check
from .base import Pretext, check_images, crop

# (down, right) of the eight neighbours, row by row.
PLACES = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0))
# The paper's patch of 96 pixels has a gap of 48 and a jitter of 7.
GAP, JITTER = 1 / 2, 7 / 96
NOISE = 0.01  # deviation of what replaces a dropped channel, relative to the channel that stays


class RelativePatch(Pretext):
    """At which of eight places around a patch lies another one?

    Shortcuts, closed as in the paper: half a patch of gap between the two, and jitter, so that
    lines do not continue; against chromatic aberration, two channels of every colour patch are
    replaced by noise ("colour dropping"); the mean of every patch is taken off. Left out: showing
    some patches at a lower resolution.

    Args:
        backbone: Maps patches to features `[b, width]`; one network for both.
        width: Features of the backbone.
        patch: Side in pixels; by default the largest that fits: 7 in an image of 32 pixels.
        hidden: Width inside the classifier.

    Raises:
        ValueError: In the forward, images in which three patches with their gaps do not fit.

    Source: Doersch et al. 2015, "Unsupervised Visual Representation Learning by Context
    Prediction", sections 3 and 3.1.
    """

    def __init__(
        self, backbone: nn.Module, *, width: int, patch: int | None = None, hidden: int = 512
    ) -> None:
        super().__init__()
        for name, value in (("width", width), ("hidden", hidden), ("patch", patch or 1)):
            _check.count(name, value)
        self.patch = patch
        self.backbone = backbone
        self.classifier = nn.Sequential(
            nn.Linear(2 * width, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, len(PLACES))
        )

    def draw(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # [b, channels, side, side]
        """First and second patch `[b, channels, patch, patch]`, and int64 places `[b]`."""
        check_images(images)
        b, side, device = len(images), images.shape[2], images.device
        patch = self.patch or max((p for p in range(1, side) if extent(p) <= side), default=1)
        if extent(patch) > side:
            raise ValueError(
                f"images must have {extent(patch)} pixels to a side for patches of {patch}, "
                f"got {side}"
            )
        gap, jitter = spacing(patch)
        label = torch.randint(len(PLACES), (b,), device=device)
        step = (patch + gap) * torch.tensor(PLACES, device=device)[label].T  # [2, b]
        margin = patch + gap + jitter
        first = margin + torch.randint(side - extent(patch) + 1, (2, b), device=device)
        second = first + step + torch.randint(-jitter, jitter + 1, (2, b), device=device)
        cut = [self._without_colour(crop(images, *corner, patch)) for corner in (first, second)]
        return cut[0], cut[1], label

    def loss(self, first: Tensor, second: Tensor, label: Tensor) -> Tensor:
        features = self.backbone(torch.cat([first, second])).chunk(2)
        return self.cross_entropy(self.classifier(torch.cat(features, 1)), label)

    def _without_colour(self, patches: Tensor) -> Tensor:
        b, channels = patches.shape[:2]
        patches = patches - patches.mean((1, 2, 3), keepdim=True)
        if channels == 1:
            return patches
        kept = torch.randint(channels, (b,), device=patches.device)
        stays = nn.functional.one_hot(kept, channels).bool()[:, :, None, None]
        deviation = patches[stays.expand_as(patches)].view(b, -1).std(1, correction=0)
        noise = NOISE * deviation[:, None, None, None] * torch.randn_like(patches)
        return torch.where(stays, patches, noise)


def spacing(patch: int) -> tuple[int, int]:
    """Pixels between neighbouring patches, and of jitter either way; half the gap at most."""
    gap = max(1, round(GAP * patch))
    return gap, min(gap // 2, max(1, round(JITTER * patch)))


def extent(patch: int) -> int:
    """Side of the square that a patch, its neighbours and their jitter need."""
    gap, jitter = spacing(patch)
    return 3 * patch + 2 * gap + 2 * jitter
