"""Any image file as a person sees it in a viewer: uint8 in RGB; a TIFF of other bands as they are.

JPEG files go through simplejpeg where it is installed, outside of the interpreter lock, and
everything else through Pillow; a box of a JPEG through the compiled part, where it was built with
libjpeg-turbo. All are libjpeg-turbo with the exact transform and smooth upsampling, and the pixels
are bit-equal. Where simplejpeg refuses a file, Pillow has the last word: what an image is does not
depend on what is installed, but for a file whose other metadata Pillow trips over.
"""

import io
import logging
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

from .orientation import Box, Head, orientation, stored_box, swapped, turn

try:
    from .. import _jpeg
except ImportError:
    _jpeg = None
try:
    import simplejpeg
except ImportError:
    simplejpeg = None

REMEDY = "; --bad-images skip goes on without such images"  # for the commands' messages
JPEG = b"\xff\xd8\xff"
TIFF = b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"
PLANES, BITS = 284, 258  # tags of TIFF
KEPT = 2**26  # bytes of a decoded image: a thread keeps memory for those of 22 megapixels
# Pillow logs every TIFF that it does not read; a log without a handler is on the screen.
logging.getLogger("PIL").addHandler(logging.NullHandler())
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # by the EXIF orientation  # fmt: skip
DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")


class Scratch(threading.local):
    """Memory of a thread for an image that is let go before the next one: of new memory the system
    clears every page first."""

    def __init__(self) -> None:
        self.memory = np.empty(0, dtype=np.uint8)

    def room(self, size: int) -> np.ndarray:  # uint8 [size]
        if size > KEPT:
            return np.empty(size, dtype=np.uint8)
        if size > len(self.memory):
            self.memory = np.empty(size, dtype=np.uint8)
        return self.memory[:size]


class BadImage(ValueError):
    """An image that cannot be decoded; the message names it in one line."""


def decode(data: bytes, name: str) -> Tensor:  # uint8 [3, h, w], or [bands, h, w] of a TIFF
    """An image file as it is seen: upright, in colour, on white.

    Equal to `torchvision.transforms.functional.pil_to_tensor(Image.open(file).convert("RGB"))`
    for a file of 8 bits that is neither turned nor transparent.

    Args:
        data: The bytes of the file: JPEG, PNG, WebP, GIF (its first frame), TIFF, BMP and whatever
            else Pillow reads. Where `tifffile` is installed, also TIFF of other bands or of 16 bits
            in several, which no viewer shows: all bands of the first page, brought to 8 bits.
        name: What messages call it.

    Returns:
        The pixels, with the channels last in memory.

    Raises:
        BadImage: No image, a damaged or truncated one, or one that would fill the memory.
    """
    return torch.from_numpy(decode_pixels(bytes(data), name)).permute(2, 0, 1)


def decode_pixels(data: bytes, name: str) -> np.ndarray:  # uint8 [h, w, 3]
    """`decode` for NumPy."""
    head = jpeg_head(data)
    if head is not None and (pixels := decode_jpeg(data, head)) is not None:
        return pixels
    try:
        with Image.open(io.BytesIO(data)) as image:
            return pixels_of(image)
    except Exception as error:  # on damaged bytes decoders raise whatever they trip over
        unknown = isinstance(error, Image.UnidentifiedImageError)
        if unknown and data[:4] in TIFF and find_spec("tifffile") is not None:
            return _bands(data, name)
        raise BadImage(f"{name} is no readable image: {_reason(data, error)}") from None


