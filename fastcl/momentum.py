"""The slow copy of MoCo, BYOL and DINO: a function over lists of tensors, and the module."""

import copy
import sys
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from . import _check
from ._encoder import sharded
from ._library import ops

LOW = (torch.bfloat16, torch.float16)
# Forwards in training without an update, far more than a batch is accumulated from.
PATIENCE = 200


def momentum_update_(
    target: list[Tensor] | nn.Module,
    online: list[Tensor] | nn.Module,
    momentum: float | Tensor,  # []
    *,
    seed: Tensor | None = None,  # [] int64
) -> None:
    """Move every target tensor towards its online twin, in place, all of them in one launch.

    Equal to ``for t, o in zip(target, online): t.copy_(momentum * t + (1 - momentum) * o)``.

    momentum 1 leaves the target as it is, 0 copies online exactly, and a target equal to online
    stays. Computed in float32, in float64 for a float64 target. Integer tensors are copied. A
    16-bit target is rounded at random, right on average: to nearest, it would never move.

    Of sharded tensors (FSDP2, DTensor) every rank moves its own shard; target and online must be
    sharded alike.

    Args:
        target: Tensors, each once, or a module, of which the parameters are taken.
        online: As many tensors of the same shapes, any floating-point dtypes, or a module.
        momentum: From 0 to 1, or a tensor of one element on the device (schedules inside CUDA
            graphs), preferably float64: 1 - 0.9999 has 11 bits left in float32.
        seed: `[]` int64 in [0, 2^32) on the device: what the random bits of 16-bit targets follow
            from. Advances by one. None: drawn from torch's generator of the device.

    Raises:
        ValueError: Lengths, shapes, devices or shards do not fit, or momentum is outside [0, 1].
        TypeError: Something is no tensor, or the dtypes of a pair do not fit.

    Source: He et al. 2020, "Momentum Contrast for Unsupervised Visual Representation Learning",
    equation 2.
    """
    target, online = _parameters("target", target), _parameters("online", online)
    _check_averaged(target, online)
    if not target:
        return
    target, online = _shards(target, online)
    device = target[0].device
    _check.momentum(momentum, device)
    if seed is not None:
        _check.state("seed", seed, device)
    elif any(t.dtype in LOW for t in target):
        seed = torch.randint(1 << 32, (), device=device)
    _update_(target, online, momentum, seed)


def _parameters(name: str, x: list[Tensor] | nn.Module) -> list[Tensor]:
    if isinstance(x, nn.Module):
        part: Any
        for part in x.modules():
            if sharded(part):
                part.reshard()  # what a forward has gathered is a copy
        return list(x.parameters())
    if isinstance(x, Tensor) or not hasattr(x, "__iter__"):
        raise TypeError(f"{name} must be a list of tensors or a module, got {type(x).__name__}")
    return list(x)


def _check_averaged(target: list[Tensor], online: list[Tensor]) -> None:
    """Lists of tensors whose every pair can be averaged: one device, shapes and kinds alike."""
    if len(target) != len(online):
        raise ValueError(
            f"online must have as many tensors as target, {len(target)}, got {len(online)}"
        )
    device = target[0].device if target and isinstance(target[0], Tensor) else None
    for i, (t, o) in enumerate(zip(target, online, strict=True)):
        for name, x in (("target", t), ("online", o)):
            _check.tensor(f"{name}[{i}]", x)
            if x.device != device:
                raise ValueError(
                    f"{name}[{i}] must be on the device of target[0], {device}, got {x.device}"
                )
        if t.shape != o.shape:
            raise ValueError(
                f"online[{i}] must have the shape of target[{i}], {list(t.shape)}, "
                f"got {list(o.shape)}"
            )
        ours, theirs = t.dtype, o.dtype
        floats = ours in _check.FLOATS and theirs in _check.FLOATS
        integers = ours == theirs and not (ours.is_floating_point or ours.is_complex)
        if not (floats or integers):
            raise TypeError(
                f"target[{i}] and online[{i}] must both be float16, bfloat16, float32 or float64, "
                f"or integers of one dtype, got {ours} and {theirs}"
            )


@torch.no_grad()
def _shards(target: list[Any], online: list[Any]) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors, or of distributed ones the part in the memory of this rank."""
    for i, (t, o) in enumerate(zip(target, online, strict=True)):
        ways = [(x.device_mesh, x.placements) if _is_sharded(x) else None for x in (t, o)]
        if ways[0] != ways[1]:
            raise ValueError(
                f"online[{i}] must be sharded as target[{i}], which is {_way(t)}, got {_way(o)}"
            )
    local = [[x.to_local() if _is_sharded(x) else x for x in xs] for xs in (target, online)]
    return local[0], local[1]


def _is_sharded(x: Tensor) -> bool:
    # Importing DTensor takes longer than the rest of fastcl; who has one has done it.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def _way(x: Any) -> str:
    return f"{x.placements} over {x.device_mesh}" if _is_sharded(x) else "whole"


def _dense_alike(t: Tensor, o: Tensor) -> bool:
    """Whether element i of the memory of one belongs to element i of the other's."""
    if t.is_contiguous() and o.is_contiguous():
        return True
    last = torch.channels_last
    return t.dim() == 4 and t.is_contiguous(memory_format=last) and o.stride() == t.stride()


