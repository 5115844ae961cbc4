"""What one random view of an image may look like, in the numbers of a paper."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from .. import _check

PAPERS_RATIO = (3 / 4, 4 / 3)
MOST = 1e38  # of what has no other limit: parameters are float32


@dataclass(frozen=True)
class Recipe:
    """The chances and ranges of one view; what is left out is not done.

    Args:
        scale: Smallest and largest part of the image's area that a crop takes.
        ratio: Narrowest and widest width over height of a crop.
        mirror: Chance of the mirror image.
        jitter: Chance that the four colour factors are drawn at all.
        brightness: Largest change of the factor either way from 1, 0 at least.
        contrast: The same.
        saturation: The same.
        hue: Largest turn of the hue either way, in turns, at most a half.
        grey: Chance of a view without colour.
        blur: Chance of a Gaussian blur.
        sigma: Smallest and largest deviation of the blur, in pixels of the view.
        solarise: Chance that bright pixels are inverted.
        threshold: From which share of full scale on pixels are inverted.
        middle: Share of the shorter side that a square crop in the middle takes; the crop is
            not random then, and scale and ratio are not looked at.

    Raises:
        ValueError, TypeError: A chance outside of [0, 1], or a range that is none.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = PAPERS_RATIO
    mirror: float = 0.0
    jitter: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grey: float = 0.0
    blur: float = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)
    solarise: float = 0.0
    threshold: float = 0.5
    middle: float | None = None

    def __post_init__(self) -> None:
        """Whatever numbers were given, as floats and tuples of them: equal recipes are one key."""
        for name in ("mirror", "jitter", "grey", "blur", "solarise", "threshold"):
            self._keep(name, _check.share(name, getattr(self, name)))
        for name, most in (("brightness", MOST), ("contrast", MOST), ("saturation", MOST),
                           ("hue", 0.5)):  # fmt: skip
            value = _check.finite(name, getattr(self, name))
            if not 0 <= value <= most:
                raise ValueError(f"{name} must be from 0 to {most:g}, got {value}")
            self._keep(name, value)
        for name, most in (("scale", 1.0), ("ratio", MOST), ("sigma", MOST)):
            self._keep(name, _interval(name, getattr(self, name), most))
        if self.middle is not None:
            if not 0 < _check.finite("middle", self.middle) <= 1:
                raise ValueError(f"middle must be above 0 and at most 1, got {self.middle}")
            self._keep("middle", float(self.middle))

    def _keep(self, name: str, value: float | tuple[float, float]) -> None:
        object.__setattr__(self, name, value)  # the dataclass is frozen

    def jittered(self, strength: float) -> "Recipe":
        """The same with the ranges of the colour jitter times a strength."""
        if _check.finite("strength", strength) < 0:
            raise ValueError(f"strength must be 0 or more, got {strength}")
        names = "brightness", "contrast", "saturation", "hue"
        try:
            return replace(self, **{name: getattr(self, name) * strength for name in names})
        except ValueError as error:
            raise ValueError(f"strength must not be {strength}: {error}") from None


def checked(recipes: Sequence[Recipe]) -> tuple[Recipe, ...]:
    """One for each view."""
    if isinstance(recipes, Recipe) or not isinstance(recipes, Iterable):
        raise TypeError(f"recipes must be a sequence of Recipe, got {type(recipes).__name__}")
    recipes = tuple(recipes)
    if not recipes:
        raise ValueError("recipes must hold one recipe for each view at least, got none")
    for i, recipe in enumerate(recipes):
        if not isinstance(recipe, Recipe):
            raise TypeError(f"recipes[{i}] must be a Recipe, got {type(recipe).__name__}")
    return recipes


def _interval(name: str, value: tuple[float, float], most: float) -> tuple[float, float]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name} must be two numbers, smallest and largest, got {value!r}")
    low, high = (_check.finite(name, x) for x in value)
    if not 0 < low <= high <= most:
        raise ValueError(
            f"{name} must be above 0 and at most {most:g}, smallest first, got {value}"
        )
    return low, high
