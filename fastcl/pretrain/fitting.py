"""What `fastcl pretrain` does, with methods, data and views of one's own."""

from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import _check
from ..data.mapped import Mapped
from ..data.parts import PartViews
from ..data.square import read_pixels
from ..data.stream import Stream
from ..evaluate.report import RESULTS, Report, score_backbones
from . import checkpoint
from .augment import Ahead
from .devices import automatic_precision
from .images import Images
from .inputs import Batch
from .lock import is_first_process, locked
from .loggers import check_logger, logging_to
from .parts import Parts
from .recipe import PRECISIONS, Config
from .run import Run, build_fabric

OPTIMIZERS = "sgd", "lars", "adamw"


class HeldOut(NamedTuple):
    """What the backbone of a method is scored on after `fit`."""

    labels: Tensor  # int64 [n], of the training images
    images: Tensor | object  # as the dataset, with images of its size
    test_labels: Tensor  # int64 [m], of the images held out


def fit(
    method: nn.Module,
    dataset,  # uint8 [n, c, h, w], or a map-style dataset of images
    views: Callable[[Tensor], tuple[Tensor, ...] | list[Tensor]],
    *,
    out: str | Path,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    optimizer: str = "sgd",
    weight_decay: float = 1e-4,
    warmup: float = 0.0,
    labels: Tensor | None = None,  # int64 [n]
    size: int | None = None,
    accumulate: int = 1,
    precision: str = "auto",
    channels_last: bool = True,
    devices: int = 1,
    held_out: HeldOut | None = None,
    logger: str = "none",
    seed: int = 0,
    display=None,
) -> list[dict]:
    """Train a method in place, with the checkpoints, order and schedule of `fastcl pretrain`.

    Called again with the same `out`, it goes on where it was stopped, to the same numbers.

    Args:
        method: A method of `fastcl.methods`, or any module whose forward takes what `views` returns
            and gives the loss, a scalar; its `update()`, where it has one, is called after every
            step of the optimiser.
        dataset: Images in memory, or a map-style dataset as `fastcl.data.Mapped` takes it, which is
            read while training.
        views: Takes a batch, uint8 `[b, c, h, w]` on the device, and returns its views. Those of
            `fastcl.views` are made of the images of a dataset as they are, while they are read;
            others get their middle squares.
        out: Folder of checkpoint.pt, metrics.csv and config.json, and of results.json where images
            are held out.
        epochs, batch_size, learning_rate, weight_decay, warmup, accumulate: As for the command; the
            learning rate is the peak, and falls to zero along half a cosine.
        optimizer: "sgd", "lars" or "adamw".
        labels: Handed to the method behind the views where given.
        size: Side that images of a dataset get; the shorter side of the first by default.
        precision: "auto", "32" or "bf16".
        channels_last: How networks lie in memory.
        devices: How many; for each further one Fabric starts the script again, and the batch is
            shared. `views` and the method's random numbers differ between them.
        held_out: At the end the nearest neighbours and a linear probe of `method.backbone`, before
            and after the training, are scored on these. It gets images in [0, 1], minus the mean,
            over the deviation of the training images.
        logger: "none", "tensorboard" or "wandb".
        seed: Of order and views. The weights are the method's own.
        display: A `fastcl.pretrain.display.Display`.

    Returns:
        The rows of metrics.csv.

    Raises:
        TypeError, ValueError: An argument that does not fit, before anything is written.
        FloatingPointError: The training diverged.
    """
    if not isinstance(method, nn.Module):
        raise TypeError(f"method must be a torch module, got {type(method).__name__}")
    if not callable(views):
        raise TypeError(f"views must be callable, got {type(views).__name__}")
    images = _images("dataset", dataset, labels, size)
    scored = None if held_out is None else _scored(images, held_out, method)
    n, folder = len(images.train), Path(out)
    for name, value in (("epochs", epochs), ("accumulate", accumulate), ("devices", devices)):
        _check.count(name, value)
    _check.positive("learning_rate", learning_rate)
    _check.one_of("optimizer", optimizer, OPTIMIZERS)
    _check.one_of("precision", precision, ("auto", *PRECISIONS))
    shares = devices * accumulate
    if not 2 * shares <= batch_size <= n or batch_size % shares:
        raise ValueError(
            f"batch_size must be a multiple of devices times accumulate, {shares}, from "
            f"{2 * shares} to the {n} images, got {batch_size}"
        )
    if not 0 <= _check.finite("warmup", warmup) <= 1 or _check.finite("decay", weight_decay) < 0:
        raise ValueError(
            f"warmup must be from 0 to 1 and weight_decay 0 or more, got {warmup}, {weight_decay}"
        )
    check_logger(logger)
    precision = automatic_precision() if precision == "auto" else precision
    config = Config(
        method=type(method).__name__, data=type(dataset).__name__, backbone="own", stem="auto",
        image_size=images.size, epochs=epochs, batch_size=batch_size, optimizer=optimizer,
        learning_rate=learning_rate, weight_decay=weight_decay, warmup=warmup,
        precision=precision, devices=devices, seed=seed, stream=images.streamed, samples=n,
        fingerprint=images.fingerprint(), accumulate=accumulate, channels_last=channels_last,
    )  # fmt: skip

    ahead = Ahead(views) if images.streamed and isinstance(views, PartViews) else None

    def inputs(batch: Batch) -> tuple:
        made = views(batch.images) if ahead is None else views.joined(batch.images.groups)
        return tuple(made) if batch.labels is None else (*made, batch.labels)

    # Before the other processes are started, which would wait for this one in vain.
    with locked(folder) if is_first_process() else nullcontext():
        parts = Parts(method, getattr(method, "backbone", method), inputs, ahead)
        untrained = None if scored is None else deepcopy(parts.backbone)
        run = Run(config, images, folder, build_fabric(devices, precision), parts)
        if (folder / checkpoint.NAME).exists():
            run.resume(folder / checkpoint.NAME)
        if run.fabric.is_global_zero:
            run.config.save(folder / "config.json")
        with logging_to(logger, run):
            run.train(display)
        if scored is not None and run.fabric.is_global_zero:
            scored = scored.to(run.fabric.device)
            scores = score_backbones(untrained, parts.backbone, scored)
            Report(scores, run.shares.result, run.seconds).save(folder / RESULTS)
    return run.history


