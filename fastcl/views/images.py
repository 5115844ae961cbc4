"""Images as a call of the views is given them."""

from collections.abc import Sequence

from torch import Tensor, device

from .. import _check
from ..functional.packed import Packed, pack


def looked_over(images, layout: str) -> tuple[int, Tensor | tuple[int, int, int], device]:
    """Channels, sizes as `draw` takes them, and device."""
    if isinstance(images, Packed):
        for name, x in images._asdict().items():
            _check.tensor(name, x)
            if x.device != (place := images.pixels.device):
                raise ValueError(f"{name} must be on the device of pixels, {place}, got {x.device}")
        return images.pixels.shape[-1], images.sizes, images.pixels.device
    _check.tensor("images", images)
    if images.dim() != 4:
        raise ValueError(f"images must have 4 dimensions, got shape {list(images.shape)}")
    if 0 in images.shape:
        raise ValueError(f"images must have pixels, got shape {list(images.shape)}")
    b, *rest = images.shape
    c, h, w = rest if layout == "chw" else (rest[2], *rest[:2])
    return c, (b, h, w), images.device


def together(images) -> Tensor | Packed:
    """A list of images as one record, as several calls will look at it."""
    listed = isinstance(images, Sequence) and not isinstance(images, Packed)
    return pack(images) if listed else images
