"""Images of any sizes as one tensor."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _check


class Packed(NamedTuple):
    """Images of any sizes end to end, their pixels row by row."""

    pixels: Tensor  # [n, c] uint8, uint16 or float32, of all images
    offsets: Tensor  # [b] int64: the element, counted in pixels times c, where each image begins
    sizes: Tensor  # [b, 2] int64, height and width


def pack(images: Sequence[Tensor]) -> Packed:
    """Images `[c, h, w]` of any sizes, one copy of each; none where they lie end to end, channels
    last.

    Raises:
        ValueError: No image, one without pixels, or other channels or another device than the
            first one.
        TypeError: No sequence of tensors of one dtype.
    """
    if len(images) == 0:
        raise ValueError("images must hold one image at least, got none")
    first = images[0]
    for i, x in enumerate(images):
        _check.tensor(f"images[{i}]", x)
        if x.dim() != 3 or x.numel() == 0:
            raise ValueError(
                f"images[{i}] must have 3 dimensions [c, h, w], none of them 0, "
                f"got shape {list(x.shape)}"
            )
        if x.shape[0] != first.shape[0] or x.device != first.device:
            raise ValueError(
                f"images[{i}] must have {first.shape[0]} channels and be on {first.device} as "
                f"images[0], got {x.shape[0]} on {x.device}"
            )
        if x.dtype != first.dtype:
            raise TypeError(f"images[{i}] must have the dtype of images[0], {first.dtype}, "
                            f"got {x.dtype}")  # fmt: skip
    c = first.shape[0]
    rows = [x.permute(1, 2, 0) for x in images]
    if _end_to_end(rows):
        count = sum(x.numel() for x in rows) // c
        pixels = first.as_strided((count, c), (c, 1))
    else:
        pixels = torch.cat([x.reshape(-1, c) for x in rows])
    sizes = torch.tensor([x.shape[1:] for x in images], device="cpu")
    ends = sizes.prod(1).cumsum(0) * c
    offsets = torch.cat([ends.new_zeros(1), ends[:-1]])
    return Packed(pixels, offsets.to(first.device), sizes.to(first.device))


def _end_to_end(images: list[Tensor]) -> bool:  # [h, w, c] each
    """Whether each begins where the one before it ends, in one piece of memory."""
    memory, place = images[0].untyped_storage().data_ptr(), images[0].storage_offset()
    for x in images:
        beside = x.untyped_storage().data_ptr() == memory and x.storage_offset() == place
        if not (beside and x.is_contiguous()):
            return False
        place += x.numel()
    return True
