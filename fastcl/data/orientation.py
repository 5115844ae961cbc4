"""How a JPEG file says that it is turned, and turning what was stored."""

from typing import NamedTuple

import numpy as np

EXIF, XMP = b"Exif\0\0", b"tiff:Orientation"
APP1, SCAN, WITHOUT_LENGTH = 0xE1, 0xDA, {0x01, *range(0xD0, 0xDA), 0xFF}
TAG, SHORT = 0x0112, 3
BYTES = {16: 8} | dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), 1))  # of types of values
Box = tuple[int, int, int, int]  # top, bottom, left and right, in pixels of an image


class Head(NamedTuple):
    """What a file says before its pixels."""

    sides: tuple[int, int]  # height and width as it is seen
    orientation: int  # how it is stored, 1 to 8 as in EXIF


def orientation(data: bytes) -> int | None:
    """1 to 8 as in EXIF, 1 upright, as Pillow reads it; None where it takes Pillow to tell.

    Source: CIPA DC-008-2019, "Exchangeable image file format for digital still cameras: Exif
    version 2.32", sections 4.5 and 4.6.4.
    """
    parts = _application_parts(data)
    if not parts:
        return None if parts is None else 1
    exif = [part[6:] for part in parts if part.startswith(EXIF)]
    if len(exif) > 1:
        return None
    found = _values(exif[0]) if exif else []
    if found is None or len(found) > 1:
        return None
    if found:
        return found[0] if 1 <= found[0] <= 8 else 1
    return None if any(XMP in part for part in parts) else 1


def _application_parts(data: bytes) -> list[bytes] | None:
    """What the segments that EXIF and XMP are in hold; None where the file is not one after the
    other up to its pixels."""
    at, found = 2, []
    while at + 4 <= len(data) and data[at] == 0xFF:
        kind, length = data[at + 1], data[at + 2] << 8 | data[at + 3]
        if kind == SCAN:
            return found
        if kind in WITHOUT_LENGTH or length < 2:
            return None
        if kind == APP1:
            found.append(data[at + 4 : at + 2 + length])
        at += 2 + length
    return None


def _values(tiff: bytes) -> list[int] | None:
    """All orientations of the first directory; None where anything of it is unusual."""
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(tiff[:4])
    if order is None:
        return None

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], order)

    start = number(4, 4)
    entries = range(start + 2, start + 2 + 12 * number(start, 2), 12)
    if start < 8 or entries.stop > len(tiff):
        return None
    for at in entries:  # Pillow reads no further than to what lies outside
        size = BYTES.get(number(at + 2, 2), 0) * number(at + 4, 4)
        if size > 4 and number(at + 8, 4) + size > len(tiff):
            return None
    found = [at for at in entries if number(at, 2) == TAG]
    if any(number(at + 2, 2) != SHORT or number(at + 4, 4) != 1 for at in found):
        return None
    return [number(at + 8, 2) for at in found]


def swapped(orientation: int) -> bool:
    """Whether rows are stored as columns."""
    return orientation >= 5


def turn(stored: np.ndarray, into: np.ndarray, box: Box, orientation: int) -> None:
    """A box of what an image looks like, to its place: uint8 `[h, w, 3]`, contiguous."""
    top, bottom, left, right = box
    source, place = (x.view("V3")[..., 0] for x in (stored, into))  # faster by whole pixels
    source = source.T if swapped(orientation) else source
    rows, columns = _mirrored(orientation)
    source = source[:: -1 if rows else 1, :: -1 if columns else 1]
    place[top:bottom, left:right] = source[top:bottom, left:right]


def stored_box(box: Box, sides: tuple[int, int], orientation: int) -> Box:
    """Where a box of what is seen, of these sides, is stored."""
    (top, bottom, left, right), (height, width) = box, sides
    rows, columns = _mirrored(orientation)
    if rows:
        top, bottom = height - bottom, height - top
    if columns:
        left, right = width - right, width - left
    return (left, right, top, bottom) if swapped(orientation) else (top, bottom, left, right)


def _mirrored(orientation: int) -> tuple[bool, bool]:
    """Whether rows and columns run backwards, once they are rows and columns."""
    return orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
