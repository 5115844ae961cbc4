"""What a source of images is: a length, labels, and the bytes or the pixels of one image."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Protocol

import numpy as np

# Held-out splits beside `train`, in any case; the first that is there and has labels is taken.
HELD_OUT = "test", "val", "valid", "validation", "dev", "eval"
TRAIN = "train", "training"


class Source(Protocol):
    """Images of one split. Only the list of them is in memory.

    Attributes:
        labels: int64 `[n]`, -1 where an image has none, or None.
        classes: The name of each label; empty where labels are plain numbers.
    """

    labels: np.ndarray | None
    classes: tuple[str, ...]

    def __len__(self) -> int: ...

    def read(self, i: int) -> bytes | np.ndarray:
        """The file as it is, or uint8 `[c, h, w]`; from any thread."""

    def name(self, i: int) -> str:
        """What messages call image i."""

    def fingerprint(self) -> str:
        """Equal for equal names, sizes and labels; nothing is read for it."""


class Names:
    """Many short texts in one block of memory: a `str` each would take three times as much."""

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [name.encode(errors="surrogateescape") for name in names]
        self.offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(name) for name in encoded], out=self.offsets[1:])
        self.block = b"".join(encoded)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> str:
        return self.block[self.offsets[i] : self.offsets[i + 1]].decode(errors="surrogateescape")


class Part:
    """Some images of another source, in the order of `index`."""

    def __init__(self, source: Source, index: np.ndarray) -> None:  # int64 [n]
        self.source, self.index = source, index
        self.labels = None if source.labels is None else source.labels[index]
        self.classes = source.classes

    def __len__(self) -> int:
        return len(self.index)

    def read(self, i: int) -> bytes | np.ndarray:
        return self.source.read(int(self.index[i]))

    def name(self, i: int) -> str:
        return self.source.name(int(self.index[i]))

    def fingerprint(self) -> str:
        return digest(self.source.fingerprint(), self.index)


def origin(source: Source) -> tuple[Source, np.ndarray]:
    """What a source is a part of, if anything, and which images it takes of it."""
    index = np.arange(len(source))
    while isinstance(source, Part):
        source, index = source.source, source.index[index]
    return source, index


def digest(*parts: object) -> str:
    """Of texts, bytes and arrays."""
    found = blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            found.update(repr((part.shape, part.dtype.str)).encode())
            part = np.ascontiguousarray(part).data
        found.update(part if isinstance(part, bytes | memoryview) else repr(part).encode())
    return found.hexdigest()


def held_out(names: Iterable[str]) -> list[str]:
    """Those of the names that call a held-out split, the most usual first."""
    named = [(HELD_OUT.index(name.lower()), name) for name in names if name.lower() in HELD_OUT]
    return [name for _, name in sorted(named)]


def training(names: Iterable[str]) -> str | None:
    """The one that calls the training split."""
    return next((name for name in sorted(names) if name.lower() in TRAIN), None)


def has_labels(source: Source) -> bool:
    """Whether any image has one: those that a benchmark keeps to itself are often all -1."""
    if source.labels is None:
        return False
    labels = np.asarray(source.labels)  # what is no number is named where labels are used
    return labels.dtype.kind not in "iuf" or bool((labels >= 0).any())


def choose(found: dict[str, Source]) -> dict[str, Source]:
    """`train` and, where one is held out, `test`, of splits by their names: the first with labels
    where there is one. The classes of both are numbered alike."""
    name = training(found)
    if name is None:
        raise ValueError(f"one split must be called train; there are {', '.join(sorted(found))}")
    chosen = {"train": found[name]}
    others = held_out(found)
    if others:
        labelled = [other for other in others if has_labels(found[other])]
        chosen["test"] = found[(labelled or others)[0]]
    _number_alike([source for source in chosen.values() if source.classes])
    return chosen


def _number_alike(sources: list[Source]) -> None:
    classes = tuple(sorted({name for source in sources for name in source.classes}))
    for source in sources:
        if source.classes != classes:
            numbers = np.array([classes.index(name) for name in source.classes], dtype=np.int64)
            known = source.labels >= 0
            source.labels = np.where(known, numbers[np.where(known, source.labels, 0)], -1)
            source.classes = classes
