"""What `fastcl pretrain` does, with methods, data and views of one's own."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import _check
from ..data.mapped import Mapped
from ..data.parts import PartViews
from ..data.square import read_pixels
from ..data.stream import Stream
from . import checkpoint
from .augment import Ahead
from .devices import automatic_precision
from .images import Images
from .inputs import Batch
from .lock import locked
from .loggers import check_logger, logging_to
from .parts import Parts
from .recipe import PRECISIONS, Config
from .run import Run, build_fabric

OPTIMIZERS = "sgd", "lars", "adamw"


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
        out: Folder of checkpoint.pt, metrics.csv and config.json.
        epochs, batch_size, learning_rate, weight_decay, warmup, accumulate: As for the command; the
            learning rate is the peak, and falls to zero along half a cosine.
        optimizer: "sgd", "lars" or "adamw".
        labels: Handed to the method behind the views where given.
        size: Side that images of a dataset get; the shorter side of the first by default.
        precision: "auto", "32" or "bf16".
        channels_last: How networks lie in memory.
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
    images = _images(dataset, labels, size)
    n, folder = len(images.train), Path(out)
    for name, value in (("epochs", epochs), ("accumulate", accumulate)):
        _check.count(name, value)
    _check.positive("learning_rate", learning_rate)
    _check.one_of("optimizer", optimizer, OPTIMIZERS)
    _check.one_of("precision", precision, ("auto", *PRECISIONS))
    if not 2 * accumulate <= batch_size <= n or batch_size % accumulate:
        raise ValueError(
            f"batch_size must be a multiple of accumulate, {accumulate}, from {2 * accumulate} to "
            f"the {n} images, got {batch_size}"
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
        precision=precision, devices=1, seed=seed, stream=images.streamed, samples=n,
        fingerprint=images.fingerprint(), accumulate=accumulate, channels_last=channels_last,
    )  # fmt: skip

    ahead = Ahead(views) if images.streamed and isinstance(views, PartViews) else None

    def inputs(batch: Batch) -> tuple:
        made = views(batch.images) if ahead is None else views.joined(batch.images.groups)
        return tuple(made) if batch.labels is None else (*made, batch.labels)

    with locked(folder):
        parts = Parts(method, getattr(method, "backbone", method), inputs, ahead)
        run = Run(config, images, folder, build_fabric(1, precision), parts)
        if (folder / checkpoint.NAME).exists():
            run.resume(folder / checkpoint.NAME)
        run.config.save(folder / "config.json")
        with logging_to(logger, run):
            run.train(display)
    return run.history


def _images(dataset, labels: Tensor | None, size: int | None) -> Images:
    if isinstance(dataset, Tensor):
        if dataset.dim() != 4 or dataset.dtype != torch.uint8:
            raise ValueError(
                f"dataset must be uint8 [n, c, h, w], got {dataset.dtype} {list(dataset.shape)}"
            )
        train = dataset
    elif hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"):
        source = Mapped(dataset)
        channels, *sides = read_pixels(source, 0).shape
        train = Stream(source, size or min(sides), channels)
    else:
        raise TypeError(f"dataset must be a tensor or map-style, got {type(dataset).__name__}")
    if labels is not None:
        _check.vector("labels", labels, len(train), labels.device, integer=True)
    kind = "digits" if train.shape[1] == 1 else "photographs"
    return Images(type(dataset).__name__, kind, train, train, labels, None, ())
