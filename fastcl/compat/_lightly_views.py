"""One image to lightly's views by fastcl's operator."""

import math

import numpy as np
import torch
from torch import Tensor

from .. import functional as F
from ..functional.random_views import numbers
from ..views import Recipe, draw

IMAGENET_NORMALIZE = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
THRESHOLD = 128 / 255  # Pillow's solarize inverts grey levels from 128 on
REACH = 4  # deviations to either side of a blur; Pillow's has no end


class ViewTransform:
    """A view; subclasses are dataclasses of lightly's arguments with these three functions."""

    def side(self) -> int:
        return self.input_size

    def scale(self) -> tuple[float, float]:
        return self.min_scale, 1.0

    def chances(self) -> tuple[float, float]:
        """Of blur and of solarising."""
        return self.gaussian_blur, 0.0

    def __post_init__(self) -> None:
        refuse(self)
        blur, solarise = self.chances()
        self.recipe = Recipe(
            scale=self.scale(), mirror=self.hf_prob, jitter=self.cj_prob,
            brightness=self.cj_strength * self.cj_bright,
            contrast=self.cj_strength * self.cj_contrast,
            saturation=self.cj_strength * self.cj_sat, hue=self.cj_strength * self.cj_hue,
            grey=self.random_gray_scale, blur=blur, sigma=tuple(self.sigmas),
            solarise=solarise, threshold=THRESHOLD,
        )  # fmt: skip

    def __call__(self, image) -> Tensor:
        """`[c, size, size]` of an image of Pillow or a tensor `[c, h, w]`."""
        return make(image, [self])[0]


def refuse(transform) -> None:
    """Raises ValueError for arguments of lightly that the operator cannot express."""
    for name, what in (("vf_prob", "vertical flips"), ("rr_prob", "rotations")):
        if value := getattr(transform, name, 0):
            raise ValueError(f"{name} must be 0 in fastcl, which has no {what}, got {value}")


class MultiViewTransform:
    """Several views of one image.

    Args:
        transforms: View transforms of this module.
    """

    def __init__(self, transforms: list[ViewTransform]) -> None:
        self.transforms = transforms

    def __call__(self, image) -> list[Tensor]:
        """A view by each transform; `image` is one of Pillow or a tensor `[c, h, w]`."""
        return make(image, self.transforms)


@torch.no_grad()
def make(image, transforms: list[ViewTransform]) -> list[Tensor]:
    """A view by each, with one call of the operator for all views of a size and normalisation."""
    pixels = _pixels(image)
    channels = pixels.shape[1]
    if channels == 1:  # brightness and contrast change it too: as three channels that are alike
        pixels = pixels.expand(-1, 3, -1, -1)
    groups: dict[tuple, list[int]] = {}
    for i, view in enumerate(transforms):
        key = _square(view.side()), view.recipe.sigma[1], *_numbers(view.normalize)
        groups.setdefault(key, []).append(i)
    views: list[Tensor | None] = [None] * len(transforms)
    for (size, sigma, *normal), places in groups.items():
        parameters = draw(
            [transforms[i].recipe for i in places], (1, *pixels.shape[2:]), device=pixels.device
        )
        mean, deviation = (x * 3 if x is not None and len(x) == 1 else x for x in normal)
        made = F.random_views(
            pixels, parameters, size=size, mean=mean, deviation=deviation,
            kernel=min(2 * math.ceil(REACH * sigma) + 1, 2 * size - 1),
        )  # fmt: skip
        kept = channels if normal[0] is None or len(normal[0]) == 1 else pixels.shape[1]
        for i, view in zip(places, made, strict=True):
            views[i] = view[0, :kept]
    return views


def _pixels(image) -> Tensor:
    """A batch of one `[1, c, h, w]`."""
    if isinstance(image, Tensor):
        if image.dim() != 3:
            raise ValueError(f"image must have shape [c, h, w], got {list(image.shape)}")
        return image[None]
    if not hasattr(image, "mode"):
        raise TypeError(f"image must be one of Pillow or a tensor, got {type(image).__name__}")
    if image.mode not in ("RGB", "L"):
        raise ValueError(
            f"image must be of mode RGB or L, got {image.mode}: image.convert('RGB') makes one"
        )
    pixels = torch.from_numpy(np.array(image))  # a copy: what Pillow hands out is read-only
    return pixels.view(1, *pixels.shape[:2], -1).permute(0, 3, 1, 2)


def _numbers(normalize: dict[str, list[float]] | None) -> tuple:
    if not normalize:
        return None, None
    return tuple(tuple(numbers(name, normalize[name]).tolist()) for name in ("mean", "std"))


def _square(size) -> int:
    """Of a number, or of two that are equal."""
    sides = tuple(size) if isinstance(size, (tuple, list)) else (size,)
    if len(set(sides)) != 1:
        raise ValueError(f"a view must have one side, as views are square, got {size}")
    return sides[0]
