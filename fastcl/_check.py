"""What bad input gets: an error that names the argument, its value and what was expected."""

import sys
from typing import overload

import torch
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
DUPLICATES = ("positive", "ignore")
LARGEST = sys.float_info.max  # whole numbers go on beyond it


def tensor(name: str, x: Tensor) -> None:
    """A tensor whose elements are all in memory: no sparse, nested or opaque one."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")
    if x.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got one of layout {x.layout}")


def rows(name: str, x: Tensor, like: tuple[str, Tensor] | None = None) -> None:
    """A non-empty floating-point matrix, of the width, dtype and device of another."""
    tensor(name, x)
    if x.dim() != 2:
        raise ValueError(f"{name} must have 2 dimensions [rows, width], got shape {list(x.shape)}")
    if x.dtype not in FLOATS:
        raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, got {x.dtype}")
    if x.shape[0] == 0 or x.shape[1] == 0:
        raise ValueError(f"{name} must not be empty, got shape {list(x.shape)}")
    if like is not None:
        other, y = like
        if x.shape[1] != y.shape[1]:
            raise ValueError(
                f"{name} must have the width of {other}, {y.shape[1]}, got {x.shape[1]}"
            )
        if x.dtype != y.dtype:
            raise TypeError(f"{name} must have the dtype of {other}, {y.dtype}, got {x.dtype}")
        if x.device != y.device:
            raise ValueError(f"{name} must be on the device of {other}, {y.device}, got {x.device}")


def no_transform() -> None:
    """An error that says what to do, in place of PyTorch's about how operators are written."""
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        raise RuntimeError(
            "torch.func transforms (grad, vmap, jacrev, ...) do not reach through fastcl's "
            "operators: take gradients with backward() or torch.autograd.grad, the loss of every "
            "row with reduction='none', and several batches one by one"
        )


def pairs(name: str, x: Tensor, other: str, y: Tensor) -> None:
    """Two matrices whose rows belong together."""
    rows(other, y)
    rows(name, x, (other, y))
    if x.shape[0] != y.shape[0]:
        raise ValueError(
            f"{name} must have as many rows as {other}, {y.shape[0]}, got {x.shape[0]}"
        )


def vector(name: str, x: Tensor, length: int, device: torch.device, integer: bool = False) -> None:
    """One number per row."""
    tensor(name, x)
    if integer and x.dtype != torch.int64:
        raise TypeError(f"{name} must be int64, got {x.dtype}")
    if not integer and x.dtype not in FLOATS:
        raise TypeError(f"{name} must be floating point, got {x.dtype}")
    if x.shape != (length,):
        raise ValueError(f"{name} must have shape [{length}], got {list(x.shape)}")
    if x.device != device:
        raise ValueError(f"{name} must be on {device}, got {x.device}")


def duplicates(ids: Tensor | None, way: str, x: Tensor) -> None:
    """Optional ids of the rows x, and what to do with equal ones."""
    one_of("duplicates", way, DUPLICATES)
    if ids is not None:
        vector("ids", ids, x.shape[0], x.device, integer=True)


def array(
    name: str, x: Tensor, dims: int, shape: str, like: tuple[str, Tensor] | None = None
) -> None:
    """A non-empty floating-point array, of the dtype and device of another."""
    tensor(name, x)
    if x.dim() != dims:
        raise ValueError(f"{name} must have {dims} dimensions {shape}, got shape {list(x.shape)}")
    if x.dtype not in FLOATS:
        raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, got {x.dtype}")
    if 0 in x.shape:
        raise ValueError(f"{name} must not be empty, got shape {list(x.shape)}")
    if like is not None:
        other, y = like
        if x.dtype != y.dtype:
            raise TypeError(f"{name} must have the dtype of {other}, {y.dtype}, got {x.dtype}")
        if x.device != y.device:
            raise ValueError(f"{name} must be on the device of {other}, {y.device}, got {x.device}")


def at_least(name: str, x: Tensor, least: int, why: str) -> None:
    """So many rows."""
    if x.shape[0] < least:
        raise ValueError(f"{name} must have {least} rows at least, got {x.shape[0]}: {why}")


def bank(name: str, x: Tensor, like: Tensor) -> None:
    """A constant matrix of any floating-point dtype, of the width and on the device of rows x."""
    rows(name, x)
    if x.requires_grad:
        raise ValueError(f"{name} must not require a gradient")
    if x.shape[1] != like.shape[1]:
        raise ValueError(f"{name} must have the width of x, {like.shape[1]}, got {x.shape[1]}")
    if x.device != like.device:
        raise ValueError(f"{name} must be on the device of x, {like.device}, got {x.device}")


def indices(name: str, x: Tensor, shape: tuple[int, ...], other: str, rows: Tensor) -> None:
    """int64 rows of another tensor; the values are looked at where that costs no wait."""
    state(name, x, rows.device, shape)
    if x.device.type != "cpu" or torch.compiler.is_compiling() or x.numel() == 0:
        return
    low, high = (int(value) for value in x.aminmax())
    if low < 0 or high >= rows.shape[0]:
        wrong = low if low < 0 else high
        raise ValueError(
            f"{name} must be rows of {other}, from 0 to {rows.shape[0] - 1}, got {wrong}"
        )


