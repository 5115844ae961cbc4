"""Writes random_views.npz beside it: views by torchvision, for machines without it.

``python tests/golden/random_views.py`` with torchvision installed.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torchvision

sys.path.insert(0, str(Path(__file__).parents[1]))
import view_cases as cases

SIZES = ((23, 31, 16, 7), (9, 40, 17, 23), (5, 4, 12, 5))  # height, width, of the view, taps


def main() -> None:
    g = torch.Generator().manual_seed(0)
    arrays = {"torchvision": np.array(torchvision.__version__)}
    for number, (h, w, size, kernel) in enumerate(SIZES):
        x = cases.image(3, h, w, torch.uint8, seed=number)
        records = [cases.record(h, w, **chosen) for chosen in cases.OPERATIONS.values()]
        records += [cases.drawn(h, w, g) for _ in range(12)]
        views = [cases.torchvision_view(x / 255, r, size, kernel) for r in records]
        arrays |= {
            f"{number}/image": x.numpy(),
            f"{number}/parameters": torch.stack(records).numpy(),
            f"{number}/views": torch.stack(views).numpy(),
            f"{number}/kernel": np.array(kernel),
        }
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **arrays)


if __name__ == "__main__":
    main()
