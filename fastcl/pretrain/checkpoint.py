"""All that a run needs to go on to the same numbers, in one file."""

import hashlib
import io
import os
import pickle
import random
import re
import zlib
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch

from .._files import replace_file

NAME = "checkpoint.pt"
FORMAT = 1
DIGEST = b"sha256:"


def save_checkpoint(path: Path, state: dict) -> None:
    """Replace the checkpoint; killed at any moment, the previous one stays readable."""
    for left in path.parent.glob(f"{path.name}.*.tmp"):
        if not _is_running(left.name.split(".")[-2]):  # of a process that was killed
            left.unlink(missing_ok=True)
    replace_file(path, lambda file: _write({"format": FORMAT} | state, file))


def _write(state: dict, file: BinaryIO) -> None:
    """A zip archive by torch with the digest of its bytes as its comment, which `torch.load` passes
    over. The archive's own checksums leave out its directory."""
    try:
        torch.save(state, file)
    except RuntimeError as error:  # torch's words where the disk is full speak of its containers
        raise error.__context__ if isinstance(error.__context__, OSError) else error from None
    file.flush()
    file.seek(0)
    comment = DIGEST + hashlib.file_digest(file, "sha256").hexdigest().encode()
    file.seek(-2, os.SEEK_END)  # the length of the comment
    file.write(len(comment).to_bytes(2, "little") + comment)


def _check(data: bytes) -> None:
    """Raise BadZipFile where the bytes are not those that were written."""
    length = len(DIGEST) + 64
    archive, comment = data[:-length], data[-length:]
    if comment.startswith(DIGEST):
        archive = archive[:-2] + bytes(2)  # no comment yet
        if comment != DIGEST + hashlib.sha256(archive).hexdigest().encode():
            raise BadZipFile("its bytes do not have their checksum")
        return
    with ZipFile(io.BytesIO(data)) as other:  # by torch.save alone
        damaged = other.testzip()
    if damaged is not None:
        raise BadZipFile(f"{damaged} does not have its checksum")


def _is_running(process: str) -> bool:
    if not process.isdigit():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def load_checkpoint(path: Path) -> dict:
    """Read a checkpoint to the CPU, as data only: nothing in it is run.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a checkpoint of this program, or one whose bytes have changed since.
    """
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {str(path)!r}")
    try:
        data = path.read_bytes()
        _check(data)
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        found = state.get("format")
    except pickle.UnpicklingError as error:
        raise ValueError(f"{str(path)!r} is no readable checkpoint: {_refused(error)}") from None
    except (RuntimeError, EOFError, OSError, BadZipFile, AttributeError, KeyError, ValueError,
            TypeError, NotImplementedError, zlib.error) as error:  # fmt: skip
        raise ValueError(f"{str(path)!r} is no readable checkpoint: {error}") from error
    if found != FORMAT:
        raise ValueError(f"{str(path)!r} must have format {FORMAT}, got {found!r}")
    return state


def _refused(error: pickle.UnpicklingError) -> str:
    """What torch found that is no data; its own advice is to run it."""
    name = re.search(r"GLOBAL (\S+)", str(error))
    what = f" ({name.group(1)})" if name else ""
    return f"it holds code{what}, and only data are read; do not open files you do not trust"


def random_state(device: torch.device) -> dict:
    """Where the generators of Python, NumPy, PyTorch and the device are."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_random_state(state: dict, device: torch.device) -> None:
    """Put the generators back."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
