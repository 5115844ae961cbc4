"""Which files are no whole images, found without decoding those that are."""

import math
import time
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from .decoding import BadImage
from .folder import Tell
from .source import Source, origin
from .square import read_pixels

ENDS = 64  # bytes read of each end of a file
AT_ONCE = 1024
TOLD_EVERY = 20  # times so many files
# Seconds for a file. Where the disk answers at once, one thread is done sooner: several would wait
# for the interpreter lock.
SLOW = 5e-5


def check(source: Source, tell: Tell = lambda text: None) -> dict[int, str]:
    """What is bad about each image that is, by its place.

    A JPEG or PNG file with its first and its last marker, a WebP file as long as it says, a GIF
    file with its trailer are taken for whole; everything else is decoded to find out. So a file
    that is cut off, empty or no image at all is found at the price of two reads; damage inside a
    file shows when it is decoded. Sources without files are not checked.
    """
    files, index = origin(source)
    if not hasattr(files, "ends"):
        return {}
    bad: dict[int, str] = {}

    def look(start: int) -> list[tuple[int, str]]:
        return [
            (i, told) for i in range(start, min(start + AT_ONCE, len(source)))
            if (told := _verdict(files, int(index[i])))
        ]  # fmt: skip

    starts = range(AT_ONCE, len(source), AT_ONCE)
    began = time.perf_counter()
    bad.update(look(0))
    slow = time.perf_counter() - began > SLOW * min(AT_ONCE, len(source))
    with ThreadPoolExecutor() as pool:
        for k, found in enumerate((pool.map if slow else map)(look, starts), 2):
            bad.update(found)
            if k % TOLD_EVERY == 0:
                tell(f"{min(k * AT_ONCE, len(source)):,} of {len(source):,} images checked")
    return bad


def _verdict(source: Source, i: int) -> str | None:
    try:
        head, tail, size = source.ends(i, ENDS)
        if not whole(head, tail, size):
            read_pixels(source, i)
    except BadImage as error:
        return str(error)
    return None


def whole(head: bytes, tail: bytes, size: int) -> bool:
    """Whether the ends of a file of `size` bytes are those of a whole image; the head of a PNG also
    tells whether it would fill the memory."""
    if head[:3] == b"\xff\xd8\xff":
        return tail.endswith(b"\xff\xd9")
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        sides = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
        return tail[-8:-4] == b"IEND" and math.prod(sides) <= (Image.MAX_IMAGE_PIXELS or math.inf)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return int.from_bytes(head[4:8], "little") + 8 <= size
    return head[:4] == b"GIF8" and tail.endswith(b";")
