"""JPEG files end to end in one npz, decoded once and kept as pixels in the user's cache."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from .._files import cache_folder, replace_file
from .archive import entry
from .decoding import decode_pixels
from .memory import amount, available

Split = tuple[np.ndarray, np.ndarray | None]


def read(path: Path, archive) -> dict[str, Split]:
    """The splits of an archive, from the cache where the same bytes were decoded before.

    Args:
        path: Of the archive; its contents are the key of the cache.
        archive: The open npz, with `<split>_jpeg` uint8, `<split>_offsets` `[n + 1]` and
            optionally `<split>_labels` `[n]` for train and perhaps test.

    Returns:
        Images uint8 `[n, 3, h, w]` and labels `[n]` or None of each split.

    Raises:
        ValueError: Offsets that do not cut the bytes into n files, or a file that is no image of
            the size of the first.
    """
    splits = [split for split in ("train", "test") if f"{split}_jpeg" in archive.files]
    with open(path, "rb") as file:
        key = hashlib.file_digest(file, "sha256").hexdigest()[:24]
    cached = cache_folder() / f"decoded-{key}.npz"
    images = _read_cache(cached, splits)
    if images is None:
        images = {split: _decode_split(path, archive, split) for split in splits}
        cached.parent.mkdir(parents=True, exist_ok=True)
        replace_file(cached, lambda file: np.savez(file, **images))
    return {
        split: (images[split], labels_of(path, archive, f"{split}_labels", len(images[split])))
        for split in splits
    }


def labels_of(path: Path, archive, name: str, count: int) -> np.ndarray | None:
    """Labels [count] of an open archive, or None where it has none."""
    if name not in archive.files:
        return None
    labels = entry(path, archive, name)
    if labels.shape[:1] != (count,):
        found = len(labels) if labels.ndim else "one number"
        raise ValueError(f"{name} must have {count} entries, got {found}, in {str(path)!r}")
    return labels


def _read_cache(path: Path, splits: list[str]) -> dict[str, np.ndarray] | None:
    """None where it is not there or damaged: then it is made again."""
    try:
        with np.load(path, allow_pickle=False) as decoded:
            return {split: decoded[split] for split in splits}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None


def _decode_split(path: Path, archive, split: str) -> np.ndarray:
    name = f"{split}_offsets"
    where = f"{name} in {str(path)!r}"
    if name not in archive.files:
        raise ValueError(f"{where} is missing: image i must be jpeg[offsets[i]:offsets[i + 1]]")
    data, offsets = (entry(path, archive, key) for key in (f"{split}_jpeg", name))
    if (
        data.dtype != np.uint8
        or data.ndim != 1
        or offsets.ndim != 1
        or offsets.dtype.kind not in "iu"
    ):
        raise ValueError(
            f"{split}_jpeg must be uint8 [bytes] and {where} whole numbers [n + 1], got "
            f"{data.dtype} {list(data.shape)} and {offsets.dtype} {list(offsets.shape)}"
        )
    offsets = offsets.astype(np.int64)
    bounds = len(offsets) > 1 and offsets[0] >= 0 and offsets[-1] <= len(data)
    if not bounds or (np.diff(offsets) <= 0).any():
        raise ValueError(f"{where} must rise from 0 to at most {len(data)}, with two at least")
    pieces = [data[a:b].tobytes() for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
    first = _decode(path, 0, pieces[0], split)
    size, free = len(pieces) * first.nbytes, available()
    if size > free:
        raise ValueError(
            f"the {len(pieces):,} images in {str(path)!r} take {amount(size)} as pixels and do not "
            f"fit into the {amount(free)} of memory that are free: a folder of the same files is "
            f"read while it is used"
        )
    images = np.empty((len(pieces), *first.shape), dtype=np.uint8)

    def fill(i: int) -> None:
        image = _decode(path, i, pieces[i], split)
        if image.shape != first.shape:
            raise ValueError(
                f"image {i} of {split} must have shape {list(first.shape)} like the first, "
                f"got {list(image.shape)}, in {str(path)!r}"
            )
        images[i] = image

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(fill, range(len(pieces))):
            pass
    return images


def _decode(path: Path, index: int, data: bytes, split: str) -> np.ndarray:
    return decode_pixels(data, f"image {index} of {split} in {str(path)!r}").transpose(2, 0, 1)
