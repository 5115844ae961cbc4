"""Tar shards in webdataset's layout: the files of one sample follow each other and share a name up
to its first dot. Images are read in place; nothing is unpacked."""

import json
import os
import re
import tarfile
import threading
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from .._files import cache_folder, replace_file
from .decoding import BadImage
from .folder import Tell, hidden, is_image
from .source import Names, Source, choose, digest, held_out, training

INDEX = 1  # of the cached form
MANIFEST = "fastcl.json"  # beside the shards of `pack`


class Shards:
    """The images of some shards, in their order. A sample without an image is passed over.

    Labels are the `.cls` of a sample, a number or the name of a class, or `label` in its `.json`.

    Args:
        paths: Of the tar files.
        tell: Called with a line for every shard that is read for its index.
        classes: Names of the labels where those are numbers.

    Raises:
        ValueError: A file that is no tar, is cut off or compressed, or no image in all of them.
    """

    def __init__(
        self,
        paths: list[Path],
        tell: Tell = lambda text: None,
        classes: tuple[str, ...] = (),
    ) -> None:
        self.paths = [str(path) for path in paths]
        self._files: dict[int, int] = {}
        self._lock = threading.Lock()
        parts = [_index(path, tell) for path in paths]
        self.shard = np.repeat(np.arange(len(parts)), [len(part["offset"]) for part in parts])
        self.offset, self.size = (
            np.concatenate([p[name] for p in parts]) for name in ("offset", "size")
        )
        if not len(self.shard):
            raise ValueError(f"{self.paths[0]!r} and its like hold no image")
        self.names = Names(name for part in parts for name in part["name"].tolist())
        self.labels, found = _numbered([t for p in parts for t in p["label"].tolist()])
        self.classes = found or (classes if self.labels is not None else ())

    def __len__(self) -> int:
        return len(self.shard)

    def read(self, i: int) -> bytes:
        return self._bytes(i, 0, int(self.size[i]))

    def ends(self, i: int, count: int) -> tuple[bytes, bytes, int]:
        """The first and the last bytes of an image, and how many it has."""
        size = int(self.size[i])
        count = min(count, size)
        return self._bytes(i, 0, count), self._bytes(i, size - count, count), size

    def _bytes(self, i: int, start: int, size: int) -> bytes:
        try:
            data = os.pread(self._file(int(self.shard[i])), size, int(self.offset[i]) + start)
        except OSError as error:
            raise BadImage(f"{self.name(i)} cannot be read: {error.strerror}") from None
        if len(data) != size:
            raise BadImage(f"{self.name(i)} cannot be read: its shard has become shorter")
        return data

    def _file(self, shard: int) -> int:
        with self._lock:
            if shard not in self._files:
                self._files[shard] = os.open(self.paths[shard], os.O_RDONLY)
            return self._files[shard]

    def __del__(self) -> None:
        for file in getattr(self, "_files", {}).values():
            os.close(file)

    def name(self, i: int) -> str:
        return repr(f"{self.paths[self.shard[i]]}:{self.names[i]}")

    def fingerprint(self) -> str:
        return digest(self.names.block, self.names.offsets, self.offset, self.size, self.labels)


