"""Files and bytes as one record of images, decoded to where they stay."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import _check
from .._library import ops
from ..functional.packed import Packed

if TYPE_CHECKING:  # fastcl.data needs Pillow, which the views do not
    from ..data.orientation import Box, Head

BYTES = bytes, bytearray, memoryview
Source = str | os.PathLike[str] | bytes


class Seen(NamedTuple):
    """A file before it is decoded."""

    data: bytes | np.ndarray  # bytes that simplejpeg will decode, or pixels [h, w, 3]
    name: str  # what messages call it
    sides: tuple[int, int]  # height and width
    head: "Head | None" = None  # of such bytes


def decode(files: Source | Sequence[Source], *, threads: int | None = None) -> Packed:
    """Image files, or their bytes, as one record that the views take without a copy.

    Equal to ``pack([fastcl.data.decode(data, name) for each])``, of images of three bands. JPEG
    goes through simplejpeg where it is installed, outside of the interpreter lock, straight to its
    place in the record; everything else through Pillow.

    Args:
        files: Paths, or the bytes of files; one or several.
        threads: How many decode at once; by default as many as PyTorch takes, which is one in a
            worker of a DataLoader.

    Returns:
        `Packed` with uint8 pixels; `unpack` makes images `[3, h, w]` of it.

    Raises:
        fastcl.data.BadImage: A file that is no image, damaged or truncated, or of other than three
            bands, by its name or place.
        ValueError, TypeError: No file, less than one thread, or what is neither path nor bytes.
    """
    with looked_at(files, threads) as (seen, each):
        sides = [image.sides for image in seen]
        ends = torch.tensor([3 * h * w for h, w in sides], device="cpu").cumsum(0)
        starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        pixels = torch.empty(int(ends[-1]), dtype=torch.uint8, device="cpu")
        ops.large_pages_(pixels)
        places = np.split(pixels.numpy(), ends[:-1].tolist())
        for _ in each(lambda x, place: fill(x, place.reshape(*x.sides, 3)), seen, places):
            pass
    return Packed(pixels.view(-1, 3), starts, torch.tensor(sides, device="cpu"))


def unpack(images: Packed) -> list[Tensor]:
    """The images of a record, `[c, h, w]` each, channels last in memory; nothing is copied."""
    pixels, starts, sizes = images
    flat, c = pixels.view(-1), pixels.shape[1]
    return [
        flat[start : start + h * w * c].view(h, w, c).permute(2, 0, 1)
        for start, (h, w) in zip(starts.tolist(), sizes.tolist(), strict=True)
    ]


def _named(files) -> list[tuple[Source, str]]:
    """Every file with what messages call it."""
    if isinstance(files, (str, os.PathLike, *BYTES)):
        files = [files]
    if not isinstance(files, Iterable):
        raise TypeError(f"files must be paths or bytes, one or several, got {type(files).__name__}")
    files = list(files)
    if not files:
        raise ValueError("files must hold one file at least, got none")
    for i, file in enumerate(files):
        if not isinstance(file, (str, os.PathLike, *BYTES)):
            raise TypeError(f"files[{i}] must be a path or bytes, got {type(file).__name__}")
    return [
        (bytes(file), f"files[{i}]") if isinstance(file, BYTES) else (file, repr(os.fspath(file)))
        for i, file in enumerate(files)
    ]


@contextmanager
def looked_at(files, threads: int | None) -> Iterator[tuple[list[Seen], Callable[..., Iterable]]]:
    """What is to be decoded, and a map over so many threads to do it in."""
    named = _named(files)
    threads = torch.get_num_threads() if threads is None else threads
    _check.count("threads", threads)
    with _mapping(min(threads, len(named))) as each:
        yield list(each(_look, named)), each


@cache
def _decoding() -> ModuleType:
    from ..data import decoding

    return decoding


def _look(named: tuple[Source, str]) -> Seen:
    decoding, (file, name) = _decoding(), named
    data = file
    if not isinstance(file, bytes):
        try:
            data = Path(file).read_bytes()
        except (OSError, ValueError) as error:  # a name with a zero is no name
            reason = error.strerror if isinstance(error, OSError) else error
            raise decoding.BadImage(f"{name} cannot be read: {reason}") from None
    head = decoding.jpeg_head(data)
    if head is not None:
        return Seen(data, name, head.sides, head)
    pixels = decoding.decode_pixels(data, name)
    if pixels.shape[2] != 3:
        raise decoding.BadImage(f"{name} must have 3 bands, got {pixels.shape[2]}")
    return Seen(pixels, name, pixels.shape[:2])


def fill(image: Seen, place: np.ndarray, box: "Box | None" = None) -> None:
    """The pixels, to `[h, w, 3]` of the caller's; where there is a box, its own at least."""
    decoding, pixels = _decoding(), image.data
    if image.head is not None:
        if decoding.decode_jpeg(pixels, image.head, place, box) is not None:
            return
        pixels = decoding.decode_pixels(pixels, image.name)  # Pillow has the last word
        if pixels.shape != place.shape:
            raise decoding.BadImage(
                f"{image.name} is no readable image: {list(place.shape)} by its head, got "
                f"{list(pixels.shape)}"
            )
    place[:] = pixels


@contextmanager
def _mapping(threads: int) -> Iterator[Callable[..., Iterable]]:
    """A map over so many threads, which end with the block: a forked worker would miss them."""
    if threads == 1:
        yield map
        return
    with ThreadPoolExecutor(threads) as pool:
        yield pool.map
