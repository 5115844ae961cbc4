"""Where a run gets its batches: from memory on the device, or from the disk while it trains."""

import numpy as np
import torch

from ..data.order import Order
from ..data.parts import PartViews
from .images import Images
from .inputs import Batch


def feed_of(images: Images, order: Order, epochs: int, ahead: PartViews | None = None):
    """The one that fits where the images are."""
    if images.streamed:
        return DiskFeed(images, order, epochs, ahead)
    return MemoryFeed(images, order)


class MemoryFeed:
    """Batches of images on the device.

    Args:
        images: In memory.
        order: Which of them, when.

    Attributes:
        bad_images: None of them.
    """

    bad_images: dict[int, str] = {}

    def __init__(self, images: Images, order: Order) -> None:
        self.images, self.order = images, order
        self._epoch, self._index = -1, torch.empty(0)

    def batch(self, epoch: int, step: int) -> Batch:
        """What this rank trains on in a step."""
        if epoch != self._epoch:
            index = torch.from_numpy(np.stack(self.order.epoch(epoch)))
            self._epoch, self._index = epoch, index.to(self.images.train.device)
        index, labels = self._index[step], self.images.train_labels
        return Batch(self.images.train[index], index, None if labels is None else labels[index])

    def mark(self) -> None:
        """An epoch begins."""

    def waiting(self) -> dict:
        """Nothing waits."""
        return {"waited": None, "slowest": None}

    def close(self) -> None:
        """There is nothing to end."""


class DiskFeed:
    """Batches that are read and decoded while the last one trains.

    Args:
        images: Streams.
        order: Which of them, when.
        epochs: Of the run: from one to the next nothing waits.
        ahead: Views that are made while images are read; without, batches are of squares.

    Attributes:
        bad_images: What was said of those that were skipped, by their places.
    """

    def __init__(
        self, images: Images, order: Order, epochs: int, ahead: PartViews | None = None
    ) -> None:
        self.images, self.order, self.epochs = images, order, epochs
        self.loader = images.train.loader(order, ahead)
        self.bad_images = self.loader.bad_images
        self._batches = None
        self._next: tuple[int, int] | None = None
        self._before = 0.0, 0.0  # seconds waited and in all, at the mark

    def batch(self, epoch: int, step: int) -> Batch:
        """What this rank trains on in a step; in their order from any one on."""
        if self._next != (epoch, step):
            self.close()
            self._batches = self.loader.batches(epoch, step, max(self.epochs, epoch + 1))
        found = next(self._batches)
        last = step + 1 == self.order.steps
        self._next = (epoch + 1, 0) if last else (epoch, step + 1)
        labels = self.images.train_labels
        labels = None if labels is None else labels[found.index.to(labels.device)]
        return Batch(found.images, found.index, labels)

    def mark(self) -> None:
        """An epoch begins."""
        self._before = self.loader.waited, self.loader.elapsed

    def waiting(self) -> dict:
        """The share of the time since the mark that training waited for a batch, and the stage
        that has been the slowest."""
        now = self.loader.waited, self.loader.elapsed
        waited, elapsed = (b - a for a, b in zip(self._before, now, strict=True))
        share = round(waited / elapsed, 4) if elapsed > 0 else 0.0
        return {"waited": share, "slowest": self.loader.slowest()}

    def close(self) -> None:
        """End the threads."""
        if self._batches is not None:
            self._batches.close()
        self._batches = self._next = None
