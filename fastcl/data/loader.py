"""Batches on their way while the last one trains: read, decode, views and copy in threads.

The stages run on SPDL's pipeline: threads of one process with bounded queues between them. One
decoded image serves all its views and is let go; what waits is a few batches, whatever the size of
the data.
"""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import _check
from .._buffers import Buffers
from .order import Order
from .parts import PartViews, Slot
from .source import Source
from .stages import Failed, Stage, StageReport
from .threads import alone
from .transfer import Transfer

AHEAD = 2  # batches that are ready before they are asked for


class Batch(NamedTuple):
    """What one step trains on."""

    images: Any  # what the views made of the images
    index: Tensor  # int64 [b], their places in the source
    labels: Tensor | None  # int64 [b]
    epoch: int
    step: int


Each = Callable[[np.ndarray], np.ndarray]
Views = Callable[[list[Tensor], torch.Generator], Any]


def as_they_are(images: list[Tensor], generator: torch.Generator) -> list[Tensor]:
    """No views: the images, uint8 `[c, h, w]` of any sizes."""
    return images


class Loader:
    """Batches of a source in an order, the same for any number of threads.

    Args:
        source: The images.
        order: Which of them, when.
        views: Makes a batch of the images uint8 `[c, h, w]`, a list in the order of the batch. All
            its chance must come from the generator it is given, whose seed follows from those of
            the order, the epoch, the step and the rank. Those of `fastcl.views`, and whatever else
            has the methods of `PartViews`, are made in the threads that decode, of each image
            while it is in cache, straight into the memory of the batch; the batch is the same.
        each: Applied to every image, uint8 `[c, h, w]`, in the threads that decode.
        channels: Of every image, for such views; None: as many as one of the first has.
        device: Where the tensors of a batch go, in pinned memory and beside the training on a GPU.
        threads: That decode; every core by default.
        bad: What is done about an image that cannot be read: "error" raises when its batch is asked
            for; "skip" takes the image that the next batch has in its place.

    Attributes:
        bad_images: What was said of each image that was skipped, by its place in the source.
        waited: Seconds that the training waited for a batch.

    Raises:
        ImportError: SPDL is not installed.
        ValueError: A number of threads below 1, or another word for `bad`; while batches are read,
            an image of other channels.
    """

    def __init__(
        self,
        source: Source,
        order: Order,
        views: Views | PartViews = as_they_are,
        *,
        each: Each | None = None,
        channels: int | None = None,
        device: torch.device | str = "cpu",
        threads: int | None = None,
        bad: str = "error",
    ) -> None:
        self.threads = len(os.sched_getaffinity(0)) if threads is None else threads
        _check.count("threads", self.threads)
        _check.one_of("bad", bad, ("error", "skip"))
        if len(source) != order.n:
            raise ValueError(f"order must be of the {len(source)} images, got {order.n}")
        self.source, self.order, self.views = source, order, views
        self.labels = None if source.labels is None else torch.from_numpy(source.labels)
        self.transfer = Transfer(torch.device(device))
        self.in_parts = isinstance(views, PartViews)
        making = Stage("views", self._make, self.threads if self.in_parts else 1)
        self.reader = _reader(source, each, bad == "skip", making, channels)
        self.bad_images = self.reader.bad
        self.waited, self.elapsed = 0.0, 0.0
        within = making if self.in_parts else None
        self.stages = (
            Stage("read", self.reader.read, self.threads),
            Stage("decode", self.reader.decode, self.threads, within),
            making,
            Stage("copy", self.transfer.send, 1),
        )

    def batches(self, epoch: int = 0, step: int = 0, epochs: int = 1) -> Iterator[Batch]:
        """Batches from a place of a run to its end, without a pause between epochs.

        Args:
            epoch: The first one.
            step: The first one in it.
            epochs: Of the whole run.

        Raises:
            BadImage: An image that cannot be decoded, unless it is to be skipped.
        """
        # Kernels of views are one thread each, where several images are decoded at once.
        decoders = ThreadPoolExecutor(self.threads, "fastcl-decode", alone)
        pipeline = self._pipeline(self.order.places(epoch, step, epochs), decoders)
        started = time.perf_counter()
        try:
            with decoders, pipeline.auto_stop():
                while (found := self._next(pipeline)) is not None:
                    if isinstance(found, Failed):
                        raise found.error
                    yield self.transfer.receive(found)
                    self.transfer.mark()
                    self.elapsed += time.perf_counter() - started
                    started = time.perf_counter()
        finally:
            self.elapsed += time.perf_counter() - started

    def reports(self) -> dict[str, StageReport]:
        """What each stage has done so far."""
        return {stage.name: stage.report(self.elapsed) for stage in self.stages}

    def slowest(self) -> str:
        """The stage whose threads worked the largest part of the time."""
        reports = self.reports()
        return max(reports, key=lambda name: reports[name].busy)

    def _pipeline(self, places: Iterator, decoders: ThreadPoolExecutor):
        from spdl.pipeline import PipelineBuilder

        from .chunks import Gather, cut

        read, decode, views, copy = self.stages
        builder = PipelineBuilder().add_source(cut(places, self.threads, self._slots()))
        builder.pipe(read, concurrency=read.threads, output_order="input", name=read.name)
        # Chunks leave in their order: a thread that is done before the one ahead has another.
        builder.pipe(
            decode, concurrency=2 * decode.threads, output_order="input", name=decode.name,
            executor=decoders,
        )  # fmt: skip
        builder.aggregate(Gather()).pipe(views, name=views.name)
        if self.transfer.moves:
            builder.pipe(copy, name=copy.name)
        return builder.add_sink(AHEAD).build(num_threads=self.threads + 2)

    def _slots(self) -> Callable[[int, int, int], Slot | None]:
        if not self.in_parts:
            return lambda epoch, step, b: None
        buffers = Buffers(pinned=self.transfer.moves)
        return lambda epoch, step, b: Slot(
            b, self.views, lambda: self._generator(epoch, step), buffers
        )

    def _make(self, parts: list[tuple]) -> Batch:
        chunk = parts[0][0]
        index = torch.tensor([i for _, _, part in parts for i in part], device="cpu")
        labels = None if self.labels is None else self.labels[index]
        if chunk.slot is not None:
            made = chunk.slot.joined()
        else:
            images = [image for _, part, _ in parts for image in part]
            made = self.views(images, self._generator(chunk.epoch, chunk.step))
        return Batch(made, index, labels, chunk.epoch, chunk.step)

    def _generator(self, epoch: int, step: int) -> torch.Generator:
        """Of one batch on one rank, wherever the run began."""
        key = repr((self.order.seed, epoch, step, self.order.rank)).encode()
        seed = int.from_bytes(blake2b(key, digest_size=8).digest(), "little", signed=True)
        return torch.Generator().manual_seed(seed)

    def _next(self, pipeline) -> Batch | Failed | None:
        try:
            return pipeline.get_item(timeout=0)
        except EOFError:
            return None
        except TimeoutError:
            pass
        self.transfer.finish()  # before, the device has something to do
        started = time.perf_counter()
        try:
            return pipeline.get_item()
        except EOFError:
            return None
        finally:
            self.waited += time.perf_counter() - started


def _reader(source: Source, each: Each | None, skip: bool, views: Stage, channels: int | None):
    try:
        from .chunks import Reader
    except ImportError:
        raise ImportError("loading images needs spdl-core: pip install spdl-core") from None
    return Reader(source, each, skip, views, channels)
