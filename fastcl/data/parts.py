"""Views of a few images at a time, in the threads that decode, side by side in one batch."""

import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

# Bytes of decoded images that a thread holds before it makes their views: about 8 photographs of
# 500 x 375. A call for a single one costs as much as its views.
PART = 2**22


class Scratch(threading.local):
    """Memory of a thread for images that lie end to end, so that their views need no copy."""

    def __init__(self) -> None:
        self.memory, self.used = torch.empty(2 * PART, dtype=torch.uint8), 0

    def rest(self) -> np.ndarray:  # uint8 [n]
        """Where the next image may be decoded to."""
        return self.memory[self.used :].numpy()

    def put(self, pixels: np.ndarray) -> Tensor:  # uint8 [c, h, w]
        """An image in its place behind the others; one that is too large stays where it is."""
        image, (c, h, w) = torch.from_numpy(pixels), pixels.shape
        place = self.memory[self.used : self.used + pixels.size]
        self.used += pixels.size
        if len(place) < pixels.size:
            return image
        place = place.view(h, w, c).permute(2, 0, 1)
        if place.data_ptr() != image.data_ptr():
            place.copy_(image)
        return place


@runtime_checkable
class PartViews(Protocol):
    """Views that need not see the batch as a whole, as those of `fastcl.views`.

    For any cut of a batch into parts, `joined` of the parts side by side is what
    `views(images, generator)` gives.
    """

    def chances(self, b: int, generator: torch.Generator) -> Tensor:
        """All random numbers of a batch, `[b, ...]` on the CPU."""

    def part(self, images: list[Tensor], chances: Tensor) -> tuple[Tensor, ...]:
        """Views of some images uint8 `[c, h, w]` by their random numbers, each
        `[views, k, ...]`."""

    def joined(self, groups: tuple[Tensor, ...]) -> Any:
        """The batch, of the same `[views, b, ...]`."""


class Buffers:
    """Memory of batches that nobody holds any more, for the next ones: fresh memory costs ten times
    what writing to it does."""

    def __init__(self) -> None:
        self.free: dict[int, list[np.ndarray]] = {}  # by their size

    def empty_like(self, x: Tensor, b: int) -> Tensor:
        """`[v, b, ...]` as `x` `[v, k, ...]` is laid out, not filled."""
        shape = (x.shape[0], b, *x.shape[2:])
        order = sorted(range(x.dim()), key=lambda i: -x.stride(i))
        count = int(np.prod(shape)) * x.element_size()
        free = self.free.setdefault(count, [])
        try:
            memory = free.pop()
        except IndexError:
            memory = np.empty(count, dtype=np.uint8)
        lent = memory[:]  # PyTorch holds it as long as any tensor of it lives
        weakref.finalize(lent, free.append, memory).atexit = False
        flat = torch.from_numpy(lent).view(x.dtype)
        return flat.view([shape[i] for i in order]).permute(*np.argsort(order).tolist())


class Slot:
    """Where the views of one batch come together.

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

    def add(self, place: int, images: list[Tensor]) -> None:
        """Make the views of images `place` to `place + k` of the batch; from any thread."""
        with self._lock:
            if self._chances is None:
                self._chances = self.views.chances(self.b, self.generator())
        rows = slice(place, place + len(images))
        made = self.views.part(images, self._chances[rows])
        with self._lock:
            if self.groups is None:
                self.groups = tuple(self.buffers.empty_like(x, self.b) for x in made)
        for group, x in zip(self.groups, made, strict=True):
            group[:, rows].copy_(x)

    def joined(self) -> Any:
        return self.views.joined(self.groups)
