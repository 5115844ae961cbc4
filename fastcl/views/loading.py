"""Files to views: what they show of an image is decoded, and they are made while it is in cache."""

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._library import ops
from .decoding import Seen, fill

if TYPE_CHECKING:
    from ..data.orientation import Box


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


def boxes(parameters: Sequence[Tensor]) -> "list[Box]":  # [b, V, 13] each
    """What the views of each image show of it."""
    crops = np.concatenate([x[..., :4].numpy() for x in parameters], 1)
    starts, ends = crops[..., :2], crops[..., :2] + crops[..., 2:]  # height, width
    found = np.stack([starts.min(1), ends.max(1)], 2).reshape(-1, 4)
    return found.astype(np.int64).tolist()


def load(
    seen: Sequence[Seen],
    each: Callable[..., Iterable],
    parts: Sequence[Part],
    normalisation: tuple[Tensor, Tensor],  # [3] each, mean and deviation
    channels_last: bool,
) -> None:
    """The views of all images, into the memory of the parts; a thread of `each` decodes one image
    after the other to the same place."""
    room = max(3 * height * width for height, width in (image.sides for image in seen))
    own = threading.local()
    views, shown = ops.image_views_.default, boxes([part.parameters for part in parts])

    def make(i: int) -> None:
        if not hasattr(own, "place"):
            own.place, own.sides = np.empty(room, np.uint8), None
        if own.sides != seen[i].sides:
            own.sides = height, width = seen[i].sides
            own.array = own.place[: 3 * height * width].reshape(height, width, 3)
            own.image = torch.from_numpy(own.array)
        fill(seen[i], own.array, shown[i])
        for parameters, kernel, out in parts:
            views(own.image, parameters, i, kernel, *normalisation, channels_last, out, i)

    for _ in each(make, range(len(seen))):
        pass
