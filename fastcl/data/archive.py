"""Arrays of an .npz file, which may be damaged."""

from pathlib import Path

import numpy as np


def entry(path: Path, archive, name: str) -> np.ndarray:
    """One array of an open archive.

    Raises:
        ValueError: It cannot be read; the message names it and the file.
    """
    try:
        return archive[name]
    except Exception as error:  # on damaged bytes NumPy raises whatever it trips over
        raise ValueError(f"{str(path)!r} is damaged: {name}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """In one line."""
    return " ".join(str(error).split()) or type(error).__name__
