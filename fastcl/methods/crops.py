"""Views of several sizes through one network."""

from itertools import groupby

import torch
from torch import Tensor, nn


def features(backbone: nn.Module, crops: tuple[Tensor, ...]) -> Tensor:
    """Of all crops below each other; crops of one size pass through the backbone together.

    Raises:
        ValueError: Fewer than two crops.
    """
    if len(crops) < 2:
        raise ValueError(f"crops must be 2 at least, got {len(crops)}")
    sizes = groupby(crops, key=lambda crop: crop.shape[1:])
    return torch.cat([backbone(torch.cat(list(group))) for _, group in sizes])
