"""Batch normalisation that does not tell which query belongs to which key.

The statistics of a batch say who else is in it. Where queries and keys are normalised in the same
company, a network can find the key by its company alone. Shuffled keys have other company: on
other ranks, or in other groups of one process.

Source: He et al. 2020, "Momentum Contrast for Unsupervised Visual Representation Learning",
section 3.3; the groups of one process are those of its CIFAR-10 demonstration.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .. import _check, distributed
from .._ranks import row_counts


class SplitBatchNorm(_BatchNorm):
    """Batch normalisation of every group of a batch by itself, as if each were on a device.

    The rows of one group lie beside each other, as those of a device do: so every layout of memory
    stays as it is. The running statistics are those of the groups' mean.

    Args:
        groups: How many; the batch is a multiple of it in training.
    """

    # Always there: `track_running_stats` and `momentum` are the base class's defaults or numbers.
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, num_features: int, groups: int, **options: Any) -> None:
        super().__init__(num_features, **options)
        _check.count("groups", groups)
        self.groups = groups

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() < 2:
            raise ValueError(f"x must have 2 dimensions or more, got shape {list(x.shape)}")

    def forward(self, x: Tensor) -> Tensor:  # [b, c, ...]
        if not self.training:
            return super().forward(x)
        if len(x) % self.groups:
            raise ValueError(f"x must have a multiple of {self.groups} rows, got {len(x)}")
        means, variances = (
            s.repeat(self.groups, 1) for s in (self.running_mean, self.running_var)
        )  # fmt: skip
        parts = zip(x.chunk(self.groups), means, variances, strict=True)
        y = torch.cat([
            F.batch_norm(
                part, mean, variance, self.weight, self.bias, True, self.momentum, self.eps
            )
            for part, mean, variance in parts
        ])  # fmt: skip
        with torch.no_grad():
            self.running_mean.copy_(means.mean(0))
            self.running_var.copy_(variances.mean(0))
            self.num_batches_tracked += 1
        return y


def split_batch_norm(module: nn.Module, groups: int) -> nn.Module:
    """Put a `SplitBatchNorm` in the place of every batch normalisation, with its own tensors.

    Args:
        module: Changed in place; returned, or replaced where it is a batch normalisation itself.
        groups: Of each batch.
    """
    if isinstance(module, _BatchNorm) and not isinstance(module, SplitBatchNorm):
        split = SplitBatchNorm(
            module.num_features, groups, eps=module.eps, momentum=module.momentum,
            affine=module.affine,
        )  # fmt: skip
        split.weight, split.bias = module.weight, module.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            setattr(split, name, getattr(module, name))
        return split.train(module.training)
    for name, child in module.named_children():
        module.add_module(name, split_batch_norm(child, groups))
    return module


@torch.no_grad()
def shuffled(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:  # [b, ...]
    """What a network makes of rows that pass through it in another company, in their own order.

    Equal to ``network(x)`` for a network without batch normalisation. Where torch.distributed
    runs several ranks, the rows change ranks; each computes as many as it has.
    """
    counts, own = row_counts(x), distributed.rank()
    order = torch.randperm(sum(counts), device=x.device)
    if len(counts) > 1:
        dist.broadcast(order, 0)
    mine = distributed.gather(x)[order.split(counts)[own]]
    found = distributed.gather(network(mine))
    return found[order.argsort().split(counts)[own]]
