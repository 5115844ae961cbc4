"""Files to views: each image is decoded and made its views while it is in cache."""

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .._library import ops
from .decoding import Seen, fill


class Part(NamedTuple):
    """The views of one size of a batch."""

    parameters: Tensor  # [b, V, 13]
    kernel: int
    out: Tensor  # [V, b, c, size, size], or [V, b, size, size, c] where they are channels last


def load(
    seen: Sequence[Seen],
    each: Callable[..., Iterable],
    parts: Sequence[Part],
    normalisation: tuple[Tensor, Tensor],  # [3] each, mean and deviation
    channels_last: bool,
) -> None:
    """The views of all images, into the memory of the parts; a thread of `each` decodes one image
    after the other to the same place."""
    for part in parts:
        ops.large_pages_(part.out)
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
