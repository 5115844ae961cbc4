"""Parts of batches on their way: what a thread reads and decodes at once."""

import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from spdl.pipeline.defs import Aggregator
from torch import Tensor

from .decoding import BadImage, Scratch, decode_jpeg, jpeg_head
from .orientation import Box, Head
from .parts import Slot
from .source import Source
from .square import check_channels, read_pixels, tensor_of, to_pixels
from .stages import Failed, Stage

LARGEST, SMALLEST = 64, 8  # images; a hand-over costs as much as some small ones
HELD = 2**22  # bytes of decoded images that a thread holds before it makes their views


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


class Waiting(NamedTuple):
    """An image whose views are to be made."""

    place: int  # in its batch
    i: int
    data: bytes | np.ndarray  # a JPEG file, or pixels [c, h, w]
    shape: tuple[int, int, int]  # [c, h, w]
    head: Head | None  # of a JPEG file


class Reader:
    """Reads and decodes chunks of a source.

    Args:
        source: The images.
        each: Applied to every image, where it is given.
        skip: Whether the place of an image that cannot be decoded is taken by the one that the next
            batch has there; otherwise it is an error.
        views: Times the views that are made here.
        channels: Of every image; None takes what comes.

    Attributes:
        bad: What was said of each such image, by its place in the source.
    """

    def __init__(
        self, source: Source, each: Callable | None, skip: bool, views: Stage, channels: int | None
    ) -> None:
        self.source, self.each, self.skip, self.views = source, each, skip, views
        self.channels = channels
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
        rows = enumerate(zip(chunk.index.tolist(), chunk.data, strict=True), chunk.start)
        if chunk.slot is not None:
            return chunk._replace(data=[]), [], self._make(chunk, rows)
        found = [self._image(chunk, place, i, data) for place, (i, data) in rows]
        images = [tensor_of(pixels) for _, pixels in found]
        return chunk._replace(data=[]), images, [i for i, _ in found]

    def _make(self, chunk: Chunk, rows: Iterator[tuple]) -> list[int]:
        """Views of a chunk in the memory of its batch. What is drawn for an image needs its sides,
        of which the head of a JPEG tells, and costs as much for one as for many: so few are
        decoded before it, and JPEG one after the other while the views of each are made."""
        index: list[int] = []
        waiting, held = [], 0
        for place, (i, data) in rows:
            waiting.append(self._looked(chunk, place, i, data))
            if isinstance(waiting[-1].data, np.ndarray):
                held += waiting[-1].data.nbytes
            if held >= HELD or place + 1 == chunk.end:
                index += self._views_of(chunk, waiting)
                waiting, held = [], 0
        return index

    def _looked(self, chunk: Chunk, place: int, i: int, data) -> Waiting:
        # A head promises three channels, but a bad image is replaced by one of any.
        promised = isinstance(data, bytes) and self.each is None and self.channels == 3
        head = jpeg_head(data) if promised else None
        if head is None:
            i, data = self._image(chunk, place, i, data)
        shape = data.shape if head is None else (3, *head.sides)
        self._check_channels(shape[0])
        return Waiting(place, i, data, shape, head)

    def _views_of(self, chunk: Chunk, waiting: list[Waiting]) -> list[int]:
        slot, place, channels = chunk.slot, waiting[0].place, waiting[0].shape[0]
        with self.views.timed():
            drawn = slot.drawn(place, [x.shape[1:] for x in waiting], channels)
            boxes = slot.boxes(drawn, len(waiting))
        index = []
        for k, x in enumerate(waiting):
            i, pixels = x.i, x.data
            if x.head is not None:
                i, pixels = self._decoded(chunk, x, x.head, boxes[k])
            with self.views.timed():
                if pixels.shape == x.shape:
                    slot.write(x.place, pixels, drawn, k)
                else:  # another image was taken for it
                    self._check_channels(len(pixels))
                    own = slot.drawn(x.place, [pixels.shape[1:]], channels)
                    slot.write(x.place, pixels, own, 0)
            index.append(i)
        return index

    def _decoded(
        self, chunk: Chunk, x: Waiting, head: Head, box: Box | None
    ) -> tuple[int, np.ndarray]:
        """A JPEG file in the memory of the thread."""
        height, width = head.sides
        room = self._scratch.room(3 * height * width).reshape(height, width, 3)
        pixels = decode_jpeg(x.data, head, room, box)
        if pixels is None:  # Pillow has the last word
            return self._image(chunk, x.place, x.i, x.data)
        return x.i, pixels.transpose(2, 0, 1)

    def _check_channels(self, found: int) -> None:
        if self.channels is None:
            self.channels = found
        check_channels(found, self.channels)

    def _image(self, chunk: Chunk, place: int, i: int, data) -> tuple[int, np.ndarray]:
        try:
            if isinstance(data, BadImage):
                raise data
            return i, self._changed(to_pixels(self.source, i, data))
        except BadImage as error:
            if not self.skip:
                raise
            self._note(i, error)
        for other in self._substitutes(chunk, place):
            try:
                return other, self._changed(read_pixels(self.source, other))
            except BadImage as error:
                self._note(other, error)
        raise BadImage(f"{self.source.name(i)} and all images that could take its place are bad")

    def _changed(self, pixels: np.ndarray) -> np.ndarray:
        return pixels if self.each is None else self.each(pixels)

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
