"""Views of one image at a time, in the threads that decode, side by side in one batch."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from .._buffers import Buffers
from .orientation import Box
from .square import tensor_of


@runtime_checkable
class PartViews(Protocol):
    """Views that need not see the batch as a whole, as those of `fastcl.views`.

    For any cut of a batch into parts, `joined` of what `write` has written is what
    `views(images, generator)` gives.

    Where there is also a method `boxes(drawn)`, a list of top, bottom, left and right of what the
    views of each of these images show, `write` gets of an image perhaps no more than that, and
    anything around it. A subclass of views of `fastcl.views` whose `write` looks at more has
    `boxes = None`.
    """

    def chances(self, b: int, generator: torch.Generator) -> Tensor:
        """All random numbers of a batch, `[b, ...]` on the CPU."""

    def places(self, b: int, channels: int) -> tuple[Tensor, ...]:
        """What the views of a batch are like, each `[views, b, ...]`, without memory: on the meta
        device."""

    def drawn(self, sizes: Tensor, channels: int, chances: Tensor) -> Any:
        """What `write` needs to know of some images, by their heights and widths int64 `[k, 2]` and
        their random numbers `[k, ...]`."""

    def write(self, image: Tensor, drawn: Any, k: int, out: tuple[Tensor, ...], place: int) -> None:
        """Views of image k of those drawn, uint8 `[h, w, c]`, to `[:, place]` of memory like that
        of `places`."""

    def joined(self, groups: tuple[Tensor, ...]) -> Any:
        """The batch, of the same `[views, b, ...]`."""


class Slot:
    """Where the views of one batch come together, from any thread.

    Args:
        b: Images of the batch.
        views: Of what.
        generator: Makes the batch's own.
        buffers: Where its memory comes from.
    """

    def __init__(
        self, b: int, views: PartViews, generator: Callable[[], torch.Generator], buffers: Buffers
    ) -> None:
        self.b, self.views, self.generator, self.buffers = b, views, generator, buffers
        self.groups: tuple[Tensor, ...] | None = None
        self._chances: Tensor | None = None
        self._lock = threading.Lock()

    def drawn(self, place: int, sides: Sequence[tuple[int, int]], channels: int) -> Any:
        """What is drawn for the images from a place of the batch on."""
        with self._lock:
            if self._chances is None:
                self._chances = self.views.chances(self.b, self.generator())
                like = self.views.places(self.b, channels)
                self.groups = tuple(self.buffers.like(x) for x in like)
        rows = self._chances[place : place + len(sides)]
        return self.views.drawn(torch.tensor(sides, device="cpu"), channels, rows)

    def boxes(self, drawn: Any, count: int) -> Sequence[Box | None]:
        """What their views show of so many images; None where that is not known."""
        of = getattr(self.views, "boxes", None)
        return [None] * count if of is None else of(drawn)

    def write(self, place: int, pixels: np.ndarray, drawn: Any, k: int) -> None:
        """The views of the image `[c, h, w]` of a place, image k of those drawn."""
        image = tensor_of(pixels.transpose(1, 2, 0)).contiguous()
        self.views.write(image, drawn, k, self.groups, place)

    def joined(self) -> Any:
        return self.views.joined(self.groups)
