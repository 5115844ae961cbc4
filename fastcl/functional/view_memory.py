"""Memory that views are written to."""

import torch
from torch import Tensor

from .. import _check
from .._kept import kept


@kept(64)
def memory_like(
    shape: tuple[int, ...],  # V, b, c, size, size
    dtype: torch.dtype,
    memory_format: torch.memory_format,
) -> Tensor:
    """What views are like, without memory."""
    if memory_format == torch.contiguous_format:
        return torch.empty(shape, dtype=dtype, device="meta")
    views, b, channels, *size = shape
    x = torch.empty(views, b, *size, channels, dtype=dtype, device="meta")
    return x.permute(0, 1, 4, 2, 3)


def laid_out(
    out: Tensor,
    shape: tuple[int, ...],  # V, b, c, size, size
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    device: torch.device,
) -> Tensor:
    """`out` as the kernels write it, `[V, b, c, s, s]` or `[V, b, s, s, c]` end to end."""
    _check.tensor("out", out)
    if out.dtype != dtype:
        raise TypeError(f"out must be {dtype}, got {out.dtype}")
    if out.device.type != device.type:
        raise ValueError(f"out must be on {device}, got a tensor on {out.device}")
    if out.shape != shape:
        raise ValueError(f"out must have shape {list(shape)}, got {list(out.shape)}")
    if out.requires_grad:
        raise ValueError("out must not require a gradient, which what is written to it has not")
    last = memory_format == torch.channels_last
    memory = out.detach()
    memory = memory.permute(0, 1, 3, 4, 2) if last else memory
    if not memory.is_contiguous():
        kind = "channels last within each view" if last else "contiguous"
        raise ValueError(f"out must be {kind} and end to end, got strides {list(out.stride())}")
    return memory


def written(out: Tensor) -> None:
    """A backward that still needs what stood there must fail instead of using the new views."""
    if torch.compiler.is_compiling() or not out.is_inference():
        torch.autograd.graph.increment_version(out)


def apart(out: Tensor, name: str, x: Tensor) -> None:
    """No byte of out may be one of x, which is read while out is written, nor lie between two."""
    if torch.compiler.is_compiling() or out.device.type == "meta":
        return
    (start, end), (first, last) = _reach(out), _reach(x)
    if start < last and first < end:
        raise ValueError(f"out must not lie in the memory of {name}, which it would overwrite")


def _reach(x: Tensor) -> tuple[int, int]:
    """The addresses of the first byte and of what follows the last."""
    elements = 1 + sum((n - 1) * step for n, step in zip(x.shape, x.stride(), strict=True))
    return x.data_ptr(), x.data_ptr() + elements * x.element_size() * (x.numel() > 0)
