"""Labels as they are given, as numbers without gaps."""

import numpy as np
import torch
from torch import Tensor


def label_vector(split: str, labels: np.ndarray) -> np.ndarray:
    """int64 `[n]`; a column `[n, 1]`, as MedMNIST has it, is one too."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise ValueError(
            f"labels must be a vector of integers, got {labels.dtype} of shape "
            f"{list(labels.shape)} for {split}"
        )
    low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
    if low < -1 or high >= 2**63:
        raise ValueError(
            f"labels must be integers from 0, or -1 for an image without one, got "
            f"{low if low < -1 else high} for {split}"
        )
    return labels.astype(np.int64)


def named_classes(
    labels: list[np.ndarray | None], names: tuple[str, ...]
) -> tuple[list[Tensor | None], tuple[str, ...]]:
    """Labels as tensors with a name for each. Labels without names become numbers without gaps,
    each named by what it was: their range says nothing of how many there are."""
    given = [x for x in labels if x is not None]
    values = np.unique(np.concatenate(given)) if given else np.empty(0, dtype=np.int64)
    values = values[values >= 0]
    if names:
        if len(values) and values[-1] >= len(names):
            raise ValueError(
                f"class_names must name every label: there are {len(names)} names, and the "
                f"highest label is {values[-1]}"
            )
        return [None if x is None else torch.from_numpy(x) for x in labels], names
    dense = [
        None if x is None
        else torch.from_numpy(np.where(x < 0, -1, np.searchsorted(values, x)).astype(np.int64))
        for x in labels
    ]  # fmt: skip
    return dense, tuple(str(value) for value in values)
