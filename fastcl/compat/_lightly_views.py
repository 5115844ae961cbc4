"""One image to lightly's views by fastcl's operator."""

import math

import numpy as np
import torch
from torch import Tensor

from .. import functional as F
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
    pixels, layout = _pixels(image)
    h, w = pixels.shape[1:3] if layout == "hwc" else pixels.shape[2:]
    groups: dict[tuple, list[int]] = {}
    for i, view in enumerate(transforms):
        mean, deviation = _numbers(view.normalize)
        groups.setdefault((view.side(), view.recipe.sigma[1], mean, deviation), []).append(i)
    views: list[Tensor | None] = [None] * len(transforms)
    for (size, sigma, mean, deviation), places in groups.items():
        recipes = [transforms[i].recipe for i in places]
        made = F.random_views(
            pixels, draw(recipes, (1, h, w), device=pixels.device), size=size, mean=mean,
            kernel=min(2 * math.ceil(REACH * sigma) + 1, 2 * size - 1), deviation=deviation,
            layout=layout,
        )  # fmt: skip
        for i, view in zip(places, made, strict=True):
            views[i] = view[0]
    return views


def _pixels(image) -> tuple[Tensor, str]:
    """A batch of one and its layout."""
    if isinstance(image, Tensor):
        if image.dim() != 3:
            raise ValueError(f"image must have shape [c, h, w], got {list(image.shape)}")
        return image[None], "chw"
    if not hasattr(image, "mode"):
        raise TypeError(f"image must be one of Pillow or a tensor, got {type(image).__name__}")
    if image.mode not in ("RGB", "L"):
        raise ValueError(
            f"image must be of mode RGB or L, got {image.mode}: image.convert('RGB') makes one"
        )
    pixels = torch.from_numpy(np.array(image))  # a copy: what Pillow hands out is read-only
    return pixels.view(1, *pixels.shape[:2], -1), "hwc"


def _numbers(normalize: dict[str, list[float]] | None) -> tuple:
    if not normalize:
        return None, None
    return tuple(normalize["mean"]), tuple(normalize["std"])
