"""The momentum update in plain PyTorch, with its random rounding bit for bit."""

import torch
from torch import Tensor

from .common import accumulate_dtype


def momentum_update_(
    target: list[Tensor],
    online: list[Tensor],  # the shapes of target, any floating-point dtypes
    momentum: float,
    momentum_tensor: Tensor | None,  # [] takes the place of momentum
    seed: Tensor | None,  # [] int64 in [0, 2^32): random bits for 16-bit targets, and their state
) -> None:
    """target = momentum * target + (1 - momentum) * online; integer tensors are copied.

    Exact at both ends, where target equals online, and never outside their interval: the
    increment is added to the nearer of the two. Computed in float32, in float64 for a float64
    target. A 16-bit target is rounded up or down at random with the probability that makes the
    rounding right on average (nearest would never move it); seed advances by one.
    """
    for index, (t, o) in enumerate(zip(target, online, strict=True)):
        if not t.is_floating_point():
            t.copy_(o)
            continue
        dtype = accumulate_dtype(t.dtype)
        m = torch.tensor(momentum, dtype=torch.float64, device=t.device)
        m = m if momentum_tensor is None else momentum_tensor.to(torch.float64)
        w = (1 - m).to(dtype)
        m = m.to(dtype)
        old, new = t.to(dtype), o.to(dtype)
        gap = new - old
        mixed = torch.where(w < 0.5, old + w * gap, new - m * gap)
        mixed = torch.where(new == old, old, mixed)
        mixed = torch.where(w == 0, old, torch.where(w == 1, new, mixed))
        if seed is not None and t.dtype in (torch.bfloat16, torch.float16):
            mixed = stochastic_round(mixed, t.dtype, seed, index)
        t.copy_(mixed)
    if seed is not None:
        seed.copy_((seed + 1) & 0xFFFFFFFF)


def stochastic_round(
    x: Tensor,  # float32
    dtype: torch.dtype,  # bfloat16 or float16
    seed: Tensor,  # [] int64
    stream: int,
) -> Tensor:
    """Round to one of the two neighbours of dtype, nearer ones more often: right on average.

    A number that dtype holds is unchanged. Element i of a stream draws the 16-bit half i % 2 of a
    hash of (seed, stream, i // 2), the same bits in every kernel.
    """
    bits = _random_bits(x.numel(), seed, stream).view(x.shape)
    raw = x.contiguous().view(torch.int32).to(torch.int64) & 0xFFFFFFFF
    sign, magnitude = raw & 0x80000000, raw & 0x7FFFFFFF
    if dtype == torch.bfloat16:
        rounded = sign | (magnitude + bits) & 0x7FFF0000
        rounded = rounded.to(torch.int32).view(torch.float32)
    else:
        # 13 random bits below the last place of a normal number, or of 2^-24 below 2^-14. More
        # would be lost in the sum of the second case and round a whole number up.
        bits = bits >> 3
        normal = sign | (magnitude + bits) & 0x7FFFE000
        normal = normal.to(torch.int32).view(torch.float32)
        small = (x.abs() * 2.0**24 + bits * 2.0**-13).floor() * 2.0**-24
        rounded = torch.where(x.abs() < 2.0**-14, torch.copysign(small, x), normal)
    return torch.where(x.isfinite(), rounded, x).to(dtype)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >> 63 else x


def _splitmix(x: Tensor) -> Tensor:
    """64 well-mixed bits of x, the generator of Steele et al. 2014; sums and products wrap."""
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ (x >> 30 & (1 << 34) - 1)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> 27 & (1 << 37) - 1)) * _signed(0x94D049BB133111EB)
    return x ^ (x >> 31 & (1 << 33) - 1)


def _random_bits(count: int, seed: Tensor, stream: int) -> Tensor:
    """count integers of 16 random bits: a keyed 32-bit hash of i // 2, split in halves."""
    mask = 0xFFFFFFFF
    key = _splitmix((seed & mask) | stream << 32)
    pair = torch.arange((count + 1) // 2, device=seed.device)
    x = (pair + (pair >> 32) * 0x9E3779B9 + key) & mask
    x = ((x ^ x >> 16) * 0x7FEB352D + (key >> 32)) & mask
    x = ((x ^ x >> 15) * 0x846CA68B) & mask
    x = x ^ x >> 16
    return torch.stack([x & 0xFFFF, x >> 16], 1).view(-1)[:count]