def _bands(data: bytes, name: str) -> np.ndarray:  # uint8 [h, w, bands]
    """The first page of a TIFF that Pillow does not read."""
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages[0]
            if np.prod(page.shape) > 3 * (Image.MAX_IMAGE_PIXELS or np.inf):
                raise ValueError(f"its {page.shape} are too many pixels")
            pixels, axes = page.asarray(), page.axes
        if sorted(axes) != ["S", "X", "Y"]:
            raise ValueError(f"its axes must be rows, columns and bands, got {axes}")
        pixels = np.ascontiguousarray(pixels.transpose([axes.index(axis) for axis in "YXS"]))
        return pixels if pixels.dtype == np.uint8 else _eight_bits(pixels)
    except Exception as error:
        raise BadImage(f"{name} is no readable image: {_reason(data, error)}") from None


def _reason(data: bytes, error: Exception) -> str:
    if not data:
        return "it is empty"
    if data[:4] in TIFF and isinstance(error, Image.UnidentifiedImageError):
        return "a TIFF of such bands needs tifffile: pip install tifffile"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"it begins with {data[:8]!r}, which no image of a known kind does"
    return " ".join(str(error).split()) or type(error).__name__


def jpeg_head(data: bytes) -> Head | None:
    """Of what simplejpeg decodes; None where it is for Pillow: no JPEG, CMYK (off by one here),
    damaged, or far too large."""
    if simplejpeg is None or data[:3] != JPEG:
        return None
    turned = orientation(data)
    if turned is None:
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except (ValueError, KeyError):  # it has no name for 4:4:1
        return None
    if space in ("CMYK", "YCCK") or height * width > (Image.MAX_IMAGE_PIXELS or np.inf):
        return None
    return Head((width, height) if swapped(turned) else (height, width), turned)


def decode_jpeg(
    data: bytes, head: Head, into: np.ndarray | None = None, box: Box | None = None
) -> np.ndarray | None:
    """`[h, w, 3]` of what has such a `jpeg_head`, in the caller's memory where it is given; None
    where Pillow has the last word.

    With a box, what the caller's memory holds around it may be anything.
    """
    (height, width), turned = head
    if turned == 1:
        return _decode_stored(data, into, box)
    if into is None:
        into = np.empty((height, width, 3), np.uint8)
    stored = np.empty((width, height, 3) if swapped(turned) else into.shape, np.uint8)
    part = None if box is None else stored_box(box, head.sides, turned)
    if _decode_stored(data, stored, part) is None:
        return None
    turn(stored, into, box or (0, height, 0, width), turned)
    return into


def _decode_stored(data: bytes, into: np.ndarray | None, box: Box | None) -> np.ndarray | None:
    """The pixels as they are stored, turned or not; see `decode_jpeg`."""
    boxed = box is not None and into is not None and _jpeg is not None
    if boxed and _jpeg.decode_box(data, into, *box):
        return into
    try:
        return simplejpeg.decode_jpeg(data, "RGB", buffer=into)
    except ValueError:
        return None


def pixels_of(image: Image.Image) -> np.ndarray:
    tags = getattr(image, "tag_v2", {})
    if tags.get(PLANES) == 2 and set(tags.get(BITS, ())) != {8}:
        raise Image.UnidentifiedImageError  # Pillow would take a plane for the colours of pixels
    image.load()
    # ImageOps.exif_transpose writes EXIF again, and fails where that cannot be.
    turned = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    if turned is not None:
        image = image.transpose(turned)
    if image.mode in DEEP or image.mode == "F":
        grey = _eight_bits(np.asarray(image))
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Levels of more than 8 bits as uint8: integers end at 65,535, fractions at 1."""
    white = 1.0 if pixels.dtype.kind == "f" else 65535
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= white):
        raise ValueError(
            f"its levels must be from 0 to {white:g}, got {low:g} to {high:g}: nothing says which "
            f"of them is white"
        )
    return (pixels * (255 / white) + 0.5).astype(np.uint8)


def read_image(path: str | Path) -> Tensor:  # uint8 [3, h, w]
    """`decode` of a file.

    Raises:
        BadImage: It cannot be read or is no image.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise BadImage(f"{str(path)!r} cannot be read: {error.strerror}") from None
    return decode(data, repr(str(path)))
