"""Inpainting: what was in the hole?"""

import torch
from torch import Tensor, nn

from .. import _check
from ..distributed import mean
from .base import Pretext, check_images, feature_maps

EDGE_WEIGHT = 10.0  # of pixels that are seen and predicted
LARGEST_START = 8  # side of the first map of the decoder


class ChannelwiseLinear(nn.Module):
    """One linear layer over the positions of each channel, `[b, c, p]` to `[b, c, p]`: news
    travels across the image with `p^2 c` weights instead of `(p c)^2`."""

    def __init__(self, channels: int, positions: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, positions, positions))
        nn.init.normal_(self.weight, std=positions**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bcp,cqp->bcq", x, self.weight)


class Inpainting(Pretext):
    """Fill a hole of the image, by squared error.

    The context encoder with its channel-wise layer between encoder and decoder, and the
    reconstruction loss alone: the adversarial term, which sharpens the pictures and was left out
    of the paper's feature learning too, is not there. Pixels of the hole are zero, the mean of
    normalised images.

    Holes: "blocks" are up to a quarter of the image in a few rectangles, which unlike "center" (a
    square of half the side) cannot be learned as a place. With "center" the hole is smaller by an
    overlap of 7/128 of the side, whose pixels are seen, predicted, and count ten times, so that
    the filling joins its surroundings.

    Args:
        backbone: Maps images to feature maps or features, see `feature_maps`.
        width: Features of the backbone.
        size: Side of the images in pixels, a multiple of 4.
        channels: Of the images.
        hole: "blocks" or "center".

    Raises:
        ValueError: A choice out of range, or in the forward images of another size.

    Source: Pathak et al. 2016, "Context Encoders: Feature Learning by Inpainting", equation 1 and
    sections 3.1 and 3.3.
    """

    def __init__(
        self, backbone: nn.Module, *, width: int, size: int, channels: int = 3, hole: str = "blocks"
    ) -> None:
        super().__init__()
        for name, value in (("width", width), ("size", size), ("channels", channels)):
            _check.count(name, value)
        _check.one_of("hole", hole, ("blocks", "center"))
        if size % 4:
            raise ValueError(f"size must be a multiple of 4, got {size}")
        self.size, self.channels, self.hole = size, channels, hole
        self.backbone = backbone
        start, ups = size, 0
        while start % 2 == 0 and (start > LARGEST_START or ups < 1):
            start, ups = start // 2, ups + 1
        self.start = start
        self.pool = nn.AdaptiveAvgPool2d(start)
        self.across = ChannelwiseLinear(width, start * start)
        layers: list[nn.Module] = [nn.Conv2d(width, 64, 1), nn.BatchNorm2d(64), nn.ReLU()]
        for up in range(ups):
            wide = max(16, 64 >> up)
            after = max(16, 64 >> (up + 1))
            layers += [
                nn.ConvTranspose2d(wide, after, 4, stride=2, padding=1), nn.BatchNorm2d(after),
                nn.ReLU(),
            ]  # fmt: skip
            last = after
        self.decoder = nn.Sequential(*layers, nn.Conv2d(last, channels, 3, padding=1))

    def draw(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The images, what is seen of them (1 or 0) and the weight of every pixel's error, the
        latter two `[b, 1, size, size]`."""
        check_images(images, channels=self.channels)
        if images.shape[2] != self.size:
            raise ValueError(f"images must have size {self.size}, got {images.shape[2]}")
        if self.hole == "center":
            hidden, weight = center(self.size, images)
        else:
            hidden = blocks(len(images), self.size, images.device)
            weight = hidden
        return images, 1 - hidden.to(images.dtype), weight.to(images.dtype)

    def loss(self, images: Tensor, seen: Tensor, weight: Tensor) -> Tensor:
        maps = self.pool(feature_maps(self.backbone, images * seen))
        maps = self.across(maps.flatten(2)).unflatten(2, (self.start, self.start))
        error = (self.decoder(maps) - images).square().mean(1, keepdim=True)
        return mean(weight * error) / mean(weight)


def center(size: int, images: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden pixels and weights `[b, 1, size, size]` of a square hole in the middle."""
    quarter, overlap = size // 4, max(1, round(size * 7 / 128))
    hidden, weight = torch.zeros(2, len(images), 1, size, size, device=images.device)
    weight[..., quarter:-quarter, quarter:-quarter] = EDGE_WEIGHT
    inner = slice(quarter + overlap, size - quarter - overlap)
    hidden[..., inner, inner] = 1
    weight[..., inner, inner] = 1
    return hidden, weight


def blocks(b: int, size: int, device: torch.device, count: int = 4) -> Tensor:
    """Hidden pixels `[b, 1, size, size]`: rectangles that may overlap, a quarter of the area at
    most."""
    most = int((size * size / (4 * count)) ** 0.5)  # their side
    sides = torch.randint(max(1, most // 2), most + 1, (2, b, count), device=device)
    first = (torch.rand(2, b, count, device=device) * (size - sides + 1)).long()
    places = torch.arange(size, device=device)
    inside = (places >= first[..., None]) & (places < (first + sides)[..., None])
    return (inside[0, :, :, :, None] & inside[1, :, :, None, :]).any(1, keepdim=True).float()
