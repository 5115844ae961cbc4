"""Hugging Face datasets on disk: what `save_to_disk` leaves, and parquet or arrow files with a
column of images."""

from pathlib import Path

import numpy as np

from .decoding import BadImage
from .shards import by_split
from .source import Source, choose, digest, training

SAVED = "dataset_dict.json", "state.json"  # what `save_to_disk` leaves of several and of one
KINDS = {".parquet": "parquet", ".arrow": "arrow"}
LABELS = "label", "labels", "fine_label", "class", "target"


class Table:
    """A column of images of a `datasets.Dataset`, mapped from the disk.

    Args:
        dataset: With a column of images.
        where: What messages call it.

    Raises:
        ValueError: No column of images, or several.
    """

    def __init__(self, dataset, where: str) -> None:
        from datasets import Image

        images = [name for name, kind in dataset.features.items() if isinstance(kind, Image)]
        if len(images) != 1:
            raise ValueError(
                f"{where} must have one column of images; its columns are "
                f"{', '.join(f'{name} ({kind.dtype})' for name, kind in dataset.features.items())}"
            )
        self.where, self.column = where, images[0]
        self.labels, self.classes = _labels(dataset)
        self.dataset = dataset.select_columns(images).cast_column(self.column, Image(decode=False))

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, i: int) -> bytes:
        cell = self.dataset[i][self.column] or {}
        if cell.get("bytes") is not None:
            return cell["bytes"]
        if not cell.get("path"):
            raise BadImage(f"{self.name(i)} is empty")
        try:
            return Path(cell["path"]).read_bytes()
        except OSError as error:
            raise BadImage(f"{self.name(i)} cannot be read: {error.strerror}") from None

    def name(self, i: int) -> str:
        return f"row {i} of {self.where}"

    def fingerprint(self) -> str:
        first, last = (digest(self.read(i)) for i in (0, len(self) - 1))
        return digest(len(self), first, last, self.labels, self.classes)


def _labels(dataset) -> tuple[np.ndarray | None, tuple[str, ...]]:  # int64 [n]
    """Labels and the names of their classes, where a column has them."""
    from datasets import ClassLabel

    kinds = dataset.features
    named = [name for name, kind in kinds.items() if isinstance(kind, ClassLabel)]
    known = [name for name in LABELS if name in kinds]
    plain = [name for name in known if kinds[name].dtype.startswith("int")]
    if label := next(iter(named + plain), None):
        values = dataset.data.column(label).to_numpy() if dataset._indices is None else None
        values = np.array(dataset[label]) if values is None else values
        labels = np.nan_to_num(values.astype(np.float64), nan=-1).astype(np.int64)
        return labels, tuple(kinds[label].names) if label in named else ()
    words = [name for name in known if kinds[name].dtype in ("string", "large_string")]
    if not words:
        return None, ()
    texts = dataset[words[0]]
    classes = tuple(sorted({text for text in texts if text}))
    numbers = {text: i for i, text in enumerate(classes)}
    return np.array([numbers.get(text, -1) for text in texts], dtype=np.int64), classes


def read_table(root: Path) -> dict[str, Source]:
    """A saved dataset, or parquet or arrow files, as `{"train": ..., "test": ...}`.

    Raises:
        ImportError: `datasets` is not installed.
        ValueError: It cannot be read, or has no column of images.
    """
    try:
        import datasets
    except ImportError:
        raise ImportError(f"{str(root)!r} needs datasets: pip install datasets") from None
    where = repr(str(root))
    try:
        found = _load(datasets, root)
    except (ValueError, OSError, RuntimeError, KeyError, TypeError) as error:
        told = " ".join(str(error).split())
        raise ValueError(f"{where} is no readable dataset: {told[:300]}") from error
    if isinstance(found, datasets.Dataset):
        return {"train": Table(found, where)}
    if training(found) is None and len(found) == 1:
        return {"train": Table(*found.values(), where)}
    return choose({name: Table(dataset, f"{name} of {where}") for name, dataset in found.items()})


def _load(datasets, root: Path):
    if any((root / name).exists() for name in SAVED):
        return datasets.load_from_disk(str(root))
    if root.is_file():
        files, kind = {"": [root]}, KINDS[root.suffix]
    else:
        suffix = next(suffix for suffix in KINDS if next(root.rglob(f"*{suffix}"), None))
        files, kind = by_split(root, suffix), KINDS[suffix]
    if training(files) is None:  # no word of splits, or of the held-out ones alone
        files = {"train": sorted(path for paths in files.values() for path in paths)}
    named = {name: [str(path) for path in paths] for name, paths in files.items() if name}
    return datasets.load_dataset(kind, data_files=named)
