"""What the fronts share: signed scales, what a user replaced, the dtype of the result, the lse."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..contrast.node import row_losses
from ..contrast.problem import problem

# The least scale: what it adds to a logit is below any rounding, and it can be divided by.
TINY = 1e-18


def signed(
    scale: float | Tensor,  # []
    device: torch.device,
) -> tuple[int | Tensor, float | Tensor]:
    """The sign of a scale, and its size, which is above zero and has the gradient of the scale.

    A tensor on an accelerator is not looked at: its sign is a tensor too. Zero and what is next to
    it become tiny.
    """
    if not isinstance(scale, Tensor):
        scale = float(scale)
        sign, size = (-1, -scale) if scale < 0 else (1, scale)
        return sign, size + TINY if size < TINY else size
    scale = scale.to(device, torch.promote_types(scale.dtype, torch.float32))
    if scale.device.type == "cpu" and not torch.compiler.is_compiling():
        sign = -1 if scale < 0 else 1
        return (sign, scale) if scale > TINY else (sign, scale * sign + TINY)
    sign = torch.where(scale.detach() < 0, -1.0, 1.0).reshape(())
    return sign, scale * sign + TINY


def signed_inverse(
    temperature: float | Tensor,  # []
    device: torch.device,
) -> tuple[int | Tensor, float | Tensor]:
    """The sign of a temperature, and one over its size, as `signed`."""
    if not isinstance(temperature, Tensor):
        temperature = float(temperature)
        if temperature == 0 or not math.isfinite(temperature):
            raise ValueError(f"temperature must be finite and not 0, got {temperature}")
    return signed(1 / temperature, device)


def is_one(sign: int | Tensor) -> bool:
    """Whether the sign is known to be 1."""
    return isinstance(sign, int) and sign > 0


def times(
    sign: int | Tensor,
    x: Tensor,
) -> Tensor:
    """The sign times x, in the dtype of x; x itself where the sign is known to be 1."""
    if isinstance(sign, int):
        return x if sign > 0 else -x
    return x * sign.to(x.dtype)


def several(x: float | Tensor | None) -> bool:
    """Whether a scale, temperature or bias is more than one number."""
    return isinstance(x, Tensor) and x.numel() > 1


def replaced(owner: object, *names: str, homes: tuple[str, ...] = ()) -> bool:
    """Whether a method is not fastcl's: a subclass, the class or the instance has another.

    homes: Other packages whose methods count as fastcl's.
    """
    homes = ("fastcl.compat", *homes)
    modules = [getattr(getattr(owner, name), "__module__", None) or "" for name in names]
    return not all(any(m == h or m.startswith(h + ".") for h in homes) for m in modules)


def hooked(module: nn.Module) -> bool:
    """Whether somebody waits for a call of the module."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


def need_distributed(gather_distributed: bool) -> None:
    """lightly's error, word for word."""
    if gather_distributed and not torch.distributed.is_available():
        raise ValueError(
            "gather_distributed is True but torch.distributed is not available. Please set "
            "gather_distributed=False or install a torch version with distributed support."
        )


def of_one_dtype(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors in the dtype that holds them all."""
    dtypes = {x.dtype for x in tensors}
    if len(dtypes) < 2:
        return list(tensors)
    return [x.to(functools.reduce(torch.promote_types, dtypes)) for x in tensors]


def in_dtype_of(
    x: Tensor,
    loss: Tensor,
) -> Tensor:
    """The loss in the dtype that a cross-entropy of logits from x has, autocast included."""
    lowered = x.dtype in (torch.float16, torch.bfloat16)
    if lowered and torch.is_autocast_enabled(x.device.type):
        return loss
    return loss.to(x.dtype)


def log_sum(
    q: Tensor,  # [n, d]
    k: Tensor | None,  # [m, d]; None: the rows themselves, self left out
    scale: float | Tensor,
    ids: tuple[Tensor, Tensor] | Tensor | None = None,
    unit: bool = True,
    limit: Tensor | None = None,  # [n]
    guide: tuple[Tensor, Tensor] | None = None,  # [n, g], [m, g]
) -> Tensor:
    """The log of the sum of the exponentials of every row's logits, [n], in which columns with
    the row's id are left out, and those whose cosine by the guide is above the limit."""
    options: dict[str, Any] = {"scale": scale, "ids": ids, "positives_in": False, "unit": unit}
    options |= {"limit": limit, "guide": guide}
    result = row_losses(problem(q, k, **options, normalize=False))
    # Where nothing is left in the sum, the loss is -inf, and so is this.
    return result.loss + result.positive
