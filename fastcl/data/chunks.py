"""Parts of batches on their way: what a thread reads and decodes at once."""

import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from spdl.pipeline.defs import Aggregator
from torch import Tensor

from .decoding import BadImage
from .parts import PART, Scratch, Slot
from .source import Source
from .square import read_pixels, to_pixels
from .stages import Failed, Stage

LARGEST, SMALLEST = 64, 8  # images; a hand-over costs as much as some small ones


class Chunk(NamedTuple):
    """Images `start` to `end` of a step."""

    epoch: int
    step: int
    images: list[np.ndarray]  # of every step of the epoch, int64 [b]
    start: int
    end: int
    data: list  # bytes, pixels or a BadImage, until they are decoded
    slot: Slot | None  # of the step, where threads make views too

    @property
    def index(self) -> np.ndarray:
        return self.images[self.step][self.start : self.end]

    @property
    def last(self) -> bool:
        return self.end == len(self.images[self.step])


def cut(
    places: Iterator[tuple[int, int, list[np.ndarray]]],
    threads: int,
    slot_of: Callable[[int, int, int], Slot | None] = lambda epoch, step, b: None,
) -> Iterator[Chunk]:
    """Every step in chunks, so that all threads work on one batch."""
    for epoch, step, images in places:
        b = len(images[step])
        slot = slot_of(epoch, step, b)
        size = min(max(-(-b // threads), SMALLEST), LARGEST)
        for start in range(0, b, size):
            yield Chunk(epoch, step, images, start, min(start + size, b), [], slot)


class Reader:
    """Reads and decodes chunks of a source.

    Args:
        source: The images.
        each: Applied to every image.
        skip: Whether the place of an image that cannot be decoded is taken by the one that the next
            batch has there; otherwise it is an error.
        views: Times the views that are made here.

    Attributes:
        bad: What was said of each such image, by its place in the source.
    """

    def __init__(self, source: Source, each: Callable, skip: bool, views: Stage) -> None:
        self.source, self.each, self.skip, self.views = source, each, skip, views
        self.bad: dict[int, str] = {}
        self._scratch, self._lock = Scratch(), threading.Lock()

    def read(self, chunk: Chunk) -> Chunk:
        return chunk._replace(data=[self._bytes(int(i)) for i in chunk.index])

    def _bytes(self, i: int):
        try:
            return self.source.read(i)
        except BadImage as error:
            return error

    def decode(self, chunk: Chunk) -> tuple[Chunk, list[Tensor], list[int]]:
        """The images uint8 `[c, h, w]` of a chunk, none where they are views already, and which
        ones they are."""
        images, index, scratch = [], [], self._scratch
        scratch.used = 0
        for place, (i, data) in enumerate(zip(chunk.index, chunk.data, strict=True), chunk.start):
            i, pixels = self._image(chunk, place, int(i), data)
            index.append(i)
            if chunk.slot is None:
                images.append(torch.from_numpy(pixels))
                continue
            images.append(scratch.put(pixels))
            if scratch.used >= PART or place + 1 == chunk.end:
                with self.views.timed():
                    chunk.slot.add(place + 1 - len(images), images)
                images, scratch.used = [], 0
        return chunk._replace(data=[]), images, index

    def _image(self, chunk: Chunk, place: int, i: int, data) -> tuple[int, np.ndarray]:
        try:
            if isinstance(data, BadImage):
                raise data
            memory = None if chunk.slot is None else self._scratch.rest()
            return i, self.each(to_pixels(self.source, i, data, memory))
        except BadImage as error:
            if not self.skip:
                raise
            self._note(i, error)
        for other in self._substitutes(chunk, place):
            try:
                return other, self.each(read_pixels(self.source, other))
            except BadImage as error:
                self._note(other, error)
        raise BadImage(f"{self.source.name(i)} and all images that could take its place are bad")

    def _substitutes(self, chunk: Chunk, place: int) -> Iterator[int]:
        """What later batches have in this place; where there is none, what is beside it."""
        steps = len(chunk.images)
        for k in range(chunk.step + 1, chunk.step + steps):
            others = chunk.images[k % steps]
            if place < len(others):
                yield int(others[place])
        here = chunk.images[chunk.step]
        for k in range(place + 1, place + len(here)):
            yield int(here[k % len(here)])

    def _note(self, i: int, error: BadImage) -> None:
        with self._lock:
            self.bad[i] = str(error)


class Gather(Aggregator):
    """Chunks, which come in their order, as batches."""

    def __init__(self) -> None:
        self.parts: list = []

    def accumulate(self, item):
        if isinstance(item, Failed):
            return item
        self.parts.append(item)
        if not item[0].last:
            return None
        parts, self.parts = self.parts, []
        return parts

    def flush(self) -> None:
        return None
