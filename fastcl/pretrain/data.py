"""From what a user calls data to images with labels, in memory or on the disk."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.arrays import Arrays
from ..data.check import check
from ..data.decoding import REMEDY, BadImage
from ..data.folder import Tell
from ..data.memory import amount, available
from ..data.opening import open_images
from ..data.source import Part, Source, origin
from ..data.square import read_all, read_pixels
from ..data.stream import Stream
from .images import SPLIT_SEED, Images, drawn
from .labels import label_vector, named_classes

HELD_OUT = 0.2  # of data that come in one piece
DIGITS_TEST = 500
LARGEST_DEFAULT_SIZE = 224
WHOLE = 2**30  # bytes of pixels that are kept in memory: all of CIFAR's kind
STREAM = "auto", "always", "never"
BAD = "error", "skip"


def load_images(
    source: str,
    *,
    size: int | None = None,
    limit: int | None = None,
    stream: str = "auto",
    bad: str = "error",
    tell: Tell = lambda text: None,
) -> Images:
    """Read a data set into memory or, where it is large, its list.

    Args:
        source: "digits" (scikit-learn's handwritten digits), or the path of
            - a folder of images of any nesting: one subfolder per class, or flat without labels;
              with `train` beside test, val, valid, validation, dev or eval these are the splits;
            - tar shards in webdataset's layout, or a dataset of Hugging Face on disk (saved, or
              parquet or arrow files with a column of images);
            - an `.npz` with `images` `[n, h, w]`, `[n, h, w, c]` or `[n, c, h, w]`, uint8 or
              uint16 (brought to 8 bits), and optionally `labels`, or `train_images`,
              `test_images` and their `_labels`; an `.npy` with the images alone;
            - an `.npz` of JPEG files end to end: `train_jpeg`, `train_offsets`, optionally
              `train_labels`, and the same for `test`. Decoded once and cached.
        size: Side in pixels that images from files are resized to; None takes the shorter side of
            the first image, 224 at most. Arrays keep their size.
        limit: Images of each split at most, drawn by a fixed seed before any is decoded; None takes
            all.
        stream: "always" leaves images from files on the disk and reads them while they are used,
            "never" decodes all of them into memory, "auto" those that are 1 GiB at most.
        bad: What is done about images that cannot be read: "error" raises for the first one, "skip"
            leaves them out.
        tell: Called with a line now and then while a long list is read.

    Returns:
        `Images` on the CPU. A source without a test split is split 4 to 1.

    Raises:
        FileNotFoundError: No such path.
        ValueError: The contents are not one of the above; the message names what was found. Or a
            limit below 2, an image that is none, or more pixels than there is memory.
    """
    if limit is not None and limit < 2:
        raise ValueError(f"limit must be 2 or more, got {limit}")
    for name, value, known in (("stream", stream, STREAM), ("bad-images", bad, BAD)):
        if value not in known:
            raise ValueError(f"{name} must be {', '.join(known)}, got {value!r}")
    found = read_digits() if source == "digits" else open_images(source, tell)
    if "test" not in found:
        found = _split(found["train"], DIGITS_TEST if source == "digits" else None)
    if limit is not None:
        found = {
            name: Part(split, drawn(len(split), limit).numpy()) for name, split in found.items()
        }  # fmt: skip
    return _assemble(source, found, _Reading(size, stream, bad, tell))


def read_digits() -> dict[str, Source]:
    """1,797 handwritten digits of 8 x 8 pixels; their 17 grey levels spread over 0 to 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    classes = tuple(str(name) for name in digits.target_names)
    return {"train": Arrays(images[:, None], digits.target, classes, "the digits")}


def _split(source: Source, held_out: int | None) -> dict[str, Source]:
    n = len(source)
    if n < 2:
        raise ValueError(f"data must have at least 2 images to split, got {n}")
    held_out = held_out or max(1, round(HELD_OUT * n))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(SPLIT_SEED)).numpy()
    return {"train": Part(source, order[:-held_out]), "test": Part(source, order[-held_out:])}


