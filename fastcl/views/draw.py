"""The random numbers of views, drawn for a whole batch at once on the device where they serve."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _check
from .recipe import Recipe

TRIES = 10  # torchvision's, before it takes the middle of the image
ORDERS = 24  # of brightness, contrast, saturation and hue
NEVER = 2.0  # a threshold that no pixel reaches

# Rows of the random numbers. A chance is drawn as u - p, which is below zero where it comes true.
AREA, RATIO = slice(0, TRIES), slice(TRIES, 2 * TRIES)
PLACE = slice(20, 22)
FACTORS = slice(22, 26)
ORDER, SIGMA = slice(26, 27), slice(27, 28)
JITTER, MIRROR, GREY, BLUR, SOLARISE = range(28, 33)
DRAWS = 33


class Bounds(NamedTuple):
    """What recipes say, as tensors with the views in the last dimension."""

    low: Tensor  # [DRAWS, 1, views]
    span: Tensor  # [DRAWS, 1, views]
    ratio: Tensor  # [2, 1, views] narrowest and widest
    threshold: Tensor  # [1, views]
    middle: Tensor | None  # [1, views] share of a crop in the middle, 0: a random crop
    identity: Tensor  # [4, 1, 1] the factors that change nothing
    rank: Tensor  # [TRIES, 1, 1] of the tries, the first highest


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
    recipes = tuple(recipes)
    _check_recipes(recipes)
    sizes, device = _checked(sizes, device)
    if generator is not None and generator.device.type != device.type:
        raise ValueError(f"generator must be on {device}, got one on {generator.device}")
    bounds = _bounds(recipes, device)
    if isinstance(sizes, Tensor):
        b, sides = len(sizes), sizes.t().unsqueeze(2).float()
        middle = _middle(bounds, sides)
    else:
        b, *one_size = sizes
        sides, middle = _frame(recipes, *one_size, device)
    if chances is None:
        chances = uniform(b, len(recipes), generator, device)
    elif chances.shape != (b, DRAWS, len(recipes)) or chances.device.type != device.type:
        raise ValueError(
            f"chances must have shape {[b, DRAWS, len(recipes)]} on {device}, got "
            f"{list(chances.shape)} on {chances.device}"
        )
    u = chances.transpose(0, 1)
    x = torch.addcmul(bounds.low, bounds.span, u)
    return _assembled(x, _boxes(x, bounds, sides, middle), bounds)


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
    return torch.rand(DRAWS, b, views, generator=generator, device=device).transpose(0, 1)


def _check_recipes(recipes: tuple[Recipe, ...]) -> None:
    if not recipes:
        raise ValueError("recipes must hold one recipe for each view at least, got none")
    for i, recipe in enumerate(recipes):
        if not isinstance(recipe, Recipe):
            raise TypeError(f"recipes[{i}] must be a Recipe, got {type(recipe).__name__}")


def _checked(sizes, device) -> tuple[Tensor | tuple[int, int, int], torch.device]:
    """Sizes on the device, or as numbers where all are alike."""
    if not isinstance(sizes, Tensor):
        for name, value in zip(("b", "height", "width"), sizes, strict=True):
            _check.count(name, value)
        return sizes, torch.device("cpu" if device is None else device)
    device = torch.device(sizes.device if device is None else device)
    if sizes.dim() != 2 or sizes.shape[1] != 2:
        raise ValueError(f"sizes must have shape [b, 2], got {list(sizes.shape)}")
    if sizes.dtype != torch.int64:
        raise TypeError(f"sizes must be int64, got {sizes.dtype}")
    if not _check.seen(sizes) or len(sizes) == 0:
        return sizes.to(device, non_blocking=True), device
    if sizes.min() < 1:
        raise ValueError(f"sizes must be 1 or more, got {sizes.min().item()}")
    if len(sizes) == 1:
        return (1, *sizes[0].tolist()), device
    return sizes.to(device, non_blocking=True), device


@lru_cache(maxsize=1024)  # images of a camera or of a data set have few sizes
def _frame(recipes: tuple[Recipe, ...], height: int, width: int, device: torch.device):
    """Sides `[2, 1, 1]` and the boxes in the middle of images of one size."""
    sides = torch.tensor([height, width], dtype=torch.float32).view(2, 1, 1).to(device)
    return sides, _middle(_bounds(recipes, device), sides)


@lru_cache(maxsize=64)  # as a copy to a GPU from memory of the host makes the host wait
def _bounds(recipes: tuple[Recipe, ...], device: torch.device) -> Bounds:
    table = torch.tensor([_ranges(recipe) for recipe in recipes], dtype=torch.float64)
    low, high = table.t().reshape(2, DRAWS, 1, len(recipes))
    middle = torch.tensor([[recipe.middle or 0.0 for recipe in recipes]])
    return Bounds(
        low=low.float().to(device),
        span=(high - low).float().to(device),
        ratio=torch.tensor([r.ratio for r in recipes]).t().unsqueeze(1).to(device),
        threshold=torch.tensor([[recipe.threshold for recipe in recipes]], device=device),
        middle=middle.to(device) if middle.any() else None,
        identity=torch.tensor([1.0, 1.0, 1.0, 0.0], device=device).view(4, 1, 1),
        rank=torch.arange(TRIES, 0, -1, device=device).view(TRIES, 1, 1),
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


def _assembled(x: Tensor, box: Tensor, bounds: Bounds) -> Tensor:
    came_true = x[JITTER:] < 0
    factors = torch.where(came_true[0], x[FACTORS], bounds.identity)
    flags = came_true[1:4].to(x.dtype)  # mirror, grey, blur
    threshold = torch.where(came_true[4:], bounds.threshold, NEVER)
    # None of the products of u reaches its upper end: u is at most 1 - 2^-24.
    rows = [box, flags[:1], factors, x[ORDER].floor(), flags[1:2], x[SIGMA] * flags[2:], threshold]
    return torch.cat(rows).permute(1, 2, 0).contiguous()


def _boxes(x: Tensor, bounds: Bounds, sides: Tensor, middle: Tensor) -> Tensor:
    """Top, left, height and width of the crops `[4, b, views]`: the first try that fits."""
    area, stretch = x[AREA] * sides.prod(0), x[RATIO].exp()
    tried = torch.stack([area / stretch, area * stretch]).sqrt_().round_()
    fits = (tried > 0).logical_and_(tried <= sides.unsqueeze(1))
    # The first that fits, by its rank: argmax over a dimension that is not the last is slow.
    best = (bounds.rank * (fits[0] & fits[1])).amax(0)
    found = best > 0
    first = (TRIES - best).clamp_(max=TRIES - 1).expand(2, 1, -1, -1)
    box = tried.gather(1, first).squeeze(1)
    if bounds.middle is not None:
        found = found & (bounds.middle == 0)
    box = torch.where(found, box, middle)
    room = sides - box
    corner = torch.where(found, x[PLACE] * (room + 1), room / 2).floor_()
    return torch.cat([corner, box])


def _middle(bounds: Bounds, sides: Tensor) -> Tensor:
    """The box `[2, b or 1, views]` in the middle: the image, cut down to the ratios allowed."""
    height, width = sides
    narrow, wide = bounds.ratio
    high = torch.where(width < narrow * height, (width / narrow).round_().clamp_(min=1), height)
    broad = torch.where(width > wide * height, (height * wide).round_().clamp_(min=1), width)
    box = torch.stack(torch.broadcast_tensors(high, broad))
    if bounds.middle is None:
        return box
    square = (bounds.middle * torch.minimum(height, width)).round_().clamp_(min=1)
    return torch.where(bounds.middle == 0, box, square)
