"""Images of any size as squares of one size: the middle, resized."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .decoding import BadImage, decode_pixels
from .source import Source

CHUNK = 32  # images that a thread takes at once
TOLD_EVERY = 5.0  # seconds


def middle_square(image: Image.Image, size: int) -> Image.Image:
    """The middle of an image, as large as its shorter side, resized."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box)


def read_pixels(source: Source, i: int) -> np.ndarray:  # uint8 [c, h, w]
    """Image i, decoded where it is a file.

    Raises:
        BadImage: It cannot be.
    """
    return to_pixels(source, i, source.read(i))


def to_pixels(source: Source, i: int, data: bytes | np.ndarray) -> np.ndarray:  # uint8 [c, h, w]
    """What was read of image i, decoded where it is a file."""
    if isinstance(data, bytes):
        return decode_pixels(data, source.name(i)).transpose(2, 0, 1)
    return data


def tensor_of(pixels: np.ndarray) -> Tensor:
    """The same memory, but where it runs backwards, which tensors cannot."""
    return torch.from_numpy(pixels if min(pixels.strides) >= 0 else pixels.copy())


def check_channels(found: int, channels: int) -> None:
    """Images of a run, or of a batch, have as many."""
    if found != channels:
        raise ValueError(
            f"all images must have {channels} channels like the first, got one with {found}"
        )


def to_square(pixels: np.ndarray, size: int) -> np.ndarray:  # uint8 [c, size, size]
    """An image as a square; one that is already is left as it is."""
    if pixels.shape[1:] == (size, size):
        return pixels
    # Pillow has pictures of one channel and of three.
    parts = [pixels.transpose(1, 2, 0)] if len(pixels) == 3 else list(pixels)
    squares = [np.array(middle_square(Image.fromarray(part), size)) for part in parts]
    return squares[0].transpose(2, 0, 1) if len(pixels) == 3 else np.stack(squares)


def read_all(
    source: Source,
    index: np.ndarray,
    size: int,
    skipped: dict[int, str] | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Tensor:  # uint8 [b, c, size, size]
    """The images of `index` `[b]` as squares, on all cores.

    Args:
        skipped: Gets what was said of bad images, by their places in the source; those are black.
            Without it the first one raises.
        tell: Called now and then with how far it is and how long it will take.
    """

    def read(i: int) -> np.ndarray | None:
        try:
            return to_square(read_pixels(source, i), size)
        except BadImage as error:
            if skipped is None:
                raise
            skipped[i] = str(error)
            return None

    first = next((x for i in index if (x := read(int(i))) is not None), None)
    if first is None:
        raise BadImage(f"none of {len(index)} images can be read: {next(iter(skipped.values()))}")
    found = torch.zeros(len(index), *first.shape, dtype=torch.uint8, device="cpu")
    pixels = found.numpy()

    def fill(start: int) -> None:
        for k in range(start, min(start + CHUNK, len(index))):
            square = read(int(index[k]))
            if square is not None and square.shape != first.shape:
                raise ValueError(
                    f"{source.name(int(index[k]))} must have shape {list(first.shape)} like the "
                    f"first, got {list(square.shape)}"
                )
            pixels[k] = 0 if square is None else square

    with ThreadPoolExecutor() as pool:  # decoders work outside the interpreter lock
        began = told = time.monotonic()
        for k, _ in enumerate(pool.map(fill, range(0, len(index), CHUNK)), 1):
            now = time.monotonic()
            if now - told > TOLD_EVERY:
                told, done = now, k * CHUNK
                left = (now - began) / done * (len(index) - done)
                tell(f"{done:,} of {len(index):,} images decoded, {left:,.0f} s left")
    return found