@torch.no_grad()
def _update_(
    target: list[Tensor], online: list[Tensor], momentum: float | Tensor, seed: Tensor | None
) -> None:
    dense_target, dense_online = [], []
    for t, o in zip(target, online, strict=True):
        alike = _dense_alike(t, o)
        dense_target.append(t if alike else t.contiguous())
        dense_online.append(o if alike else o.contiguous())
    number, tensor = (0.0, momentum) if isinstance(momentum, Tensor) else (momentum, None)
    ops.momentum_update_(dense_target, dense_online, number, tensor, seed)
    for t, dense in zip(target, dense_target, strict=True):
        if dense is not t:
            t.copy_(dense)
    # A backward that still needs the old values must fail instead of using the new ones.
    torch.autograd.graph.increment_version(target)


def _bits(x: Tensor) -> Tensor:
    """The same memory as integers, which `momentum_update_` copies."""
    sizes = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return x.view(sizes[x.element_size()]) if x.is_floating_point() else x


class Momentum(nn.Module):
    """A copy of a module that follows it slowly: MoCo's key encoder, BYOL's target, DINO's teacher.

    Args:
        module: What to follow. It is not registered here: its state is saved where it lives.
        momentum: How much of the copy stays in an update, from 0 to 1.
        buffers: What an update does to buffers such as the statistics of batch normalisation:
            "own" leaves them to the copy's own forward passes, as MoCo, BYOL and lightly do;
            "copy" takes the online module's; "average" averages those that are floating point
            and copies the others.

    Attributes:
        module: The copy; its parameters require no gradient.
        seed: `[]` int64, the state of the random rounding of 16-bit parameters.

    Both are in the state_dict.

    Raises:
        ValueError: momentum outside [0, 1], an unknown buffers, or a module that is sharded.
        TypeError: module is no module.

    Source: He et al. 2020, "Momentum Contrast for Unsupervised Visual Representation Learning",
    equation 2; Grill et al. 2020, "Bootstrap Your Own Latent", equation 1.
    """

    seed: Tensor

    def __init__(self, module: nn.Module, *, momentum: float = 0.999, buffers: str = "own") -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
        if any(sharded(part) for part in module.modules()):
            raise ValueError("module must be whole: shard it and the copy's module afterwards")
        first = next(module.parameters(), None)
        device = torch.get_default_device() if first is None else first.device
        _check.momentum(momentum, device)
        _check.one_of("buffers", buffers, ("own", "copy", "average"))
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.momentum = momentum
        self.buffer_rule = buffers
        self._online = (module,)  # in a tuple, or it would be registered and saved twice
        self._waiting = 0  # forwards in training since the last update
        self.register_buffer("seed", torch.zeros((), dtype=torch.int64, device=device))

    @property
    def online(self) -> nn.Module:
        """The module it follows."""
        return self._online[0]

    def update(
        self, online: nn.Module | None = None, momentum: float | Tensor | None = None
    ) -> None:
        """Move the copy towards the module it follows, in one launch.

        Args:
            online: Another module to follow; one wrapped for data parallelism serves too.
            momentum: In place of the constructor's.

        Raises:
            ValueError, TypeError: As for `momentum_update_`; nothing has changed then.
        """
        online = self._online[0] if online is None else online
        target = _parameters("target", self.module)
        source = _parameters("online", online)
        if self.buffer_rule != "own":
            ours, theirs = list(self.module.buffers()), list(online.buffers())
            _check_averaged(target + ours, source + theirs)
            if self.buffer_rule == "copy":
                theirs = [o.to(t.dtype) for t, o in zip(ours, theirs, strict=True)]
                ours, theirs = [_bits(x) for x in ours], [_bits(x) for x in theirs]
            target, source = target + ours, source + theirs
        momentum = self.momentum if momentum is None else momentum
        momentum_update_(target, source, momentum, seed=self.seed)
        self._waiting = 0

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the copy makes of the arguments, without gradient."""
        if self.training and not torch.compiler.is_compiling():
            self._waiting += 1
            if self._waiting == PATIENCE:
                warnings.warn(
                    f"{PATIENCE} forwards in training without update(): the copy does not move. "
                    "Call it after every optimiser step, or eval() on a copy that is to stay",
                    stacklevel=2,
                )
        return self.module(*args, **kwargs)

    def extra_repr(self) -> str:
        return f"momentum={self.momentum}, buffers={self.buffer_rule!r}"
