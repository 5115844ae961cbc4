"""Views as modules: drawn and made in one call, for a batch, a list of images, or packed ones."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .. import _check
from .._buffers import Buffers
from .._library import ops
from ..functional.packed import Packed
from ..functional.random_views import LAYOUTS, check_form, check_side, made, normal, numbers
from ..functional.view_memory import apart, laid_out, memory_like, written
from .chance import Chance
from .decoding import Source, looked_at
from .draw import draw, uniform
from .images import looked_over, together
from .loading import Part, boxes, load, tensors
from .recipe import Recipe, checked

if TYPE_CHECKING:
    from ..data.orientation import Box

IMAGENET_MEAN = 0.485, 0.456, 0.406
IMAGENET_DEVIATION = 0.229, 0.224, 0.225
LEAST_BLURRED = 96  # pixels along a side: on CIFAR's 32 the papers leave the blur out


class Drawn(nn.Module):
    """What all views share: how they are written and where their random numbers come from.

    On the CPU the memory of an earlier batch is taken once nothing refers to its views any more, as
    new memory takes time of its own: the module keeps what was let go.

    Args:
        mean: `[c]`, subtracted, in units of full scale; None subtracts nothing.
        deviation: `[c]`, divides what is left; None leaves it.
        dtype: Of the views, float32, bfloat16 or float16.
        memory_format: Of each view, contiguous or `torch.channels_last`.
        layout: Of a batch of one size, "chw" or "hwc".
        generator: Of the random numbers, on the device of the images; PyTorch's own by default.
            In a worker of a DataLoader it is seeded anew from its seed and the worker's, as all
            workers get the same copy. One that is given with the images, as `fastcl.data.Loader`
            does, goes before it.
    """

    mean: Tensor | None
    deviation: Tensor | None
    groups: Sequence[tuple[tuple[Recipe, ...], int]] = ()  # views of one size: recipes and side

    def __init__(
        self,
        *,
        mean: Sequence[float] | Tensor | None = IMAGENET_MEAN,
        deviation: Sequence[float] | Tensor | None = IMAGENET_DEVIATION,
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
        layout: str = "chw",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, x in (("mean", mean), ("deviation", deviation)):
            self.register_buffer(name, None if x is None else numbers(name, x), persistent=False)
        check_form(dtype, memory_format)
        _check.one_of("layout", layout, LAYOUTS)
        self.dtype, self.layout = dtype, layout
        self.last = memory_format == torch.channels_last  # a memory_format cannot be saved
        self.chance, self.memory = Chance(generator), Buffers()

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.last else torch.contiguous_format

    def _apply(self, fn, recurse: bool = True):
        # To a device, but to no other dtype: 16 bits would round mean and deviation.
        return super()._apply(lambda x: x.to(fn(x).device), recurse)

    def of_groups(
        self,
        images: Tensor | Packed | Sequence[Tensor],
        generator: torch.Generator | None = None,
        out: Tensor | Sequence[Tensor] | None = None,
        groups: Sequence[tuple[tuple[Recipe, ...], int]] | None = None,
    ) -> tuple[Tensor, ...]:
        """The views of each group, by default of the module's own, and in memory of the caller's
        where it is given. All is drawn and looked at before the first is written."""
        images, groups = together(images), self.groups if groups is None else groups
        channels, sizes, device = looked_over(images, self.layout)
        memory: Sequence[Tensor | None] = [None] * len(groups)
        if out is not None:
            b = len(sizes) if isinstance(sizes, Tensor) else sizes[0]
            memory = tensors(out, len(groups))
            pixels = images.pixels if isinstance(images, Packed) else images
            for x in self._laid_out(memory, b, channels, device):
                apart(x, "images", pixels)
        generator = generator or self.chance.now()
        drawn = [
            draw(recipes if channels == 3 else colourless(recipes), sizes,
                 generator=generator, device=device)
            for recipes, _ in groups
        ]  # fmt: skip
        return tuple(
            made(
                images, parameters, size, kernel_of(size), self.mean, self.deviation, self.dtype,
                self.memory_format, self.layout, x, self.memory,
            )
            for parameters, (_, size), x in zip(drawn, groups, memory, strict=True)
        )  # fmt: skip

    def _laid_out(
        self, given: Sequence[Tensor], b: int, channels: int, device: torch.device
    ) -> list[Tensor]:
        """Memory of each group, as the kernels write it: none in that of another."""
        found: list[Tensor] = []
        for x, y in zip(given, self.places(b, channels), strict=True):
            x = laid_out(x, tuple(y.shape), self.dtype, self.memory_format, device)
            for k, other in enumerate(found):
                apart(x, f"out[{k}]", other)
            found.append(x)
        return found

    def joined(self, groups: tuple[Tensor, ...]) -> Tensor | list[Tensor]:
        """What a call returns, of the views of each group."""
        raise NotImplementedError

    @torch.no_grad()
    def load(
        self,
        files: Source | Sequence[Source],
        *,
        threads: int | None = None,
        generator: torch.Generator | None = None,
        out: Tensor | Sequence[Tensor] | None = None,
    ) -> Tensor | list[Tensor]:
        """The views of image files, on the CPU, each file decoded and viewed while it is in cache.

        Equal to ``self(decode(files, threads=threads), generator)``, without a record of all
        pixels.

        Args:
            files, threads: As for `decode`.
            generator: As for `Drawn`.
            out: What an earlier call on as many files or images returned, to be written again.
                After an error it holds some of both. By default as for `Drawn`.

        Returns:
            What a call of the module does.

        Raises:
            As `decode`; ValueError, TypeError: out is not what will be returned.
        """
        mean, deviation = (None if x is None else x.cpu() for x in (self.mean, self.deviation))
        normalisation = normal(mean, deviation, 3, torch.device("cpu"))
        parts: list[Part] = []
        with looked_at(files, threads) as (seen, each):
            sizes = torch.tensor([image.sides for image in seen], device="cpu")
            jobs = zip(self.groups, self._memory(len(seen), out), strict=True)
            for (recipes, size), views in jobs:
                drawn = draw(recipes, sizes, generator=generator or self.chance.now())
                parts.append(Part(drawn, kernel_of(size), views))
            if out is not None:
                for part in parts:
                    written(part.out)
            load(seen, each, parts, normalisation, self.last)
        views = (x.out.permute(0, 1, 4, 2, 3).detach() if self.last else x.out for x in parts)
        return self.joined(tuple(views))

    def _memory(self, b: int, out: Tensor | Sequence[Tensor] | None) -> list[Tensor]:
        """Where the views of so many files go, as the kernels write them."""
        like = self.places(b, 3)
        given = [self.memory.like(x) for x in like] if out is None else tensors(out, len(like))
        return self._laid_out(given, b, 3, torch.device("cpu"))

    # Image by image, for `fastcl.data.Loader`; see `fastcl.data.PartViews`.

    def chances(self, b: int, generator: torch.Generator) -> Tensor:
        return torch.cat([uniform(b, len(recipes), generator) for recipes, _ in self.groups], 2)

    def places(self, b: int, channels: int) -> tuple[Tensor, ...]:
        return tuple(
            memory_like((len(recipes), b, channels, size, size), self.dtype, self.memory_format)
            for recipes, size in self.groups
        )

    @torch.no_grad()
    def drawn(self, sizes: Tensor, channels: int, chances: Tensor) -> tuple:
        """Mean and deviation, and the parameters of each group."""
        parts = chances.split([len(recipes) for recipes, _ in self.groups], 2)
        parameters = [
            draw(recipes if channels == 3 else colourless(recipes), sizes, chances=part)
            for (recipes, _), part in zip(self.groups, parts, strict=True)
        ]
        return normal(self.mean, self.deviation, channels, sizes.device), parameters

    def boxes(self, drawn: tuple) -> "list[Box]":
        return boxes(drawn[1])

    def write(
        self, image: Tensor, drawn: tuple, k: int, out: tuple[Tensor, ...], place: int
    ) -> None:
        normalisation, parameters = drawn
        for (_, size), rows, x in zip(self.groups, parameters, out, strict=True):
            ops.image_views_(
                image, rows, k, kernel_of(size), *normalisation, self.last,
                x.permute(0, 1, 3, 4, 2) if self.last else x, place,
            )  # fmt: skip


def kernel_of(size: int) -> int:
    """Taps of the blur: a tenth of the side, odd, as in SimCLR; 23 for 224 pixels."""
    return size // 20 * 2 + 1


@lru_cache(maxsize=64)
def colourless(recipes: tuple[Recipe, ...]) -> tuple[Recipe, ...]:
    """The same for images that have no three colours."""
    return tuple(replace(recipe, jitter=0.0, grey=0.0) for recipe in recipes)


class Views(Drawn):
    """Random views of one size, one for each recipe.

    Equal to ``functional.random_views(images, draw(recipes, sizes), size=size)`` with the mean
    and deviation, and a blur over a tenth of the side.

    Args:
        size: Pixels along a side of a view.
        recipes: One for each view; None takes those of the class.
        strength: Multiplies the ranges of the colour jitter.
        mean, deviation, dtype, memory_format, layout, generator: As for `Drawn`.

    Returns:
        `[views, b, c, size, size]` of a uint8, uint16 or float32 batch `[b, c, h, w]`, a list of
        `[c, h, w]` of any sizes, or `decode`'s record; in the memory of `out=`, which an earlier
        call has returned, where it is given. The colours of images of other than three channels
        stay.

    Raises:
        ValueError, TypeError: A size or a strength out of range, no recipe; images that
            `functional.random_views` does not take.
    """

    RECIPES: tuple[Recipe, ...] = ()
    SMALL_ONES_BLURRED = True

    def __init__(
        self,
        size: int = 224,
        recipes: Sequence[Recipe] | None = None,
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
        check_side("size", size)
        recipes = checked(self.RECIPES if recipes is None else recipes)
        if size < LEAST_BLURRED and not self.SMALL_ONES_BLURRED:
            recipes = tuple(replace(recipe, blur=0.0) for recipe in recipes)
        self.size = size
        self.recipes = tuple(recipe.jittered(strength) for recipe in recipes)

    @torch.no_grad()
    def forward(
        self,
        images: Tensor | Packed | Sequence[Tensor],
        generator: torch.Generator | None = None,
        *,
        out: Tensor | None = None,
    ) -> Tensor:
        return self.joined(self.of_groups(images, generator, out))

    @property
    def groups(self) -> tuple[tuple[tuple[Recipe, ...], int]]:
        return ((self.recipes, self.size),)

    def joined(self, groups: tuple[Tensor, ...]) -> Tensor:
        return groups[0]

    def extra_repr(self) -> str:
        return f"{self.size}, views={len(self.recipes)}"
