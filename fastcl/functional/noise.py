"""Which rows of a bank are the noise: drawn on the device, uniformly or from a distribution."""

import torch
from torch import Tensor, nn

from .. import _check


def noise_indices(
    target: Tensor,  # [b] int64
    size: int,
    count: int,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Rows of a bank for `functional.nce`: every target, then noise drawn uniformly.

    Equal to ``cat([target[:, None], torch.randint(size, (b, count))], 1)``.

    Args:
        target: `[b]` int64, the samples themselves.
        size: Rows of the bank.
        count: Noise rows per sample, K; drawn with replacement, and may hit the sample itself.
        generator: Of the device of target; None: torch's own.

    Returns:
        `[b, 1 + K]` int64.

    Raises:
        ValueError: size or count below 1, or a target that is not a vector.
        TypeError: A target that is not int64.
    """
    _check_target(target)
    _check.count("size", size)
    _check.count("count", count)
    shape = target.shape[0], count
    drawn = torch.randint(size, shape, device=target.device, generator=generator)
    return torch.cat([target[:, None], drawn], 1)


def _check_target(target: Tensor) -> None:
    if not isinstance(target, Tensor):
        raise TypeError(f"target must be a tensor, got {type(target).__name__}")
    if target.dim() != 1:
        raise ValueError(f"target must have 1 dimension, got shape {list(target.shape)}")
    _check.vector("target", target, target.shape[0], target.device, integer=True)


class AliasTable(nn.Module):
    """Draws rows from a given distribution in constant time each, on the device.

    Args:
        weights: `[n]`, finite, 0 or more, not all zero: the probabilities up to a factor.

    Attributes:
        probabilities: `[n]` float32, they sum to one: `noise` of `functional.nce`.

    Raises:
        ValueError: Weights that are not a vector, negative, infinite, NaN, or all zero.
        TypeError: Weights that are not floating point.

    Source: Walker 1977, "An Efficient Method for Generating Discrete Random Variables with
    General Distributions"; Vose 1991, "A Linear Algorithm for Generating Random Numbers with a
    Given Distribution".
    """

    probabilities: Tensor
    threshold: Tensor
    alias: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        if not isinstance(weights, Tensor):
            raise TypeError(f"weights must be a tensor, got {type(weights).__name__}")
        if weights.dim() != 1 or weights.shape[0] == 0:
            raise ValueError(f"weights must be a vector, got shape {list(weights.shape)}")
        _check.vector("weights", weights, weights.shape[0], weights.device)
        wide = weights.detach().double().cpu()
        if not wide.isfinite().all() or wide.min() < 0 or wide.sum() == 0:
            raise ValueError("weights must be finite, 0 or more, and not all zero")
        wide = wide / wide.sum()
        threshold, alias = _split(wide * len(wide))
        device = weights.device
        self.register_buffer("probabilities", wide.to(device, torch.float32))
        self.register_buffer("threshold", threshold.to(device, torch.float32))
        self.register_buffer("alias", alias.to(device))

    def forward(
        self,
        target: Tensor,  # [b] int64
        count: int,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Every target, then `count` rows drawn with replacement: `[b, 1 + count]` int64."""
        _check_target(target)
        _check.count("count", count)
        shape, device = (target.shape[0], count), target.device
        place = torch.randint(len(self.alias), shape, device=device, generator=generator)
        coin = torch.rand(shape, dtype=torch.float32, device=device, generator=generator)
        drawn = torch.where(coin < self.threshold[place], place, self.alias[place])
        return torch.cat([target[:, None], drawn], 1)


def _split(
    share: Tensor,  # [n] float64, 1 on average
) -> tuple[Tensor, Tensor]:
    """n columns of height one, each of its own share below a threshold and of one other's above."""
    left = share.tolist()
    threshold, alias = [1.0] * len(left), list(range(len(left)))
    small = [i for i, x in enumerate(left) if x < 1]
    large = [i for i, x in enumerate(left) if x >= 1]
    while small and large:
        i, j = small.pop(), large[-1]
        threshold[i], alias[i] = left[i], j
        left[j] -= 1 - left[i]
        if left[j] < 1:
            small.append(large.pop())
    made = torch.tensor(threshold, dtype=torch.float64, device="cpu")
    return made, torch.tensor(alias, device="cpu")
