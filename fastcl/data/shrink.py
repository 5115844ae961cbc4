"""Images as files again: smaller, or as JPEG of another quality."""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from .source import Source
from .square import to_pixels

QUALITY = 90  # of what is resized, where nothing else is asked for
KINDS = {b"\xff\xd8\xff": "jpg", b"\x89PN": "png", b"GIF": "gif", b"RIF": "webp", b"BM": "bmp",
         b"II*": "tiff", b"MM\0": "tiff"}  # fmt: skip


class Encoding(NamedTuple):
    """How an image is written.

    Args:
        side: Pixels that the shorter side has at most; None leaves sizes as they are.
        quality: Of JPEG, from 1 to 95, for every image; None writes those again that are resized.
    """

    side: int | None
    quality: int | None

    def file_of(self, source: Source, i: int) -> tuple[bytes, str]:
        """Bytes and ending of image i.

        Raises:
            BadImage: It cannot be read or, where that is needed, decoded.
        """
        data = source.read(i)
        kind = _kind(data) if isinstance(data, bytes) else None
        if (
            kind
            and self.quality is None
            and (self.side is None or _shorter_side(data) <= self.side)
        ):
            return data, kind
        image = _picture(to_pixels(source, i, data))
        small = self.side is None or min(image.size) <= self.side
        if small and self.quality is None:  # pixels, or a rare kind of file
            return _saved(image, format="PNG"), "png"
        if not small:
            share = self.side / min(image.size)
            size = [max(1, round(length * share)) for length in image.size]
            image = image.resize(size, Image.Resampling.BICUBIC)
        quality = QUALITY if self.quality is None else self.quality
        return _saved(image, format="JPEG", quality=quality), "jpg"


def _kind(data: bytes) -> str | None:
    return next((kind for start, kind in KINDS.items() if data.startswith(start)), None)


def _shorter_side(data: bytes) -> int:
    """By the header; what has none is for the decoder, which says what is wrong."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return min(image.size)
    except Exception:  # on damaged bytes Pillow raises whatever it trips over
        return 2**31


def _picture(pixels: np.ndarray) -> Image.Image:  # uint8 [c, h, w]
    if len(pixels) == 3:
        return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    if len(pixels) == 1:
        return Image.fromarray(np.ascontiguousarray(pixels[0]))
    raise ValueError(f"images of {len(pixels)} channels have no file format: 1 or 3 do")


def _saved(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()