def _numbered(labels: list[str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Labels as they are written, as numbers: names of classes where they are no numbers."""
    known = sorted({label for label in labels if label})
    if not known:
        return None, ()
    if all(re.fullmatch(r"\d{1,18}", label) for label in known):
        return np.array([int(label) if label else -1 for label in labels], dtype=np.int64), ()
    numbers = {name: i for i, name in enumerate(known)} | {"": -1}
    return np.array([numbers[label] for label in labels], dtype=np.int64), tuple(known)


def sample_count(path: Path) -> int:
    """Images of a shard; it is read for that."""
    return len(_read_index(path, path.stat().st_size)["offset"])


def _index(path: Path, tell: Tell) -> dict[str, np.ndarray]:
    """Where the images of a shard are; kept in the user's cache, as it takes a pass over the
    file."""
    stat = path.stat()
    key = digest(INDEX, str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    cached = cache_folder() / f"shard-{key}.npz"
    try:
        with np.load(cached, allow_pickle=False) as found:
            return {name: found[name] for name in ("offset", "size", "name", "label")}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        pass
    tell(f"reading the index of {path}")
    found = _read_index(path, stat.st_size)
    cached.parent.mkdir(parents=True, exist_ok=True)
    replace_file(cached, lambda file: np.savez(file, **found))
    return found


def _read_index(path: Path, size: int) -> dict[str, np.ndarray]:
    rows: list[tuple[int, int, str, str]] = []
    sample, image, label = None, None, ""
    with open(path, "rb") as raw:
        for member in _members(path, raw):
            if member.offset_data + member.size > size:
                raise ValueError(f"{str(path)!r} is cut off in the middle of {member.name!r}")
            folder, _, base = member.name.rpartition("/")
            if not member.isfile() or hidden(base):
                continue
            stem, _, kind = base.partition(".")
            if (folder, stem) != sample:
                rows += [(*image, label)] if image else []
                sample, image, label = (folder, stem), None, ""
            if image is None and is_image(f".{kind}"):
                image = member.offset_data, member.size, member.name
            elif kind.lower() in ("cls", "json"):
                raw.seek(member.offset_data)
                label = _label(kind.lower(), raw.read(member.size)) or label
    rows += [(*image, label)] if image else []
    offset, sizes, names, labels = zip(*rows, strict=True) if rows else ((), (), (), ())
    texts = {"name": names, "label": labels}
    return {
        "offset": np.array(offset, dtype=np.int64),
        "size": np.array(sizes, dtype=np.int64),
    } | {key: np.array(value, dtype=str) for key, value in texts.items()}


def _members(path: Path, raw):  # raw: the open file
    """Read by a handle of its own, so that `raw` may be moved in between."""
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                yield member
                archive.members = []  # it would keep them all
    except (tarfile.TarError, EOFError, OSError) as error:
        hint = ""
        raw.seek(0)
        if raw.read(2) in (b"\x1f\x8b", b"BZ", b"\xfd7", b"\x28\xb5"):
            hint = ": it is compressed, and images in it cannot be found without unpacking it"
        raise ValueError(f"{str(path)!r} is no readable tar file ({error}){hint}") from None


def _label(kind: str, data: bytes) -> str:
    """Empty where there is none."""
    text = data.decode(errors="replace").strip()
    if kind == "json":
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return ""
        value = found.get("label") if isinstance(found, dict) else None
        return str(value) if isinstance(value, str | int) and value != -1 else ""
    return "" if text == "-1" else text


def split_of(name: str) -> str | None:
    """Which split the name of a file speaks of: `imagenet-train-000012.tar`, `val_3.parquet`."""
    words = re.split(r"[^A-Za-z]+", name)
    return training(words) or next(iter(held_out(words)), None)


def by_split(root: Path, suffix: str) -> dict[str, list[Path]]:
    """The files below a folder that end so, by the split that a folder or the file is called by;
    "" where none is."""
    found: dict[str, list[Path]] = {}
    for path in sorted(root.rglob(f"*{suffix}")):
        below = path.relative_to(root).parts
        if any(hidden(part) for part in below) or not path.is_file():
            continue
        split = next(filter(None, (split_of(part) for part in below)), None)
        found.setdefault((split or "").lower(), []).append(path)
    return found


def read_shards(root: Path, tell: Tell = lambda text: None) -> dict[str, Source]:
    """A tar file, or a folder of them, as `{"train": ..., "test": ...}`."""
    if root.is_file():
        return {"train": Shards([root], tell, _named(root.parent))}
    files, classes = by_split(root, ".tar"), _named(root)
    if training(files) is None:
        paths = sorted(path for paths in files.values() for path in paths)
        return {"train": Shards(paths, tell, classes)}
    return choose({name: Shards(paths, tell, classes) for name, paths in files.items() if name})


def _named(root: Path) -> tuple[str, ...]:
    """The names of the classes, where `pack` has left them."""
    try:
        return tuple(json.loads((root / MANIFEST).read_text())["classes"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()
