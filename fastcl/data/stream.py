"""Images that stay on the disk and look like a tensor of them."""

import os
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from .loader import Loader
from .order import Order
from .parts import PartViews
from .source import Part, Source
from .square import check_channels, read_all, to_square

CHECKED = 256  # images that are looked at together


def threads_of(ranks: int) -> int:
    """Cores that one of several processes on this machine may use."""
    return max(1, len(os.sched_getaffinity(0)) // ranks)


def stacked(images: list[Tensor], generator: torch.Generator) -> Tensor:
    """Images of one size as a batch."""
    return torch.stack(images).contiguous()  # it keeps the channels last, where they were


class Stream:
    """Stands for uint8 `[n, c, size, size]`: what is asked for is read, decoded and resized, and
    nothing of it is kept.

    Args:
        source: The images.
        size: Side in pixels of the middle square that each becomes.
        channels: Of all of them.
        device: Where tensors are made.
        bad: "error" or "skip", as for `Loader`.
    """

    def __init__(
        self,
        source: Source,
        size: int,
        channels: int,
        device: torch.device | str = "cpu",
        bad: str = "error",
    ) -> None:
        self.source, self.device, self.bad = source, torch.device(device), bad
        self.shape = torch.Size((len(source), channels, size, size))
        self.statistics: tuple[Tensor, Tensor] | None = None  # once somebody has taken them
        self.said: set[str] = set()  # of images that were skipped, here and in parts of this one

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        return self.shape[3]

    def to(self, device: torch.device | str) -> "Stream":
        moved = self._of(self.source, device)
        moved.statistics = self.statistics
        return moved

    def take(self, index: Tensor) -> "Stream":  # int64 or bool [k]
        """Some of the images, still on the disk."""
        part = Part(self.source, np.arange(len(self))[index.cpu().numpy()])
        return self._of(part, self.device)

    def _of(self, source: Source, device: torch.device | str) -> "Stream":
        other = Stream(source, self.size, self.shape[1], device, self.bad)
        other.said = self.said
        return other

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Some of the images, read now."""
        where = index.cpu().numpy() if isinstance(index, Tensor) else index
        rows = np.arange(len(self))[where]
        skipped: dict[int, str] | None = {} if self.bad == "skip" else None
        found = read_all(self.source, rows.reshape(-1), self.size, skipped)
        self.said.update((skipped or {}).values())
        return found.to(self.device).view(*rows.shape, *found.shape[1:])

    def split(self, batch_size: int) -> Iterator[Tensor]:
        """All images in their order, the next ones decoded while these are worked on."""
        order = Order(len(self), batch_size, seed=None, tail=True)
        loader = self.loader(order)
        for batch in loader.batches():
            yield batch.images
        self.said.update(loader.bad_images.values())

    def whole(self) -> Tensor:  # bool [n]
        """Which images can be decoded; each is, to find out."""
        loader = Loader(
            self.source, Order(len(self), CHECKED, seed=None, tail=True), lambda images, _: None,
            each=lambda pixels: pixels[:, :0, :0], bad="skip",
        )  # fmt: skip
        for _ in loader.batches():
            pass
        self.said.update(loader.bad_images.values())
        found = torch.ones(len(self), dtype=torch.bool, device="cpu")
        found[list(loader.bad_images)] = False
        return found

    def loader(self, order: Order, views: PartViews | None = None) -> Loader:
        """Batches on the device: views of the images as they are, or without views uint8
        `[b, c, size, size]`."""
        return Loader(
            self.source, order, views or stacked, each=None if views else self._square,
            channels=self.shape[1], device=self.device, threads=threads_of(order.ranks),
            bad=self.bad,
        )  # fmt: skip

    def _square(self, pixels: np.ndarray) -> np.ndarray:
        check_channels(len(pixels), self.shape[1])
        return to_square(pixels, self.size)
