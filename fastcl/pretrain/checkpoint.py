"""All that a run needs to go on to the same numbers, in one file."""

import pickle
import random
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from .files import replace_file

NAME = "checkpoint.pt"
FORMAT = 1


def save_checkpoint(path: Path, state: dict) -> None:
    """Replace the checkpoint; killed at any moment, the previous one stays readable."""
    for left in path.parent.glob(f"{path.name}.*.tmp"):  # of a process that was killed
        left.unlink(missing_ok=True)
    replace_file(path, lambda file: torch.save({"format": FORMAT} | state, file))


def load_checkpoint(path: Path) -> dict:
    """Read a checkpoint to the CPU, as data only: nothing in it is run.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a checkpoint of this program.
    """
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {str(path)!r}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = state.get("format")
    except (RuntimeError, EOFError, OSError, BadZipFile, AttributeError, KeyError,
            pickle.UnpicklingError) as error:  # fmt: skip
        raise ValueError(f"{str(path)!r} is no readable checkpoint: {error}") from error
    if found != FORMAT:
        raise ValueError(f"{str(path)!r} must have format {FORMAT}, got {found!r}")
    return state


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
