"""What methods count and estimate on the host; all of it in the state_dict."""

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from .. import _check, distributed
from ..functional import nce_normalizer
from ..momentum import PATIENCE, Momentum


def remember(keys: list[Any], new: Any) -> None:
    """Keep what the next update queues; a warning where no update comes."""
    keys.append(new)
    if len(keys) == PATIENCE:
        warnings.warn(
            f"{PATIENCE} training forwards without update(): call it after every optimiser step, "
            "or every batch is kept in memory and none becomes a negative",
            stacklevel=3,
        )


def move(target: Momentum, *followed: nn.Module, momentum: float | None = None) -> None:
    """Update a twin; a warning where what it follows is no longer a part of the method."""
    own = {id(p) for module in followed for p in module.parameters()}
    if own != {id(p) for p in target.online.parameters()}:
        warnings.warn(
            "backbone or head was replaced after construction and the twin follows the old one: "
            "construct the method with the new one",
            stacklevel=3,
        )
    target.update(momentum=momentum)


class Steps(nn.Module):
    """The number of optimiser steps so far, `count`."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.count)

    def set_extra_state(self, state: Tensor) -> None:
        self.count = int(state)

    def extra_repr(self) -> str:
        return f"count={self.count}"


def check_schedule(momentum: float, steps: int | None) -> None:
    """Raises ValueError or TypeError for what `rising_momentum` cannot take."""
    _check.momentum(momentum, torch.device("cpu"))
    if steps is not None:
        _check.count("steps", steps)


def rising_momentum(start: float, step: int, steps: int | None) -> float:
    """A momentum that rises to one over the training, along half a cosine.

    Equal to ``1 - (1 - start) * (cos(pi * step / steps) + 1) / 2``; `start` where steps is None.

    Source: Grill et al. 2020, "Bootstrap Your Own Latent", section 3.2.
    """
    if steps is None:
        return start
    return 1 - (1 - start) * (math.cos(math.pi * min(step / steps, 1)) + 1) / 2


class Normalizer(nn.Module):
    """The constant of noise-contrastive estimation, estimated on the first batch and then kept.

    The original code estimates it from the noise samples of that batch; this is their expectation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.value: float | None = None

    def forward(self, x: Tensor, bank: Tensor, temperature: float) -> float:
        """The constant for rows x `[b, d]` of unit length, over all ranks where distributed."""
        if self.value is None:
            rows = distributed.gather(x)
            estimate = nce_normalizer(rows, bank, temperature=temperature, normalize=False)
            self.value = float(estimate)  # waits for the device, once
        return self.value

    def get_extra_state(self) -> Tensor:
        # It is positive: 0 stands for none.
        return torch.tensor(self.value or 0.0, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        self.value = float(state) or None

    def extra_repr(self) -> str:
        return f"value={self.value}"
