"""Arrays of pixels in .npz and .npy files, and JPEG files end to end in an .npz."""

import math
from pathlib import Path

import numpy as np

from . import jpeg
from .archive import entry, reason
from .memory import amount, available
from .source import Source, choose, digest, held_out

MOST_CHANNELS = 32
NPZ_CONTENTS = (
    "'images' (and 'labels'), 'train_images' and 'test_images', or 'train_jpeg' and 'train_offsets'"
)

Split = tuple[np.ndarray, np.ndarray | None]


class Arrays:
    """Images of one size in an array, in memory or mapped from a file.

    Args:
        pixels: uint8 `[n, c, h, w]`, or uint16, which is brought to 8 bits when it is read.
        labels: `[n]`, or None.
        classes: The name of each label.
        where: What messages call it.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        labels: np.ndarray | None,
        classes: tuple[str, ...] = (),
        where: str = "the array",
    ) -> None:
        self.pixels, self.labels, self.classes, self.where = pixels, labels, classes, where

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, i: int) -> np.ndarray:
        return eight_bits(np.array(self.pixels[i]))

    def take(self, index: np.ndarray) -> np.ndarray:  # int64 [k] -> uint8 [k, c, h, w]
        return eight_bits(np.ascontiguousarray(self.pixels[index]))

    def name(self, i: int) -> str:
        return f"image {i} of {self.where}"

    def fingerprint(self) -> str:
        step = max(1, len(self) // 64)  # a mapped file is not read as a whole for this
        return digest(self.pixels.shape, self.pixels[::step][:64], self.labels, self.classes)


def eight_bits(pixels: np.ndarray) -> np.ndarray:
    """uint8 of uint8 or uint16: 65,535 becomes 255."""
    if pixels.dtype == np.uint8:
        return pixels
    shallow = np.empty(pixels.shape, dtype=np.uint8)
    for row, deep in zip(shallow, pixels, strict=True):  # in between they are twice as large
        row[...] = (deep.astype(np.uint32) + 128) // 257
    return shallow


def read_npy(path: Path) -> dict[str, Source]:
    """One array, mapped: the system reads what is asked for."""
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # on damaged bytes NumPy raises whatever it trips over
        raise ValueError(f"{str(path)!r} must be an .npy file: {reason(error)}") from error
    where = repr(str(path))
    return {"train": Arrays(_as_images(pixels, f"the array in {where}"), None, (), where)}


def read_npz(path: Path) -> dict[str, Source]:
    """Arrays of pixels, or JPEG files end to end."""
    with open(path, "rb") as file:
        head = file.read(6)
    if head[:2] != b"PK" and head != b"\x93NUMPY":  # NumPy would take it for pickled objects
        raise ValueError(
            f"{str(path)!r} must be an .npz file, or a folder, .npy, .tar, .parquet or .arrow: it "
            f"begins with {head!r}"
        )
    try:
        archive = np.load(path, allow_pickle=False)
    except Exception as error:
        raise ValueError(f"{str(path)!r} must be an .npz file: {reason(error)}") from error
    found, classes = _read_archive(path, archive)
    where = repr(str(path))
    return choose({name: Arrays(*split, classes, where) for name, split in found.items()})


def _read_archive(path: Path, archive) -> tuple[dict[str, Split], tuple[str, ...]]:
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError(f"{str(path)!r} must be an .npz file with {NPZ_CONTENTS}, got one array")
    with archive:
        keys = set(archive.files)
        classes = _class_names(path, archive) if "class_names" in keys else ()
        if "train_jpeg" in keys:
            return jpeg.read(path, archive), classes
        _check_fits(path, archive)
        if "images" in keys:
            return {"train": _arrays(path, archive, "images", "labels")}, classes
        if "train_images" in keys:
            names = [key.removesuffix("_images") for key in keys if key.endswith("_images")]
            splits = "train", *held_out(names)
            return {
                s: _arrays(path, archive, f"{s}_images", f"{s}_labels") for s in splits
            }, classes  # fmt: skip
    raise ValueError(
        f"{str(path)!r} must hold {NPZ_CONTENTS}; it holds {', '.join(sorted(keys)) or 'nothing'}"
    )


def _check_fits(path: Path, archive: np.lib.npyio.NpzFile) -> None:
    """An archive is unpacked as a whole; what its arrays take is in their headers."""
    try:
        names = [name for name in archive.zip.namelist() if name.endswith(".npy")]
        size = sum(_size(archive, name) for name in names)
    except Exception as error:  # as above
        raise ValueError(f"{str(path)!r} is damaged: {reason(error)}") from error
    free = available()
    if size > free:
        raise ValueError(
            f"the arrays in {str(path)!r} take {amount(size)} and do not fit into the "
            f"{amount(free)} of memory that are free: an .npy of the same pixels is read while "
            f"it is used"
        )


def _size(archive: np.lib.npyio.NpzFile, name: str) -> int:
    """Bytes of an array that is not read yet."""
    with archive.zip.open(name) as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0
        if version[0] > 1:
            header = np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
    return math.prod(shape) * dtype.itemsize


def _class_names(path: Path, archive) -> tuple[str, ...]:
    names = entry(path, archive, "class_names")
    if names.ndim != 1:
        raise ValueError(
            f"class_names must be a vector, got shape {list(names.shape)}, in {str(path)!r}"
        )
    return tuple(str(name) for name in names)


def _arrays(path: Path, archive, name: str, labels_name: str) -> Split:
    images = eight_bits(_as_images(entry(path, archive, name), f"{name} in {str(path)!r}"))
    return images, jpeg.labels_of(path, archive, labels_name, len(images))


def _as_images(images: np.ndarray, where: str) -> np.ndarray:
    """uint8 or uint16 `[n, c, h, w]` of whatever order was given."""
    given = list(images.shape)
    if images.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"{where} must be uint8 or uint16, got {images.dtype}")
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and _channels_last(given):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or not 1 <= images.shape[1] <= MOST_CHANNELS:
        raise ValueError(
            f"{where} must have shape [n, h, w], [n, h, w, c] or [n, c, h, w] with 1 to "
            f"{MOST_CHANNELS} channels, got {given}"
        )
    if images.shape[0] == 0:
        raise ValueError(f"{where} must not be empty")
    if images.shape[2] != images.shape[3]:
        raise ValueError(f"{where} must be square, got {images.shape[2]} x {images.shape[3]}")
    return images


def _channels_last(shape: list[int]) -> bool:
    """1 or 3 tell by themselves; of other numbers, the two that are equal are the sides."""
    if shape[3] in (1, 3) or shape[1] in (1, 3):
        return shape[3] in (1, 3)
    return shape[1] == shape[2] != shape[3]
