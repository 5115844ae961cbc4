"""What the parameters of random views may be, and the places of packed images."""

import torch
from torch import Tensor

from .. import _check

# What each parameter may be, and whether it is a whole number.
INFINITE, FINITE = torch.inf, torch.finfo(torch.float32).max
LIMITS = (
    ("top", 0, INFINITE, True),
    ("left", 0, INFINITE, True),
    ("height", 1, INFINITE, True),
    ("width", 1, INFINITE, True),
    ("mirror", 0, 1, True),
    ("brightness", 0, FINITE, False),
    ("contrast", 0, FINITE, False),
    ("saturation", 0, FINITE, False),
    ("hue", -0.5, 0.5, False),
    ("order", 0, 23, True),
    ("grey", 0, 1, True),
    ("sigma", 0, FINITE, False),
    ("threshold", 0, INFINITE, False),
)
COLOURS = 5, 6, 7, 8, 10  # of the parameters, those that need three channels
IDENTITY = 1.0, 1.0, 1.0, 0.0, 0.0
EVERY = tuple(range(len(LIMITS)))


def check_parameters(x: Tensor, pixels: Tensor, sizes: Tensor | None) -> None:
    """float32 `[b, V, 13]`."""
    _check.tensor("parameters", x)
    if x.dtype != torch.float32:
        raise TypeError(f"parameters must be float32, got {x.dtype}")
    b = pixels.shape[0] if sizes is None else sizes.shape[0]
    if x.dim() != 3 or x.shape[0] != b or x.shape[1] == 0 or x.shape[2] != len(LIMITS):
        raise ValueError(
            f"parameters must have shape [{b}, V, {len(LIMITS)}] with one view at least, "
            f"got {list(x.shape)}"
        )
    if x.device != pixels.device:
        raise ValueError(f"parameters must be on {pixels.device}, got {x.device}")


def check_places(pixels: Tensor, offsets: Tensor | None, sizes: Tensor | None) -> None:
    """Of images end to end, where that costs no wait."""
    if offsets is None or sizes is None or not _check.seen(pixels):
        return
    if (sizes < 1).any():
        raise ValueError(f"sizes must be 1 or more, got {sizes.min().item()}")
    if (sizes > pixels.shape[0]).any():
        raise ValueError(
            f"sizes must fit into the {pixels.shape[0]} pixels, got {sizes.max().item()}"
        )
    wrong = (offsets < 0) | (offsets > pixels.numel() - sizes.prod(1) * pixels.shape[1])
    if wrong.any():
        i = int(wrong.to(torch.uint8).argmax())
        raise ValueError(
            f"offsets[{i}] must leave room for the {sizes[i].tolist()} pixels of its image among "
            f"{pixels.numel()} elements, got {offsets[i].item()}"
        )


def check_values(x: Tensor, sizes: Tensor | None, sides, channels: int) -> None:
    """What each parameter may be, where that costs no wait."""
    if not _check.seen(x):
        return
    low, high, whole = _limits()
    allowed = (x >= low) & (x <= high) & ((x == x.floor()) | ~whole)
    if not allowed.all():
        _refuse(x, allowed, lambda k: _range(*LIMITS[k]))
    room = (torch.tensor([sides], device="cpu") if sizes is None else sizes).to(x.dtype)
    inside = x[..., :2] + x[..., 2:4] <= room[:, None]
    if not inside.all():
        i, v, k = (~inside).nonzero()[0].tolist()
        side, length = ("height", "width")[k], int(room[i if len(room) > 1 else 0, k])
        start, end = x[i, v, k].item(), x[i, v, k + 2].item()
        raise ValueError(
            f"parameters[{i}, {v}] must be a crop inside of the image, whose {side} is {length}, "
            f"got {LIMITS[k][0]} {start:g} and {side} {end:g}"
        )
    if channels != 3:
        allowed = x[..., COLOURS] == x.new_tensor(IDENTITY)
        if not allowed.all():
            _refuse(x[..., COLOURS], allowed, lambda k: (
                f"{LIMITS[COLOURS[k]][0]}, must be {IDENTITY[k]:g} for images of {channels} "
                "channels: colours need 3"
            ), COLOURS)  # fmt: skip


def _limits() -> tuple[Tensor, Tensor, Tensor]:
    _, low, high, whole = zip(*LIMITS, strict=True)
    least, most = torch.tensor([low, high], dtype=torch.float32, device="cpu")
    return least, most, torch.tensor(whole, device="cpu")


def _range(name: str, low: float, high: float, whole: bool) -> str:
    upper = "" if high >= FINITE else f" to {high:g}"
    kind = "a whole number " if whole else "finite and " if high == FINITE else ""
    return f"{name}, must be {kind}from {low:g}{upper}"


def _refuse(x: Tensor, allowed: Tensor, expected, columns: tuple[int, ...] = EVERY) -> None:
    i, v, k = (~allowed).nonzero()[0].tolist()
    raise ValueError(
        f"parameters[{i}, {v}, {columns[k]}], {expected(k)}, got {x[i, v, k].item():g}"
    )