@dataclass
class _Reading:
    """How a data set is read, and what was said of its bad images."""

    size: int | None
    stream: str
    bad: str
    tell: Tell
    said: list[str] = field(default_factory=list)

    def splits(self, found: dict[str, Source]) -> dict[str, Tensor | Stream]:
        """The images of each split; bad ones leave their source."""
        shape = self._shape(found["train"])
        count = sum(len(source) for source in found.values())
        size = count * math.prod(shape)
        large = size > WHOLE if self.stream == "auto" else self.stream == "always"
        arrays = array_of(found["train"])[0] is not None
        mapped = arrays and all(
            isinstance(array_of(source)[0].pixels, np.memmap) for source in found.values()
        )
        kind = f"{count:,} images, {amount(size)} as pixels of {shape[1]} x {shape[2]}"
        if large and (mapped or not arrays):
            self.tell(f"{kind}: they are read while they are used")
            return {name: self._stream(found, name, shape) for name in found}
        if size > available() and not (arrays and not mapped):
            raise ValueError(
                f"{kind}, do not fit into the {amount(available())} of memory that are free: "
                f"--stream auto reads them while they are used"
            )
        if size > WHOLE:
            self.tell(f"{kind}: all of them are read into memory")
        return {name: self._whole(found, name, shape[1]) for name in found}

    def _shape(self, source: Source) -> tuple[int, int, int]:
        """Of every image once it is resized; by the first one that can be read."""
        for i in range(len(source)):
            try:
                c, h, w = read_pixels(source, i).shape
            except BadImage as error:
                if self.bad == "error":
                    raise BadImage(f"{error}{REMEDY}") from None
                continue
            if array_of(source)[0] is not None:
                return c, h, w
            size = self.size or min(h, w, LARGEST_DEFAULT_SIZE)
            return c, size, size
        raise BadImage(f"none of {len(source)} images can be read, {source.name(0)} for one")

    def _stream(self, found: dict[str, Source], name: str, shape: tuple[int, int, int]) -> Stream:
        self._leave_out(found, name, check(found[name], self.tell))
        return Stream(found[name], shape[1], shape[0], bad=self.bad)

    def _whole(self, found: dict[str, Source], name: str, size: int) -> Tensor:
        array, index = array_of(found[name])
        if array is not None:  # it is not read image by image
            return torch.from_numpy(array.take(index))
        bad: dict[int, str] | None = {} if self.bad == "skip" else None
        source = found[name]
        try:
            read = read_all(source, np.arange(len(source)), size, bad, self.tell)
        except BadImage as error:
            raise BadImage(f"{error}{REMEDY}") from None
        if not bad:
            return read
        kept = self._leave_out(found, name, bad)
        return read[torch.from_numpy(kept)]

    def _leave_out(self, found: dict[str, Source], name: str, bad: dict[int, str]) -> np.ndarray:
        source = found[name]
        if bad and self.bad == "error":
            raise BadImage(f"{bad[min(bad)]}{REMEDY}")
        kept = np.setdiff1d(np.arange(len(source)), list(bad))
        if not len(kept):
            raise BadImage(f"none of {len(source)} images can be read: {bad[0]}")
        if bad:
            found[name] = Part(source, kept)
            self.said += [bad[i] for i in sorted(bad)]
        return kept


def array_of(source: Source) -> tuple[Arrays | None, np.ndarray]:
    """The array that a source takes its images from, if any, and which of them."""
    source, index = origin(source)
    return source if isinstance(source, Arrays) else None, index


def _assemble(source: str, found: dict[str, Source], reading: _Reading) -> Images:
    images = reading.splits(found)
    train, test = images["train"], images["test"]
    if train.shape[1:] != test.shape[1:]:
        raise ValueError(
            f"train and test images must have one shape, got {list(train.shape[1:])} and "
            f"{list(test.shape[1:])}"
        )
    named = [(name, found[name].labels) for name in ("train", "test")]
    labels = [None if x is None else label_vector(name, x) for name, x in named]
    labels, classes = named_classes(labels, found["train"].classes)
    return Images(
        name="digits" if source == "digits" else Path(source).stem,
        kind="digits" if train.shape[1] == 1 else "photographs",
        train=train,
        test=test,
        train_labels=labels[0],
        test_labels=labels[1],
        classes=classes,
        bad=tuple(reading.said),
    )
