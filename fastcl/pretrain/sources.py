"""Readers of what users have: digits, image folders, arrays in an npz, JPEG files in an npz.

Each yields `{"train": (images, labels), "test": ...}` with images uint8 `[n, channels, h, w]` and
labels `[n]` or None, and the names of the classes.
"""

import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image, UnidentifiedImageError

from . import jpeg

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
LARGEST_DEFAULT_SIZE = 224
NPZ_CONTENTS = (
    "'images' (and 'labels'), 'train_images' and 'test_images', or 'train_jpeg' and 'train_offsets'"
)

Split = tuple[np.ndarray, np.ndarray | None]


def read_digits() -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """1,797 handwritten digits of 8 x 8 pixels; their 17 grey levels spread over 0 to 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    return images[:, None], digits.target, tuple(str(name) for name in digits.target_names)


def read_folder(root: Path, size: int | None) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Images below a folder, resized so that the shorter side is `size` and cut to the middle."""
    test = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    folders = {"train": root}
    if test is not None and (root / "train").is_dir():
        folders = {"train": root / "train", "test": test}
    listed = {split: _list_folder(folder) for split, folder in folders.items()}
    classes = sorted({label for files in listed.values() for _, label in files if label})
    if size is None:
        size = min(*_read(listed["train"][0][0]).size, LARGEST_DEFAULT_SIZE)
    found = {}
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock
        for split, files in listed.items():
            images = np.stack(list(pool.map(lambda file: _open(file[0], size), files)))
            labels = np.array([classes.index(label) for _, label in files]) if classes else None
            found[split] = images, labels
    return found, tuple(classes)


def _list_folder(root: Path) -> list[tuple[Path, str | None]]:
    """Paths in a fixed order with the name of the subfolder, None where the folder is flat."""
    classes = [entry for entry in sorted(root.iterdir()) if entry.is_dir()]
    flat = [(file, None) for file in sorted(root.iterdir()) if _is_image(file)]
    nested = [
        (file, entry.name) for entry in classes for file in sorted(entry.rglob("*"))
        if _is_image(file)
    ]  # fmt: skip
    if flat and nested:
        raise ValueError(
            f"{str(root)!r} must hold images or one subfolder per class, not both: found "
            f"{len(flat)} images beside {len(classes)} subfolders"
        )
    if not flat and not nested:
        raise ValueError(f"{str(root)!r} holds no image: expected files {', '.join(SUFFIXES)}")
    return flat or nested


def _is_image(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in SUFFIXES


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{str(path)!r} is no readable image: {error}") from error


def middle_square(image: Image.Image, size: int) -> Image.Image:
    """The middle of an image, as large as its shorter side, resized."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box)


def _open(path: Path, size: int) -> np.ndarray:
    return np.asarray(middle_square(_read(path), size)).transpose(2, 0, 1)


def read_npz(path: Path) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Arrays of pixels, or JPEG files end to end."""
    try:
        archive = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        raise ValueError(f"{str(path)!r} must be an .npz file: {error}") from error
    try:
        return _read_archive(path, archive)
    except (BadZipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{str(path)!r} is damaged: {error}") from error


def _read_archive(path: Path, archive) -> tuple[dict[str, Split], tuple[str, ...]]:
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError(f"{str(path)!r} must be an .npz file with {NPZ_CONTENTS}, got one array")
    with archive:
        keys = set(archive.files)
        classes = _class_names(archive["class_names"]) if "class_names" in keys else ()
        if "train_jpeg" in keys:
            return jpeg.read(path, archive), classes
        if "images" in keys:
            return {"train": _arrays(path, archive, "images", "labels")}, classes
        if "train_images" in keys:
            splits = [s for s in ("train", "test") if f"{s}_images" in keys]
            return {
                s: _arrays(path, archive, f"{s}_images", f"{s}_labels") for s in splits
            }, classes  # fmt: skip
    raise ValueError(
        f"{str(path)!r} must hold {NPZ_CONTENTS}; it holds {', '.join(sorted(keys)) or 'nothing'}"
    )


def _class_names(names: np.ndarray) -> tuple[str, ...]:
    if names.ndim != 1:
        raise ValueError(f"class_names must be a vector, got shape {list(names.shape)}")
    return tuple(str(name) for name in names)


def _arrays(path: Path, archive, name: str, labels_name: str) -> Split:
    images = archive[name]
    labels = archive[labels_name] if labels_name in archive.files else None
    where = f"{name} in {str(path)!r}"
    if images.dtype != np.uint8:
        raise ValueError(f"{where} must be uint8, got {images.dtype}")
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[3] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"{where} must have shape [n, h, w], [n, h, w, c] or [n, c, h, w] with 1 or 3 "
            f"channels, got {list(archive[name].shape)}"
        )
    if images.shape[0] == 0:
        raise ValueError(f"{where} must not be empty")
    if images.shape[2] != images.shape[3]:
        raise ValueError(f"{where} must be square, got {images.shape[2]} x {images.shape[3]}")
    if labels is not None and labels.shape[:1] != images.shape[:1]:
        count = len(labels) if labels.ndim else "one number"
        raise ValueError(f"{labels_name} must have {len(images)} entries, got {count}")
    return images, labels
