"""A data set in memory: every image as uint8 on the device, with labels where there are any."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.arrays import Arrays
from ..data.folder import Tell
from ..data.opening import open_images
from ..data.source import Part, Source
from ..data.square import read_all, read_pixels

# The split of data that come in one piece; one seed, so that every run tests on the same images.
SPLIT_SEED = 0
HELD_OUT = 0.2
DIGITS_TEST = 500
LARGEST_DEFAULT_SIZE = 224


@dataclass(frozen=True)
class Images:
    """A training and a test split.

    Args:
        name: What the user called it, for titles and folders.
        kind: "digits" or "photographs": which views and which recipe fit.
        train: uint8 `[n, channels, size, size]`.
        test: The same for the images held out.
        train_labels: int64 `[n]`, -1 where an image has none, or None. Only SupCon trains with
            them.
        test_labels: int64, or None.
        classes: The name of each label.
    """

    name: str
    kind: str
    train: Tensor
    test: Tensor
    train_labels: Tensor | None
    test_labels: Tensor | None
    classes: tuple[str, ...]

    @property
    def channels(self) -> int:
        return self.train.shape[1]

    @property
    def size(self) -> int:
        return self.train.shape[2]

    @property
    def labelled(self) -> bool:
        """Whether both splits have images with a label."""
        both = (self.train_labels, self.test_labels)
        return all(x is not None and bool((x >= 0).any()) for x in both)

    def with_labels(self) -> "Images":
        """The images that have a label: these where all have."""
        known = self.train_labels >= 0, self.test_labels >= 0
        if known[0].all() and known[1].all():
            return self
        return replace(
            self, train=self.train[known[0]], train_labels=self.train_labels[known[0]],
            test=self.test[known[1]], test_labels=self.test_labels[known[1]],
        )  # fmt: skip

    def class_name(self, label: int) -> str:
        return self.classes[label] if label >= 0 else "no label"

    def fingerprint(self) -> str:
        """Of every pixel, label and name of a class: equal for equal data alone."""
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
        """Mean and standard deviation of each channel of the training images, in [0, 1]."""
        # In blocks: a float copy of all images would be four times the data.
        total = torch.zeros(2, self.channels, dtype=torch.float64)
        for block in self.train.split(1024):
            x = block.float() / 255
            total += torch.stack([x.sum((0, 2, 3)), x.square().sum((0, 2, 3))]).cpu().double()
        mean, square = total / (self.train.numel() / self.channels)
        deviation = (square - mean.square()).clamp(min=1e-8).sqrt()
        return mean.float(), deviation.float()


def load_images(
    source: str,
    *,
    size: int | None = None,
    limit: int | None = None,
    tell: Tell = lambda text: None,
) -> Images:
    """Read a data set into memory.

    Args:
        source: "digits" (scikit-learn's handwritten digits), or the path of
            - a folder of images of any nesting: one subfolder per class, or flat without labels;
              with `train` beside test, val, valid, validation, dev or eval these are the splits;
            - tar shards in webdataset's layout, or a dataset of Hugging Face on disk (saved, or
              parquet or arrow files with a column of images);
            - an `.npz` with `images` `[n, h, w]`, `[n, h, w, c]` or `[n, c, h, w]` uint8 and
              optionally `labels`, or `train_images`, `test_images` and their `_labels`; an `.npy`
              with the images alone;
            - an `.npz` of JPEG files end to end: `train_jpeg`, `train_offsets`, optionally
              `train_labels`, and the same for `test`. Decoded once and cached.
        size: Side in pixels that images from files are resized to; None takes the shorter side of
            the first image, 224 at most. Arrays keep their size.
        limit: Images of each split at most, drawn by a fixed seed before any is decoded; None takes
            all.
        tell: Called with a line now and then while a long list is read.

    Returns:
        `Images` on the CPU. A source without a test split is split 4 to 1.

    Raises:
        FileNotFoundError: No such path.
        ValueError: The contents are not one of the above; the message names what was found. Or a
            limit below 2.
    """
    if limit is not None and limit < 2:
        raise ValueError(f"limit must be 2 or more, got {limit}")
    found = read_digits() if source == "digits" else open_images(source, tell)
    if "test" not in found:
        found = _split(found["train"], DIGITS_TEST if source == "digits" else None)
    if limit is not None:
        found = {name: _limited(split, limit) for name, split in found.items()}
    return _assemble(source, found, size)


def read_digits() -> dict[str, Source]:
    """1,797 handwritten digits of 8 x 8 pixels; their 17 grey levels spread over 0 to 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    classes = tuple(str(name) for name in digits.target_names)
    return {"train": Arrays(images[:, None], digits.target, classes, "the digits")}


