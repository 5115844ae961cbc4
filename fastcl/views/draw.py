"""The random numbers of views, drawn for a whole batch at once on the device where they serve."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _check
from .._kept import kept
from .._library import ops
from ..reference.draw_views import DRAWS, TRIES, middle_box
from .chance import check_generator
from .recipe import Recipe, checked

ORDERS = 24  # of brightness, contrast, saturation and hue
LONGEST = 1 << 24  # side of an image, up to which float32 knows every pixel


class Bounds(NamedTuple):
    """What recipes say, as tensors with the views in the last dimension."""

    low: Tensor  # [DRAWS, 1, views]
    span: Tensor  # [DRAWS, 1, views]
    ratio: Tensor  # [2, 1, views] narrowest and widest
    threshold: Tensor  # [1, views]
    shares: Tensor | None  # [1, views] of a crop in the middle, 0: a random crop


def draw(
    recipes: Sequence[Recipe],
    sizes: Tensor | tuple[int, int, int],  # [b, 2] int64, height and width
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    chances: Tensor | None = None,  # [b, 33, views]
) -> Tensor:
    """Parameters of random views, one recipe after the other for every image.

    Equal to torchvision's ``RandomResizedCrop.get_params`` (ten tries of an area and of a ratio,
    then the middle), ``ColorJitter.get_params`` and one uniform number for every chance, image by
    image and view by view, in distribution. Nothing waits for the device.

    Args:
        recipes: One for each view.
        sizes: `[b, 2]` int64, height and width of every image in pixels; or `(b, h, w)` where
            all are alike.
        generator: On the device; PyTorch's own by default, which differs in every worker of a
            DataLoader.
        device: Where to draw; by default where sizes are, the CPU for `(b, h, w)`.
        chances: What `uniform` has drawn, for these images among others; on the device.

    Returns:
        float32 `[b, views, 13]`, the parameters of `functional.random_views`.

    Raises:
        ValueError: No recipe, sizes of another shape or below 1 (looked at on the CPU only), or a
            generator of another device.
        TypeError: A recipe that is none, or sizes that are no whole numbers.
    """
    recipes = checked(recipes)
    sizes, device = _checked(sizes, device)
    check_generator(generator, device)
    bounds = _bounds(recipes, device)
    if isinstance(sizes, Tensor):
        b, sides, middle = len(sizes), sizes.contiguous(), None
    else:
        b, *one_size = sizes
        sides, middle = _frame(recipes, *one_size, device)
    if chances is None:
        numbers = _uniform(b, len(recipes), generator, device)
    else:
        numbers = _given(chances, (b, DRAWS, len(recipes)), device)
    return ops.draw_views(numbers, sides, middle, *bounds)


def uniform(
    b: int,
    views: int,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """The numbers from 0 to 1 that `draw` makes parameters of, `[b, 33, views]`.

    Equal to what ``draw(recipes, sizes, generator=generator)`` takes from the generator: drawn for
    a whole batch, they can be handed to `draw` row by row.
    """
    return _uniform(b, views, generator, device).transpose(0, 1)


def _given(chances: Tensor, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """`[b, 33, views]` with the draws in front, as `_uniform` has them."""
    _check.tensor("chances", chances)
    if chances.dtype != torch.float32:
        raise TypeError(f"chances must be float32, got {chances.dtype}")
    if chances.shape != shape or chances.device.type != device.type:
        raise ValueError(
            f"chances must have shape {list(shape)} on {device}, got {list(chances.shape)} on "
            f"{chances.device}"
        )
    return chances.transpose(0, 1).contiguous()


def _uniform(b: int, views: int, generator, device) -> Tensor:  # [33, b, views]
    if device is None:
        device = "cpu" if generator is None else generator.device
    # Named only where there is one: a graph of any size takes none.
    given = {} if generator is None else {"generator": generator}
    return torch.rand(DRAWS, b, views, dtype=torch.float32, device=device, **given)


def _checked(sizes, device) -> tuple[Tensor | tuple[int, int, int], torch.device]:
    """Sizes on the device, or as numbers where all are alike."""
    if not isinstance(sizes, Tensor):
        if not isinstance(sizes, (tuple, list)) or len(sizes) != 3:
            raise TypeError(f"sizes must be a tensor [b, 2] or (b, height, width), got {sizes!r}")
        for name, value in zip(("b", "height", "width"), sizes, strict=True):
            if not isinstance(value, torch.SymInt):  # of a program that is exported for any batch
                _check.count(name, value)
        _within(min(sizes[1:]), max(sizes[1:]))
        return sizes, torch.device("cpu" if device is None else device)
    device = torch.device(sizes.device if device is None else device)
    if sizes.dim() != 2 or sizes.shape[1] != 2:
        raise ValueError(f"sizes must have shape [b, 2], got {list(sizes.shape)}")
    if sizes.dtype != torch.int64:
        raise TypeError(f"sizes must be int64, got {sizes.dtype}")
    if not _check.seen(sizes) or len(sizes) == 0:
        return sizes.to(device, non_blocking=True), device
    numbers = sizes.numpy()
    _within(int(numbers.min()), int(numbers.max()))
    if len(sizes) == 1:
        return (1, *sizes[0].tolist()), device
    return sizes.to(device, non_blocking=True), device


def _within(least: int, most: int) -> None:
    if least < 1 or most > LONGEST:
        wrong = least if least < 1 else most
        raise ValueError(f"sizes must be from 1 to {LONGEST}, got {wrong}")


@kept(1024)  # images of a camera or of a data set have few sizes
def _frame(recipes: tuple[Recipe, ...], height: int, width: int, device: torch.device):
    """Sides `[1, 2]` and the boxes in the middle of images of one size."""
    sides = torch.tensor([[height, width]], device="cpu").to(device)
    bounds = _bounds(recipes, device)
    return sides, middle_box(sides, bounds.ratio, bounds.shares)


@kept(64)  # as a copy to a GPU from memory of the host makes the host wait
def _bounds(recipes: tuple[Recipe, ...], device: torch.device) -> Bounds:
    def tensor(numbers: list, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.tensor(numbers, dtype=dtype, device="cpu")

    table = tensor([_ranges(recipe) for recipe in recipes], torch.float64)
    low, high = table.t().reshape(2, DRAWS, 1, len(recipes))
    ratio = tensor([recipe.ratio for recipe in recipes]).t().unsqueeze(1)
    shares = tensor([[recipe.middle or 0.0 for recipe in recipes]])
    return Bounds(
        low=low.float().contiguous().to(device),
        span=(high - low).float().contiguous().to(device),
        ratio=ratio.contiguous().to(device),
        threshold=tensor([[recipe.threshold for recipe in recipes]]).to(device),
        shares=shares.to(device) if any(recipe.middle for recipe in recipes) else None,
    )


def _ranges(recipe: Recipe) -> list[float]:
    """The lower ends of all draws, then the upper ones."""
    narrow, wide = (math.log(r) for r in recipe.ratio)
    lights = (recipe.brightness, recipe.contrast, recipe.saturation)
    chances = (recipe.jitter, recipe.mirror, recipe.grey, recipe.blur, recipe.solarise)
    pairs = [
        *[recipe.scale] * TRIES, *[(narrow, wide)] * TRIES, (0.0, 1.0), (0.0, 1.0),
        *[(max(0.0, 1 - change), 1 + change) for change in lights], (-recipe.hue, recipe.hue),
        (0.0, ORDERS), recipe.sigma, *[(-p, 1 - p) for p in chances],
    ]  # fmt: skip
    return [low for low, _ in pairs] + [high for _, high in pairs]
