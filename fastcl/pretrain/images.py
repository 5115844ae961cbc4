"""A data set: images as uint8 on the device or, where they are many, on the disk; with labels where
there are any."""

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..data.source import digest as source_digest
from ..data.stream import Stream

# Draws of images are by one seed, so that every run sees the same ones.
SPLIT_SEED = 0
STATISTICS_OF = 1024  # images on the disk: their mean is then within a hundredth of the deviation
LARGEST_BLOCK = 2**24  # numbers that are floats at one time


def drawn(n: int, most: int) -> Tensor:  # int64 [min(n, most)]
    """Which of n images a draw of so many takes, in their order: folders are sorted by class."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(SPLIT_SEED))
    return order[:most].sort().values


@dataclass(frozen=True)
class Images:
    """A training and a test split.

    Args:
        name: What the user called it, for titles and folders.
        kind: "digits" or "photographs": which views and which recipe fit.
        train: uint8 `[n, channels, size, size]`, or a `Stream` that stands for it.
        test: The same for the images held out.
        train_labels: int64 `[n]`, -1 where an image has none, or None. Only SupCon trains with
            them.
        test_labels: int64, or None.
        classes: The name of each label.
        bad: What was said of each image that was left out as unreadable.
        seen_by: Mean and deviation of the images that a network was trained on, where it is to see
            these as it saw those.
    """

    name: str
    kind: str
    train: Tensor | Stream
    test: Tensor | Stream
    train_labels: Tensor | None
    test_labels: Tensor | None
    classes: tuple[str, ...]
    bad: tuple[str, ...] = ()
    seen_by: tuple[Tensor, Tensor] | None = None

    @property
    def channels(self) -> int:
        return self.train.shape[1]

    @property
    def size(self) -> int:
        return self.train.shape[2]

    @property
    def streamed(self) -> bool:
        """Whether the images stay on the disk."""
        return isinstance(self.train, Stream)

    @property
    def labelled(self) -> bool:
        """Whether both splits have images with a label, of two classes at least."""
        both = (self.train_labels, self.test_labels)
        known = [x is not None and bool((x >= 0).any()) for x in both]
        return all(known) and len(self.classes) > 1

    def with_labels(self) -> "Images":
        """The images that have a label: these where all have."""
        known = self.train_labels >= 0, self.test_labels >= 0
        return self if known[0].all() and known[1].all() else self._part(*known)

    def draw(self, most: int) -> "Images":
        """So many of each split at most, by a fixed seed: these where there are no more."""
        if max(len(self.train), len(self.test)) <= most:
            return self
        return self._part(*(drawn(len(x), most) for x in (self.train, self.test)))

    def readable(self) -> "Images":
        """Without streamed images that cannot be decoded: another one in such a place would be
        scored by the label of the first."""
        if not self.streamed or self.train.bad == "error":
            return self
        whole = self.train.whole(), self.test.whole()
        return self if all(x.all() for x in whole) else self._part(*whole)

    def _part(self, train: Tensor, test: Tensor) -> "Images":  # int64 or bool [k]
        def part(x, index: Tensor):
            if isinstance(x, Stream):
                return x.take(index)
            return None if x is None else x[index.to(x.device)]

        return replace(
            self, train=part(self.train, train), train_labels=part(self.train_labels, train),
            test=part(self.test, test), test_labels=part(self.test_labels, test),
        )  # fmt: skip

    def class_name(self, label: int) -> str:
        return self.classes[label] if label >= 0 else "no label"

    def fingerprint(self) -> str:
        """Of every pixel, label and name of a class: equal for equal data alone. Of images on the
        disk, of the names and sizes of their files instead of the pixels."""
        if self.streamed:
            files = [x.source.fingerprint() for x in (self.train, self.test)]
            return source_digest(*files, self.size, self.classes)
        digest = hashlib.blake2b(digest_size=16)
        for x in (self.train, self.test, self.train_labels, self.test_labels):
            digest.update(repr(None if x is None else tuple(x.shape)).encode())
            for block in () if x is None else x.split(4096):
                digest.update(block.cpu().contiguous().numpy())
        digest.update(repr(self.classes).encode())
        return digest.hexdigest()

    def to(self, device: torch.device | str) -> "Images":
        def moved(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.to(device)

        tensors = ("train", "test", "train_labels", "test_labels")
        return replace(self, **{name: moved(getattr(self, name)) for name in tensors})

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel of the training images, in [0, 1]; of a
        draw of those on the disk. Those of other images where a network has seen these."""
        if self.seen_by is not None:
            return self.seen_by
        if not self.streamed:
            return self._statistics(self.train)
        if self.train.statistics is None:
            few = self.train.take(drawn(len(self.train), STATISTICS_OF))
            self.train.statistics = self._statistics(few)
        return self.train.statistics

    def _statistics(self, images: Tensor | Stream) -> tuple[Tensor, Tensor]:
        # In blocks: a float copy of all images would be four times the data.
        total = torch.zeros(2, self.channels, dtype=torch.float64)
        pixels = self.channels * self.size**2
        for block in images.split(max(1, min(1024, LARGEST_BLOCK // pixels))):
            x = block.float() / 255
            total += torch.stack([x.sum((0, 2, 3)), x.square().sum((0, 2, 3))]).cpu().double()
        mean, square = total / (len(images) * self.size**2)
        deviation = (square - mean.square()).clamp(min=1e-8).sqrt()
        return mean.float(), deviation.float()
