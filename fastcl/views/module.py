"""Views as modules: drawn and made in one call, for a batch, a list of images, or packed ones."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor, nn

from .. import _check
from .._buffers import Buffers
from .._library import ops
from ..functional.packed import Packed
from ..functional.random_views import check_form, made, normal
from ..functional.view_memory import apart, laid_out
from .chance import Chance
from .decoding import Source, looked_at
from .draw import draw, uniform
from .images import looked_over, together
from .loading import Part, load, tensors
from .recipe import Recipe

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
            x = None if x is None else torch.as_tensor(x, dtype=torch.float32).reshape(-1)
            self.register_buffer(name, x, persistent=False)
        self.dtype, self.memory_format, self.layout = dtype, memory_format, layout
        self.chance, self.memory = Chance(generator), Buffers()

    def make(
        self,
        images: Tensor | Packed,
        recipes: tuple[Recipe, ...],
        size: int,
        generator: torch.Generator | None = None,
        chances: Tensor | None = None,  # [b, 33, len(recipes)] of `draw.uniform`
        out: Tensor | None = None,
    ) -> Tensor:
        """One view by each recipe, `[len(recipes), b, c, size, size]`."""
        channels, sizes, device = looked_over(images, self.layout)
        if channels != 3:
            recipes = colourless(recipes)
        generator = generator or self.chance.now()
        parameters = draw(recipes, sizes, generator=generator, device=device, chances=chances)
        return made(
            images, parameters, size, kernel_of(size), self.mean, self.deviation, self.dtype,
            self.memory_format, self.layout, out, drawn=True,
        )  # fmt: skip

    def of_groups(
        self,
        images: Tensor | Packed | Sequence[Tensor],
        generator: torch.Generator | None,
        out: Tensor | Sequence[Tensor] | None,
    ) -> tuple[Tensor, ...]:
        """The views of each group, in memory of the caller's where it is given."""
        images = together(images)
        memory = self._given(images, out)
        return tuple(
            self.make(images, recipes, size, generator, out=x)
            for (recipes, size), x in zip(self.groups, memory, strict=True)
        )

    def _given(self, images: Tensor | Packed, out) -> Sequence[Tensor | None]:
        """Memory for each group: the caller's, all of it looked at before the first is written; on
        the CPU that of a batch that was let go; else None."""
        channels, sizes, device = looked_over(images, self.layout)
        b = len(sizes) if isinstance(sizes, Tensor) else sizes[0]
        pixels = images.pixels if isinstance(images, Packed) else images
        if out is None:
            fresh = not _check.seen(pixels)
            like = [None] * len(self.groups) if fresh else self.places(b, channels)
            return [x if x is None else self.memory.like(x) for x in like]
        given = tensors(out, len(self.groups))
        for x, y in zip(given, self.places(b, channels), strict=True):
            end = tuple(y.shape), self.dtype, self.memory_format, device
            apart(laid_out(x, *end), "images", pixels)
        return given

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
        check_form(self.dtype, self.memory_format)
        mean, deviation = (None if x is None else x.cpu() for x in (self.mean, self.deviation))
        normalisation = normal(mean, deviation, 3, torch.device("cpu"))
        last = self.memory_format == torch.channels_last
        parts: list[Part] = []
        with looked_at(files, threads) as (seen, each):
            sizes = torch.tensor([image.sides for image in seen])
            jobs = zip(self.groups, self._memory(len(seen), out), strict=True)
            for (recipes, size), views in jobs:
                drawn = draw(recipes, sizes, generator=generator or self.chance.now())
                parts.append(Part(drawn, kernel_of(size), views))
            load(seen, each, parts, normalisation, last)
        return self.joined(
            tuple(part.out.permute(0, 1, 4, 2, 3) if last else part.out for part in parts)
        )

    def _memory(self, b: int, out: Tensor | Sequence[Tensor] | None) -> list[Tensor]:
        """Where the views of so many files go, as the kernels write them."""
        like, end = self.places(b, 3), (self.dtype, self.memory_format, torch.device("cpu"))
        given = [self.memory.like(x) for x in like] if out is None else tensors(out, len(like))
        return [laid_out(x, tuple(y.shape), *end) for x, y in zip(given, like, strict=True)]

    # Image by image, for `fastcl.data.Loader`; see `fastcl.data.PartViews`.

    def chances(self, b: int, generator: torch.Generator) -> Tensor:
        return torch.cat([uniform(b, len(recipes), generator) for recipes, _ in self.groups], 2)

    def places(self, b: int, channels: int) -> tuple[Tensor, ...]:
        return tuple(
            memory_like(len(recipes), b, channels, size, self.dtype, self.memory_format)
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

    def write(
        self, image: Tensor, drawn: tuple, k: int, out: tuple[Tensor, ...], place: int
    ) -> None:
        normalisation, parameters = drawn
        last = self.memory_format == torch.channels_last
        for (_, size), rows, x in zip(self.groups, parameters, out, strict=True):
            ops.image_views_(
                image, rows, k, kernel_of(size), *normalisation, last,
                x.permute(0, 1, 3, 4, 2) if last else x, place,
            )  # fmt: skip


@lru_cache(maxsize=64)
def memory_like(
    views: int, b: int, channels: int, size: int, dtype: torch.dtype, form: torch.memory_format
) -> Tensor:
    """What views of one size are like, without memory."""
    check_form(dtype, form)
    if form == torch.contiguous_format:
        return torch.empty(views, b, channels, size, size, dtype=dtype, device="meta")
    x = torch.empty(views, b, size, size, channels, dtype=dtype, device="meta")
    return x.permute(0, 1, 4, 2, 3)


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
        _check.count("size", size)
        recipes = tuple(self.RECIPES if recipes is None else recipes)
        if not recipes:
            raise ValueError("recipes must hold one recipe for each view at least, got none")
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
