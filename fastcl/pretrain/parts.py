"""What a run trains, as its configuration says."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from ..data.parts import PartViews
from ..evaluate.report import initial_backbone
from ..pretext import Colorization
from .augment import Views
from .backbone import patch_side
from .images import Images
from .inputs import Batch
from .methods import ENTRIES
from .recipe import Config
from .start import start_from
from .step import mark

REBALANCE_WITH = 2048  # images that give the frequencies of colours


class Parts(NamedTuple):
    """What is trained, and on what."""

    method: nn.Module
    backbone: nn.Module  # what it trains for
    inputs: Callable[[Batch], tuple]  # the arguments of its forward
    ahead: PartViews | None = None  # views that are made while images are read


def build_parts(config: Config, images: Images, device: torch.device) -> Parts:
    """Method, backbone and views of a configuration."""
    method, backbone = build_method(config, images.channels, start=True)
    if isinstance(method, Colorization):
        method.rebalance(images.train[:REBALANCE_WITH].float() / 255)
    entry = ENTRIES[config.method]
    views = Views(
        images.kind, images.size, images.statistics(), config.crops, config.augmentation,
        channels_last=config.channels_last, multiple=patch_side(backbone), preset=entry.preset,
        recipes=entry.recipes,
    )  # fmt: skip
    return Parts(
        method, backbone, partial(entry.inputs, views.to(device)), views.ahead(entry.views)
    )


def build_method(
    config: Config, channels: int, *, start: bool = False
) -> tuple[nn.Module, nn.Module]:
    """The method and its untrained backbone; the seed alone decides the weights.

    Args:
        start: Whether the backbone has the weights that the run starts from.
    """
    backbone, width = initial_backbone(config, channels)
    if start and config.weights is not None:
        start_from(backbone, Path(config.weights))
    if config.compile:
        mark(backbone)
    method = ENTRIES[config.method].build(backbone, width=width, **config.options)
    return method, backbone
