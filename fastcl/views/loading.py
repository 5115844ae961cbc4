"""Files to views: each image is decoded and made its views while it is in cache."""

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _check
from .._library import ops
from .decoding import Seen, fill


class Part(NamedTuple):
    """The views of one size of a batch."""

    parameters: Tensor  # [b, V, 13]
    kernel: int
    out: Tensor  # [V, b, c, size, size], or [V, b, size, size, c] where they are channels last


def places(
    out: Tensor | Sequence[Tensor] | None,
    counts: Sequence[tuple[int, int, int]],  # views, images and side of each part
    dtype: torch.dtype,
    channels_last: bool,
) -> list[Tensor]:
    """Memory for the views of each part: new, or what an earlier call returned."""
    shapes = [(v, b, s, s, 3) if channels_last else (v, b, 3, s, s) for v, b, s in counts]
    if out is None:
        made = [torch.empty(shape, dtype=dtype) for shape in shapes]
        for x in made:
            ops.large_pages_(x)
        return made
    given = [out] if isinstance(out, Tensor) else list(out)
    if len(given) != len(shapes):
        raise ValueError(f"out must hold {len(shapes)} tensors, got {len(given)}")
    return [_place(*pair, dtype, channels_last) for pair in zip(given, shapes, strict=True)]


def _place(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool) -> Tensor:
    _check.tensor("out", x)
    if x.dtype != dtype:
        raise TypeError(f"out must be {dtype}, got {x.dtype}")
    found = x[None] if x.dim() == 4 else x  # a view alone has no dimension for the views
    found = found.permute(0, 1, 3, 4, 2) if channels_last and found.dim() == 5 else found
    if found.shape != shape or not found.is_contiguous() or x.device.type != "cpu":
        raise ValueError(
            f"out must be what a call on {shape[1]} files returned, with {math.prod(shape)} "
            f"elements end to end on the CPU, got {list(x.shape)} on {x.device}"
        )
    return found.detach()


def load(
    seen: Sequence[Seen],
    each: Callable[..., Iterable],
    parts: Sequence[Part],
    normalisation: tuple[Tensor, Tensor],  # [3] each, mean and deviation
    channels_last: bool,
) -> None:
    """The views of all images, into the memory of the parts; a thread of `each` decodes one image
    after the other to the same place."""
    room = max(3 * height * width for _, _, (height, width) in seen)
    own = threading.local()

    def make(i: int) -> None:
        if not hasattr(own, "place"):
            own.place = torch.empty(room, dtype=torch.uint8)
        height, width = seen[i].sides
        image = fill(seen[i], own.place[: 3 * height * width])
        for parameters, kernel, out in parts:
            ops.image_views_(
                image, parameters[i : i + 1], kernel, *normalisation, channels_last, out[:, i]
            )

    for _ in each(make, range(len(seen))):
        pass
