"""What a method is given of a batch: views of the images, their numbers, their labels."""

from typing import NamedTuple

import torch
from torch import Tensor

from .augment import Made, Views
from .lab import DEVIATION, MEAN, split_lab


class Batch(NamedTuple):
    """Some images of a data set."""

    images: Tensor | Made  # uint8 [b, channels, size, size], or views of them already
    index: Tensor  # [b] int64, their places in the data set
    labels: Tensor | None  # [b] int64


def _views(views: Views, batch: Batch, count: int) -> tuple:
    made = views(batch.images, count)
    return tuple(x.contiguous(memory_format=views.memory_format) for x in made)


def one_view(views: Views, batch: Batch) -> tuple:
    return _views(views, batch, 1)


def two_views(views: Views, batch: Batch) -> tuple:
    return _views(views, batch, 2)


def two_views_and_labels(views: Views, batch: Batch) -> tuple:
    """Raises ValueError where the data have no labels."""
    if batch.labels is None:
        raise ValueError("this method learns from labels, which the data do not have")
    # An image without a label is the only one of its class.
    labels = torch.where(batch.labels < 0, -1 - batch.index, batch.labels)
    return *two_views(views, batch), labels


def view_and_index(views: Views, batch: Batch) -> tuple:
    return *one_view(views, batch), batch.index


def lab_views_and_index(views: Views, batch: Batch) -> tuple:
    """Lightness and colour of one view."""
    return split_lab(*one_view(views, batch)), batch.index


def crops(views: Views, batch: Batch) -> tuple:
    """Two views of full size, then as many small crops as the recipe wants."""
    return *two_views(views, batch), *views.small_crops(batch.images)


def light_view(views: Views, batch: Batch) -> tuple:
    """The image moved a little, for a pretext task."""
    return (views.light(batch.images),)


def light_view_in_color(views: Views, batch: Batch) -> tuple:
    """The same in [0, 1], by the numbers that networks of lightness and colour see it with."""
    return ((views.light(batch.images) * DEVIATION + MEAN).clamp(0, 1),)