def _limited(source: Source, limit: int) -> Source:
    """A draw, as folders are sorted by class, in the order of the whole."""
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(SPLIT_SEED))
    return Part(source, order[:limit].sort().values.numpy())


def _split(source: Source, held_out: int | None) -> dict[str, Source]:
    n = len(source)
    if n < 2:
        raise ValueError(f"data must have at least 2 images to split, got {n}")
    held_out = held_out or max(1, round(HELD_OUT * n))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(SPLIT_SEED)).numpy()
    return {"train": Part(source, order[:-held_out]), "test": Part(source, order[-held_out:])}


def _pixels(source: Source, size: int | None) -> np.ndarray:  # uint8 [n, c, h, w]
    """All of them; an array is not read image by image."""
    index = np.arange(len(source))
    while isinstance(source, Part):
        source, index = source.source, source.index[index]
    if isinstance(source, Arrays):
        return source.pixels[index]
    return read_all(source, index, size).numpy()


def _assemble(source: str, found: dict[str, Source], size: int | None) -> Images:
    if size is None:
        size = min(*read_pixels(found["train"], 0).shape[1:], LARGEST_DEFAULT_SIZE)
    train, test = (_pixels(found[name], size) for name in ("train", "test"))
    if train.shape[1:] != test.shape[1:]:
        raise ValueError(
            f"train and test images must have one shape, got {list(train.shape[1:])} and "
            f"{list(test.shape[1:])}"
        )
    named = [(name, found[name].labels) for name in ("train", "test")]
    labels = [None if x is None else _label_vector(name, x) for name, x in named]
    labels, classes = _named_classes(labels, found["train"].classes)
    return Images(
        name="digits" if source == "digits" else Path(source).stem,
        kind="digits" if train.shape[1] == 1 else "photographs",
        train=torch.from_numpy(np.ascontiguousarray(train)),
        test=torch.from_numpy(np.ascontiguousarray(test)),
        train_labels=labels[0],
        test_labels=labels[1],
        classes=classes,
    )


def _label_vector(split: str, labels: np.ndarray) -> np.ndarray:
    """int64 `[n]`; a column `[n, 1]`, as MedMNIST has it, is one too."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise ValueError(
            f"labels must be a vector of integers, got {labels.dtype} of shape "
            f"{list(labels.shape)} for {split}"
        )
    low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
    if low < -1 or high >= 2**63:
        raise ValueError(
            f"labels must be integers from 0, or -1 for an image without one, got "
            f"{low if low < -1 else high} for {split}"
        )
    return labels.astype(np.int64)


def _named_classes(
    labels: list[np.ndarray | None], names: tuple[str, ...]
) -> tuple[list[Tensor | None], tuple[str, ...]]:
    """Labels as tensors with a name for each. Labels without names become numbers without gaps,
    each named by what it was: their range says nothing of how many there are."""
    given = [x for x in labels if x is not None]
    values = np.unique(np.concatenate(given)) if given else np.empty(0, dtype=np.int64)
    values = values[values >= 0]
    if names:
        if len(values) and values[-1] >= len(names):
            raise ValueError(
                f"class_names must name every label: there are {len(names)} names, and the "
                f"highest label is {values[-1]}"
            )
        return [None if x is None else torch.from_numpy(x) for x in labels], names
    dense = [
        None if x is None
        else torch.from_numpy(np.where(x < 0, -1, np.searchsorted(values, x)).astype(np.int64))
        for x in labels
    ]  # fmt: skip
    return dense, tuple(str(value) for value in values)
