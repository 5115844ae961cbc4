"""Compile what a run will need before its first step."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .. import _check, functional

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def _rows(n: int, width: int, dtype: torch.dtype, device: str) -> Tensor:
    return torch.randn(n, width, device=device).to(dtype).requires_grad_()


def _number(value: float, device: str) -> Tensor:
    return torch.full((), value, device=device, requires_grad=True)


def _clip(rows: Callable[[int], Tensor], n: int, queue: int, device: str, **_) -> Tensor:
    return functional.clip(rows(n), rows(n), _number(100.0, device))


def _siglip(rows: Callable[[int], Tensor], n: int, queue: int, device: str, **_) -> Tensor:
    return functional.siglip(rows(n), rows(n), _number(10.0, device), _number(-10.0, device))


def _moco(rows, n: int, queue: int, device: str, **options: float) -> Tensor:
    return functional.moco(rows(n), rows(n).detach(), rows(queue).detach(), **options)


def _sup_con(rows, n: int, queue: int, device: str, **options: float) -> Tensor:
    return functional.sup_con(rows(n), torch.arange(n, device=device) // 2, **options)


def _pairs(name: str) -> Callable[..., Tensor]:
    def loss(rows, n: int, queue: int, device: str, **options: float) -> Tensor:
        return getattr(functional, name)(rows(n), rows(n), **options)

    return loss


LOSSES = {
    "clip": _clip, "dcl": _pairs("dcl"), "flat_nce": _pairs("flat_nce"),
    "info_nce": _pairs("info_nce"), "moco": _moco, "nt_xent": _pairs("nt_xent"),
    "siglip": _siglip, "sup_con": _sup_con,
}  # fmt: skip


def warm_up(
    loss: str,
    *,
    rows: int,
    width: int,
    dtype: torch.dtype = torch.bfloat16,
    queue: int = 65536,
    temperature: float | None = None,
    device: str = "cuda",
) -> None:
    """Compile the kernels of a loss, those of an odd last batch included.

    Runs it forward and backward on random rows: `rows` of them, and one less. Triton keeps what it
    compiled on disk, so that later processes on the machine find it too. Ids of duplicates, masks
    and a loss per row are kernels of their own, which this does not compile.

    Args:
        loss: One of clip, dcl, flat_nce, info_nce, moco, nt_xent, siglip, sup_con.
        rows: Batch size.
        width: Features of a row.
        dtype: Of the rows.
        queue: Columns of moco.
        temperature: As the run will have it; default: the function's own. clip and siglip have a
            learnt scale.
        device: Where the run will be.

    Raises:
        ValueError: An unknown loss, or sizes below 1.
    """
    _check.one_of("loss", loss, tuple(LOSSES))
    for name, value in (("rows", rows), ("width", width), ("queue", queue)):
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")
    options = {} if temperature is None else {"temperature": temperature}
    draw = partial(_rows, width=width, dtype=dtype, device=device)
    for n in dict.fromkeys((rows, max(rows - 1, min(rows, 2)))):
        LOSSES[loss](draw, n, queue, device, **options).backward()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