def finite(name: str, value: float) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not abs(value) <= LARGEST:
        raise ValueError(f"{name} must be finite, got {value}")
    return float(value)


def positive(name: str, value: float) -> float:
    """A finite number above zero."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not 0 < value <= LARGEST:
        raise ValueError(f"{name} must be finite and above 0, got {value}")
    return float(value)


def share(name: str, value: float) -> float:
    """A number from 0 to 1."""
    if not 0 <= finite(name, value) <= 1:
        raise ValueError(f"{name} must be from 0 to 1, got {value}")
    return float(value)


@overload
def inverse(name: str, value: Tensor, device: torch.device) -> Tensor: ...
@overload
def inverse(name: str, value: float, device: torch.device) -> float: ...
@overload
def inverse(name: str, value: float | Tensor, device: torch.device) -> float | Tensor: ...
def inverse(name: str, value: float | Tensor, device: torch.device) -> float | Tensor:
    """One over a temperature: a number, or a tensor of one element, which receives a gradient."""
    if isinstance(value, Tensor):
        scalar(name, value, device)
        above_zero(name, value)
        return reciprocal(value.reshape(()) if value.dim() else value)
    return 1 / positive(name, value)


def reciprocal(x: Tensor) -> Tensor:
    """One over x, in float32 where 16 bits would round it."""
    return 1 / (x.float() if x.dtype.itemsize == 2 else x)


def count(name: str, value: int, least: int = 1) -> None:
    """A whole number that is not below the least."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be {least} or more, got {value}")


def store(size: int, width: int, dtype: torch.dtype, fill: str, fills: tuple[str, ...]) -> None:
    """Arguments of a module that holds rows [size, width]."""
    count("size", size)
    count("width", width)
    one_of("fill", fill, fills)
    if dtype not in FLOATS:
        raise TypeError(f"dtype must be floating point, got {dtype}")


def one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, got {value!r}")


def scalar(name: str, x: Tensor, device: torch.device) -> None:
    """A floating-point tensor of one element."""
    tensor(name, x)
    if x.numel() != 1:
        raise ValueError(f"{name} must have one element, got shape {list(x.shape)}")
    if x.dtype not in FLOATS:
        raise TypeError(f"{name} must be floating point, got {x.dtype}")
    if x.device != device:
        raise ValueError(f"{name} must be on {device}, got {x.device}")


def state(name: str, x: Tensor, device: torch.device, shape: tuple[int, ...] = ()) -> None:
    """int64 numbers that an operator advances on the device."""
    tensor(name, x)
    if x.dtype != torch.int64:
        raise TypeError(f"{name} must be int64, got {x.dtype}")
    if x.shape != shape:
        raise ValueError(f"{name} must have shape {list(shape)}, got {list(x.shape)}")
    if x.device != device:
        raise ValueError(f"{name} must be on {device}, got {x.device}")


def momentum(value: float | Tensor, device: torch.device) -> None:
    """A number from 0 to 1, or a tensor of one element, whose value only the device knows."""
    if isinstance(value, Tensor):
        return scalar("momentum", value, device)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"momentum must be a number or a tensor, got {type(value).__name__}")
    if not 0 <= value <= 1:
        raise ValueError(f"momentum must be from 0 to 1, got {value}")


def scale(value: float | Tensor, device: torch.device) -> None:
    """One over a temperature: a positive number, or a tensor of one element."""
    if isinstance(value, Tensor):
        scalar("scale", value, device)
    else:
        positive("scale", value)


def ids(
    row_ids: Tensor | None, col_ids: Tensor | None, n: int, m: int, device: torch.device
) -> None:
    """Of rows and columns, or of neither."""
    if (row_ids is None) != (col_ids is None):
        raise ValueError("ids must be given for the rows and for the columns, or for neither")
    if row_ids is not None and col_ids is not None:
        vector("ids of the rows", row_ids, n, device, integer=True)
        vector("ids of the columns", col_ids, m, device, integer=True)


def seen(x: Tensor) -> bool:
    """Whether values may be looked at: where that costs no wait."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def not_negative(name: str, x: Tensor) -> None:
    if not seen(x):
        return
    if not (x >= 0).all():
        raise ValueError(f"{name} must not be negative, got {x.min().item()}")
    if not (x < torch.inf).all():
        raise ValueError(f"{name} must be finite, got {x.max().item()}")


def bounded(name: str, x: Tensor) -> None:
    """Neither infinite nor NaN."""
    if seen(x) and not all(abs(number) < torch.inf for number in x.detach().flatten().tolist()):
        raise ValueError(f"{name} must be finite, got {x.tolist()}")


def above_zero(name: str, x: Tensor) -> None:
    if not seen(x) or x.numel() == 0:
        return
    # A few numbers are soonest looked at as such. Both ends are NaN where there is one.
    numbers = x.detach() if x.numel() <= 4 else torch.stack(x.detach().aminmax())
    if all(0 < number < torch.inf for number in numbers.flatten().tolist()):
        return
    least, most = (bound.item() for bound in x.detach().aminmax())
    got = f"{least} to {most}" if x.numel() > 1 else least
    raise ValueError(f"{name} must be finite and above 0, got {got}")
