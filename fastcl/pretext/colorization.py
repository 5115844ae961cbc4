"""Colourisation and split-brain: predict one half of the Lab channels from the other."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import _check
from ..distributed import mean
from ..pretrain.lab import lab
from .base import Pretext, check_images, feature_maps

BIN = 10.0  # side of a bin of the ab plane
LIGHTNESS_BINS = 50
NEIGHBOURS, SIGMA = 5, 5.0  # soft encoding of a colour
MIXTURE = 0.5  # share of the uniform distribution in the rebalancing


def gamut_bins(steps: int = 33) -> Tensor:
    """Centres of the bins of the ab plane that colours of sRGB fall into: `[259, 2]`.

    The paper counts 313 bins of the same size; the set here is computed from a grid of `steps`
    levels per channel, so that no table is needed.
    """
    levels = torch.linspace(0, 1, steps, dtype=torch.float64)
    rgb = torch.cartesian_prod(levels, levels, levels).T.reshape(1, 3, -1, 1)
    ab = lab(rgb)[0, 1:, :, 0].T
    return ((ab / BIN).round() * BIN).unique(dim=0).float()


def split(images: Tensor) -> tuple[Tensor, Tensor]:  # [b, 3, h, w] in [0, 1]
    """Lightness `[b, 1, h, w]` in 0 to 100 and colour `[b, 2, h, w]`."""
    x = lab(images)
    return x[:, :1], x[:, 1:]


def shrink(x: Tensor, maps: Tensor) -> Tensor:
    """Channels last, averaged down to the positions of the maps: `[b h w, channels]`."""
    return F.adaptive_avg_pool2d(x, maps.shape[2:]).movedim(1, 3).flatten(0, 2)


class Colorization(Pretext):
    """Which colour has every place of a picture in grey?

    Classification, not regression, as in the paper: a 1x1 convolution of the feature maps predicts
    a distribution over bins of the ab plane; the truth, averaged to the resolution of the maps, is
    spread over its 5 nearest bins by a Gaussian of width 5. Rare colours count more once
    `rebalance` has seen some images: without it greyish means win. The paper's smoothing of the
    empirical distribution is left out.

    Args:
        backbone: Maps lightness `[b, 1, h, w]`, scaled to about unit deviation, to feature maps or
            features, see `feature_maps`.
        width: Features of the backbone.

    Raises:
        ValueError: In the forward, images that are not of 3 channels.

    Source: Zhang et al. 2016, "Colorful Image Colorization", equations 2 to 4.
    """

    bins: Tensor
    weight: Tensor

    def __init__(self, backbone: nn.Module, *, width: int) -> None:
        super().__init__()
        _check.count("width", width)
        self.backbone = backbone
        self.register_buffer("bins", gamut_bins())
        self.register_buffer("weight", torch.ones(len(self.bins)))
        self.decoder = nn.Conv2d(width, len(self.bins), 1)

    def draw(self, images: Tensor) -> tuple[Tensor, Tensor]:  # [b, 3, side, side] in [0, 1]
        """Lightness as the backbone takes it, and colour `[b, 2, side, side]`."""
        check_images(images, channels=3)
        lightness, color = split(images)
        return (lightness - 50) / 25, color

    def loss(self, lightness: Tensor, color: Tensor) -> Tensor:
        maps = feature_maps(self.backbone, lightness)
        logits = self.decoder(maps).movedim(1, 3).flatten(0, 2).to(color.dtype)
        index, share = self.encode(shrink(color, maps))
        nearest = index[:, 0]
        right = logits.detach().gather(1, nearest[:, None])
        self.rank = (logits.detach() > right).sum(1)
        each = -(share * logits.log_softmax(1).gather(1, index)).sum(1)
        return mean(self.weight[nearest] * each)

    def encode(self, color: Tensor) -> tuple[Tensor, Tensor]:  # [n, 2]
        """The nearest bins int64 `[n, 5]`, nearest first, and their shares `[n, 5]`."""
        distance = torch.cdist(color, self.bins)
        near, index = distance.topk(NEIGHBOURS, largest=False)
        return index, (-near.square() / (2 * SIGMA**2)).softmax(1)

    @torch.no_grad()
    def rebalance(self, images: Tensor) -> None:
        """Weigh bins by the colours of some images `[b, 3, side, side]` in [0, 1] (equation 4)."""
        check_images(images, channels=3)
        counts = torch.zeros_like(self.weight)
        for batch in images.split(64):
            color = split(batch.to(self.bins.device))[1].movedim(1, 3).flatten(0, 2)
            index = self.encode(color)[0][:, 0]
            counts += torch.bincount(index, minlength=len(counts))
        p = counts / counts.sum()
        weight = 1 / ((1 - MIXTURE) * p + MIXTURE / len(p))
        self.weight.copy_(weight / (p * weight).sum())  # one on average over the pixels


class SplitBrain(Pretext):
    """Lightness predicts colour and colour lightness, each with half of the network.

    Classification both ways, the form the paper found best: bins of the ab plane, and 50 bins of
    lightness (the paper: 100), with the nearest bin as the truth and no rebalancing.

    Args:
        lightness: Maps `[b, 1, h, w]`, scaled to about unit deviation, to feature maps or features.
        color: The same for colour `[b, 2, h, w]`.
        width: Features of each half.

    Raises:
        ValueError: In the forward, images that are not of 3 channels.

    Source: Zhang et al. 2017, "Split-Brain Autoencoders: Unsupervised Learning by Cross-Channel
    Prediction", equations 1 to 4.
    """

    bins: Tensor

    def __init__(self, lightness: nn.Module, color: nn.Module, *, width: int) -> None:
        super().__init__()
        _check.count("width", width)
        self.backbone = nn.ModuleList([lightness, color])
        self.register_buffer("bins", gamut_bins())
        self.decoder = nn.ModuleList(
            nn.Conv2d(width, classes, 1) for classes in (len(self.bins), LIGHTNESS_BINS)
        )

    def draw(self, images: Tensor) -> tuple[Tensor, Tensor]:  # [b, 3, side, side] in [0, 1]
        """Lightness `[b, 1, side, side]` and colour `[b, 2, side, side]`."""
        check_images(images, channels=3)
        return split(images)

    def loss(self, lightness: Tensor, color: Tensor) -> Tensor:
        one = feature_maps(self.backbone[0], (lightness - 50) / 25)
        two = feature_maps(self.backbone[1], color / 15)
        chroma = torch.cdist(shrink(color, one), self.bins).argmin(1)
        step = 100 / LIGHTNESS_BINS
        light = (shrink(lightness, two)[:, 0] / step).long().clamp(0, LIGHTNESS_BINS - 1)
        losses, ranks = [], []
        for maps, decoder, label in zip((one, two), self.decoder, (chroma, light), strict=True):
            logits = decoder(maps).movedim(1, 3).flatten(0, 2)
            losses.append(self.cross_entropy(logits, label))
            ranks.append(self.rank)
        self.rank = torch.cat(ranks)
        return losses[0] + losses[1]
