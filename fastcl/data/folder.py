"""Folders of image files of any nesting."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from .decoding import BadImage
from .source import Names, Source, choose, digest, held_out, training

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff",
    ".ppm", ".pgm",
)  # fmt: skip
TOLD_EVERY = 20_000  # files

Tell = Callable[[str], None]
Found = tuple[str, int]  # path below the folder, bytes


def hidden(name: str) -> bool:
    """What no person put there: dot files, and what a Mac leaves in its archives."""
    return name.startswith(".") or name == "__MACOSX"


def is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


class Folder:
    """Image files below a folder; the first subfolder on the way is the class.

    Args:
        root: The folder.
        tell: Called with a line now and then while it is listed.

    Raises:
        ValueError: No image, or images beside subfolders with images.
    """

    def __init__(self, root: Path, tell: Tell = lambda text: None) -> None:
        self.root = str(root)
        found = []
        for entry in _walk(self.root, "", ()):
            found.append(entry)
            if len(found) % TOLD_EVERY == 0:
                tell(f"{len(found):,} images found below {self.root}")
        flat = sum(os.sep not in name for name, _ in found)
        if not found:
            raise ValueError(f"{self.root!r} holds no image: expected files {', '.join(SUFFIXES)}")
        if 0 < flat < len(found):
            folders = {name.split(os.sep)[0] for name, _ in found if os.sep in name}
            raise ValueError(
                f"{self.root!r} must hold images or one subfolder per class, not both: found "
                f"{flat} images beside {len(folders)} subfolders"
            )
        self.names = Names(name for name, _ in found)
        self.sizes = np.array([size for _, size in found], dtype=np.int64)
        self.labels, self.classes = None, ()
        if not flat:
            of_each = [name.split(os.sep, 1)[0] for name, _ in found]
            self.classes = tuple(sorted(set(of_each)))
            numbers = {name: i for i, name in enumerate(self.classes)}
            self.labels = np.array([numbers[name] for name in of_each], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, i: int) -> bytes:
        try:
            with open(os.path.join(self.root, self.names[i]), "rb") as file:
                return file.read()
        except OSError as error:
            raise BadImage(f"{self.name(i)} cannot be read: {error.strerror}") from None

    def ends(self, i: int, count: int) -> tuple[bytes, bytes, int]:
        """The first and the last bytes of a file, and how many it has."""
        size = int(self.sizes[i])
        try:
            # Without a file object, of which every run on a folder would begin with very many.
            file = os.open(os.path.join(self.root, self.names[i]), os.O_RDONLY)
            try:
                return os.pread(file, count, 0), os.pread(file, count, max(0, size - count)), size
            finally:
                os.close(file)
        except OSError as error:
            raise BadImage(f"{self.name(i)} cannot be read: {error.strerror}") from None

    def name(self, i: int) -> str:
        return repr(os.path.join(self.root, self.names[i]))

    def fingerprint(self) -> str:
        return digest(self.names.block, self.names.offsets, self.sizes)


def _walk(root: str, below: str, above: tuple[tuple[int, int], ...]) -> Iterator[Found]:
    """Images in the order of their names. Links are followed, but not into a folder that one is
    in already."""
    here = os.stat(os.path.join(root, below))
    mark = here.st_dev, here.st_ino
    if mark in above:
        return
    with os.scandir(os.path.join(root, below)) as entries:
        kept = sorted((e for e in entries if not hidden(e.name)), key=lambda e: e.name)
    for entry in kept:
        name = os.path.join(below, entry.name)
        if _is_folder(entry):
            yield from _walk(root, name, (*above, mark))
        elif is_image(entry.name) and (size := _size(entry)) is not None:
            yield name, size


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _size(entry: os.DirEntry) -> int | None:
    """Of a file; zero for a link to nothing, which is a bad image like another. None for what is no
    file, as a pipe, of which reading might never end."""
    try:
        found = entry.stat()
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def read_folder(root: Path, tell: Tell = lambda text: None) -> dict[str, Source]:
    """A folder as `{"train": ..., "test": ...}`; without `test` where it comes in one piece.

    `train` beside a folder called test, val, valid, validation, dev or eval, in any case, is split
    that way; several held-out folders give the first with labels. Folders without images are none.
    """
    folders = [e.name for e in os.scandir(root) if _is_folder(e) and not hidden(e.name)]
    folders = [name for name in folders if next(_walk(str(root / name), "", ()), None)]
    train, others = training(folders), held_out(folders)
    if train is None or (not others and len(folders) > 1):
        return {"train": Folder(root, tell)}
    found = {name: Folder(root / name, tell) for name in (train, *others)}
    return choose(found)
