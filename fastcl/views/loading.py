"""Files to views: each image is decoded and made its views while it is in cache."""

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._library import ops
from .decoding import Seen, fill


class Part(NamedTuple):
    """The views of one size of a batch."""

    parameters: Tensor  # [b, V, 13]
    kernel: int
    out: Tensor  # [V, b, c, size, size], or [V, b, size, size, c] where they are channels last


def tensors(out: Tensor | Sequence[Tensor], count: int) -> list[Tensor]:
    """So many of them; a view alone gets its dimension for the views."""
    given = list(out) if isinstance(out, (list, tuple)) else [out]
    if len(given) != count:
        raise ValueError(f"out must hold {count} tensors, got {len(given)}")
    return [x[None] if isinstance(x, Tensor) and x.dim() == 4 else x for x in given]


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
    views = ops.image_views_.default

    def make(i: int) -> None:
        if not hasattr(own, "place"):
            own.place, own.sides = np.empty(room, np.uint8), None
        if own.sides != seen[i].sides:
            own.sides = height, width = seen[i].sides
            own.array = own.place[: 3 * height * width].reshape(height, width, 3)
            own.image = torch.from_numpy(own.array)
        fill(seen[i], own.array)
        for parameters, kernel, out in parts:
            views(own.image, parameters, i, kernel, *normalisation, channels_last, out, i)

    for _ in each(make, range(len(seen))):
        pass
