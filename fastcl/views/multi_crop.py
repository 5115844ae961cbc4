"""Views of two sizes of the same images: SwAV's and DINO's multi-crop."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .. import _check
from ..functional.packed import Packed
from ..functional.random_views import check_side
from .module import IMAGENET_DEVIATION, IMAGENET_MEAN, Drawn
from .presets import BYOL, SimCLR
from .recipe import Recipe


class MultiCrop(Drawn):
    """Two large views and several small ones, all of one decoding.

    Args:
        size: Pixels along a side of a large view.
        small: The same of a small one.
        crops: How many small ones; None takes the paper's number.
        strength: Multiplies the ranges of the colour jitter.
        mean, deviation, dtype, memory_format, layout, generator: As for `Drawn`.

    Returns:
        A list of `[2, b, c, size, size]` and `[crops, b, c, small, small]`, of images as `Views`
        takes them; in the memory of `out=`, an earlier list, where it is given.

    Raises:
        ValueError, TypeError: A size, a number or a strength out of range; images that
            `functional.random_views` does not take.
    """

    LARGE: tuple[Recipe, Recipe]
    SMALL: Recipe
    CROPS: int

    def __init__(
        self,
        size: int = 224,
        small: int = 96,
        crops: int | None = None,
        *,
        strength: float = 1.0,
        mean: Sequence[float] | Tensor | None = IMAGENET_MEAN,
        deviation: Sequence[float] | Tensor | None = IMAGENET_DEVIATION,
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
        layout: str = "chw",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(
            mean=mean, deviation=deviation, dtype=dtype, memory_format=memory_format,
            layout=layout, generator=generator,
        )  # fmt: skip
        crops = self.CROPS if crops is None else crops
        check_side("size", size)
        check_side("small", small)
        _check.count("crops", crops)
        self.size, self.small = size, small
        self.large_recipes = tuple(recipe.jittered(strength) for recipe in self.LARGE)
        self.small_recipes = crops * (self.SMALL.jittered(strength),)

    @torch.no_grad()
    def forward(
        self,
        images: Tensor | Packed | Sequence[Tensor],
        generator: torch.Generator | None = None,
        *,
        out: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        return self.joined(self.of_groups(images, generator, out))

    @property
    def groups(self) -> tuple[tuple[tuple[Recipe, ...], int], ...]:
        return (self.large_recipes, self.size), (self.small_recipes, self.small)

    def joined(self, groups: tuple[Tensor, ...]) -> list[Tensor]:
        return list(groups)

    def extra_repr(self) -> str:
        return f"{self.size}, {self.small}, crops={len(self.small_recipes)}"


class SwAV(MultiCrop):
    """SwAV's multi-crop: two views of 14 to 100 % of the area and six small ones of 5 to 14 %, with
    the colours, grey and blur of SimCLR.

    Args, Returns, Raises: As for `MultiCrop`.

    Source: Caron et al. 2020, "Unsupervised Learning of Visual Features by Contrasting Cluster
    Assignments", section 3.3 and appendix A.
    """

    LARGE = 2 * (replace(SimCLR.RECIPES[0], scale=(0.14, 1.0)),)
    SMALL = replace(SimCLR.RECIPES[0], scale=(0.05, 0.14))
    CROPS = 6


class DINO(MultiCrop):
    """DINO's multi-crop: the two views of BYOL from 40 to 100 % of the area, and eight small ones
    of 5 to 40 %, blurred at 50 %.

    Args, Returns, Raises: As for `MultiCrop`.

    Source: Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers",
    section 3.2, with the numbers of the authors' code.
    """

    LARGE = tuple(replace(recipe, scale=(0.4, 1.0)) for recipe in BYOL.RECIPES)
    SMALL = replace(BYOL.RECIPES[0], scale=(0.05, 0.4), blur=0.5)
    CROPS = 8