def _scored(images: Images, held_out: HeldOut, method: nn.Module) -> Images:
    """The images with those that are held out, and the labels of both."""
    if not hasattr(method, "backbone"):
        raise ValueError(
            f"held_out needs a method with a backbone, {type(method).__name__} has none"
        )
    held = _images("held_out.images", held_out.images, None, images.size)
    if held.train.shape[1:] != images.train.shape[1:]:
        raise ValueError(
            f"held_out.images must be {list(images.train.shape[1:])} each like those of the "
            f"dataset, got {list(held.train.shape[1:])}"
        )
    for name, x in (("labels", images), ("test_labels", held)):
        given = getattr(held_out, name)
        _check.vector(f"held_out.{name}", given, len(x.train), given.device, integer=True)
        if given.max() < 0:
            raise ValueError(f"held_out.{name} must have a label from 0, got none")
    count = 1 + int(max(held_out.labels.max(), held_out.test_labels.max()))
    return replace(
        images, train_labels=held_out.labels, test=held.train, test_labels=held_out.test_labels,
        classes=tuple(map(str, range(count))),
    )  # fmt: skip


def _images(name: str, dataset, labels: Tensor | None, size: int | None) -> Images:
    if isinstance(dataset, Tensor):
        if dataset.dim() != 4 or dataset.dtype != torch.uint8:
            raise ValueError(
                f"{name} must be uint8 [n, c, h, w], got {dataset.dtype} {list(dataset.shape)}"
            )
        train = dataset
    elif hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"):
        source = Mapped(dataset)
        channels, *sides = read_pixels(source, 0).shape
        train = Stream(source, size or min(sides), channels)
    else:
        raise TypeError(f"{name} must be a tensor or map-style, got {type(dataset).__name__}")
    if labels is not None:
        _check.vector("labels", labels, len(train), labels.device, integer=True)
    kind = "digits" if train.shape[1] == 1 else "photographs"
    return Images(type(dataset).__name__, kind, train, train, labels, None, ())
