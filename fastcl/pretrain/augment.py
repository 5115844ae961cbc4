"""The random views of a run: made on the device where the batch is, or while it is read."""

from copy import deepcopy
from dataclasses import replace
from itertools import cycle, islice
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..pretext.base import crop
from ..views import Digits, MoCoV2, MultiCrop, Recipe
from ..views.module import LEAST_BLURRED, Drawn
from .backbone import small_side

STRONGEST = 2.0  # beyond, brightness would turn negative
SMALLEST_CROP = 0.05  # part of the area
SMALL_CROPS = 0.05, 0.2
CHANCES = "grey", "blur", "solarise"


def photograph(recipe: Recipe, strength: float, side: int) -> Recipe:
    """A method's view with its jitter and its chances of grey, blur and solarising times a
    strength; crops up to the whole image start nearer to it or further away by the strength."""
    least, most = recipe.scale
    if most == 1:
        least = max(SMALLEST_CROP, round(1 - (1 - least) * strength, 6))
    chances = {name: min(1.0, getattr(recipe, name) * strength) for name in CHANCES}
    if side < LEAST_BLURRED:
        chances["blur"] = 0.0
    return replace(recipe.jittered(strength), scale=(least, most), **chances)


def digits(strength: float) -> Digits:
    """1: the views of the recipes; 0: the images as they are."""
    return Digits(
        1, degrees=15.0 * strength, shift=0.12 * strength, scale=1.25**strength,
        shear=0.2 * strength, noise=0.1 * strength, brightness=0.3 * strength,
    )  # fmt: skip


class Made(NamedTuple):
    """Views of a batch that were made while it was read."""

    groups: tuple[Tensor, ...]  # each [views, b, channels, side, side], of one side

    def chunk(self, count: int) -> list["Made"]:
        """So many parts of the batch."""
        parts = zip(*(x.chunk(count, 1) for x in self.groups), strict=True)
        return [Made(part) for part in parts]


class Views(nn.Module):
    """The views that suit a kind of data, normalised per channel.

    All chance comes from PyTorch's global generators, so that a seed and a checkpoint hold it.

    Args:
        kind: "digits" or "photographs".
        size: Side of the images in pixels.
        statistics: Mean and standard deviation of each channel, in [0, 1].
        crops: How many small crops of photographs `small_crops` makes, with 3/7 of the side.
        multiple: Of which this side is one: the patches of a transformer.
        preset: Whose recipes photographs have in place of MoCo v2's: a class of `fastcl.views`.
        recipes: Of the full views of photographs in turns, in place of the others.
        strength: Of the views, from 0 to 2; 1 is the recipes', 0 of photographs the whole image,
            mirrored or not.
        channels_last: Whether views are so in memory. The layout that convolutions on tensor
            cores take.

    Source of the small crops: Caron et al. 2020, "Unsupervised Learning of Visual Features by
    Contrasting Cluster Assignments", section 3.3: 96 pixels beside views of 224.
    """

    def __init__(
        self,
        kind: str,
        size: int,
        statistics: tuple[Tensor, Tensor],
        crops: int = 0,
        strength: float = 1.0,
        channels_last: bool = True,
        multiple: int = 1,
        preset: type[MultiCrop] | None = None,
        recipes: tuple[Recipe, ...] | None = None,
    ) -> None:
        super().__init__()
        mean, deviation = statistics
        self.register_buffer("mean", mean.view(1, -1, 1, 1))
        self.register_buffer("deviation", deviation.view(1, -1, 1, 1))
        self.digits = digits(strength) if kind == "digits" else None
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.photographs = Drawn(
            mean=mean, deviation=deviation, memory_format=self.memory_format
        )  # fmt: skip
        self.size, self.crops, self.small_size = size, crops, small_side(size, multiple)
        large, small = MoCoV2.RECIPES[:1], replace(MoCoV2.RECIPES[0], scale=SMALL_CROPS)
        if preset is not None:
            large, small = preset.LARGE, preset.SMALL
        self.large = tuple(photograph(recipe, strength, size) for recipe in recipes or large)
        self.small = photograph(small, strength, self.small_size)

    @torch.no_grad()
    def forward(self, images: Tensor | Made, count: int = 1) -> Tensor:  # uint8 [b, c, h, w]
        """`count` views, float `[count, b, c, h, w]`."""
        if isinstance(images, Made):
            return images.groups[0]
        if self.digits is None:
            return self.photographs.of_groups(images, groups=[(self._large(count), self.size)])[0]
        views = torch.cat([self.digits(images) for _ in range(count)])
        return (views - self.mean) / self.deviation

    def labelled(self, images: Tensor) -> Tensor:  # uint8 [b, c, h, w] -> float [b, c, h, w]
        """One light view for training with labels: of digits as always, of photographs `light`."""
        return self.light(images) if self.digits is None else self(images)[0]

    @torch.no_grad()
    def light(self, images: Tensor) -> Tensor:  # uint8 [b, c, h, w] -> float [b, c, h, w]
        """Moved by up to an eighth of the side, photographs also mirrored; colours and lines stay
        what they are, as pretext tasks need them."""
        b, side = len(images), images.shape[2]
        room = side // 8
        padded = F.pad(images.float() / 255, [room] * 4, mode="replicate")
        top, left = torch.randint(2 * room + 1, (2, b), device=images.device)
        x = crop(padded, top, left, side)
        if self.digits is None:
            x = torch.where(torch.rand(b, 1, 1, 1, device=x.device) < 0.5, x.flip(3), x)
        return (x - self.mean) / self.deviation

    @torch.no_grad()
    def small_crops(self, images: Tensor | Made) -> list[Tensor]:  # uint8 [b, 3, h, w]
        """`crops` views, each float `[b, 3, side, side]`."""
        if isinstance(images, Made):
            return [view for group in images.groups[1:] for view in group]
        recipes = self.crops * (self.small,)
        if not recipes:
            return []
        return list(self.photographs.of_groups(images, groups=[(recipes, self.small_size)])[0])

    def _large(self, count: int) -> tuple[Recipe, ...]:
        """As many recipes of full views, in turns."""
        return tuple(islice(cycle(self.large), count))

    def ahead(self, count: int) -> "Ahead | None":
        """What makes `count` views and the small crops of images of any sizes while they are read;
        None where views are made of squares: of digits, and light ones, of which count is 0."""
        if self.digits is not None or count == 0:
            return None
        views = deepcopy(self.photographs)
        views.groups = [(self._large(count), self.size)]
        if self.crops:
            views.groups.append((self.crops * (self.small,), self.small_size))
        return Ahead(views)


class Ahead:
    """Views that are made while images are read, on the CPU; their batches are `Made`.

    Args:
        views: A module with the methods of `fastcl.data.PartViews`; it is copied.
    """

    def __init__(self, views: nn.Module) -> None:
        self.views = deepcopy(views).cpu()
        if hasattr(self.views, "boxes"):
            self.boxes = self.views.boxes

    def chances(self, b: int, generator: torch.Generator) -> Tensor:
        return self.views.chances(b, generator)

    def places(self, b: int, channels: int) -> tuple[Tensor, ...]:
        return self.views.places(b, channels)

    def drawn(self, sizes: Tensor, channels: int, chances: Tensor) -> Any:
        return self.views.drawn(sizes, channels, chances)

    def write(self, image: Tensor, drawn: Any, k: int, out: tuple[Tensor, ...], place: int) -> None:
        self.views.write(image, drawn, k, out, place)

    def joined(self, groups: tuple[Tensor, ...]) -> Made:
        return Made(groups)
