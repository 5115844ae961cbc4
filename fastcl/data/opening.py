"""What a path holds, as sources."""

import os
from pathlib import Path

from .arrays import read_npy, read_npz
from .folder import Tell, hidden, is_image, read_folder
from .shards import read_shards
from .source import Source
from .table import KINDS, SAVED, read_table


def open_images(path: str | Path, tell: Tell = lambda text: None) -> dict[str, Source]:
    """Images from where they are: lists in memory, pixels on the disk.

    Args:
        path: A folder of image files of any nesting, with a subfolder per class or flat without
            labels; tar shards in webdataset's layout, one or a folder of them; a dataset of Hugging
            Face on disk, or parquet or arrow files with a column of images; an `.npz` or `.npy` of
            pixels, see `fastcl.pretrain.data.load_images`.
        tell: Called with a line now and then while a long list is read.

    Returns:
        Sources by their splits, "train", and "test" where the data come with a held-out split.

    Raises:
        FileNotFoundError: No such path.
        ValueError: It holds none of the above; the message names what was found.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"data must be 'digits', or a folder of images, tar shards, a Hugging Face dataset, an "
            f".npz or an .npy; nothing is at {str(path)!r}"
        )
    if not (path.is_file() or path.is_dir()):
        raise ValueError(f"data must be a file or a folder, {str(path)!r} is neither")
    if path.is_file() and path.suffix not in (".tar", *KINDS):
        return read_npy(path) if path.suffix == ".npy" else read_npz(path)
    first = _first(path) if path.is_dir() else path.name
    if first.endswith(".tar"):
        return read_shards(path, tell)
    if first in SAVED or first.endswith(tuple(KINDS)):
        return read_table(path)
    return read_folder(path, tell)


def _first(root: Path) -> str:
    """The first file that tells what a folder is; a whole listing could take minutes."""
    for _, folders, files in os.walk(root, followlinks=False):
        folders[:] = sorted(name for name in folders if not hidden(name))
        for name in sorted(name for name in files if not hidden(name)):
            if name in SAVED or name.endswith((".tar", *KINDS)) or is_image(name):
                return name
    return ""
