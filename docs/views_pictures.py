"""Makes the pictures of docs/views.md: `python docs/views_pictures.py [PHOTOGRAPH]`.

By default of the portrait that comes with matplotlib: Grace Hopper, photographed by James S. Davis
for the US Navy, in the public domain.
"""

import itertools
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import fastcl.functional as F
from fastcl.commands.views import PRESETS
from fastcl.data import read_image
from fastcl.views import MultiCrop
from fastcl.views.sheet import contact_sheet

FOLDER = Path(__file__).parent / "views"
SIDE, SMALL, COLUMNS = 96, 41, 4  # from 96 pixels on views are blurred
COLOURS = 128  # in a palette: a picture takes a third of what it would
# Columns of the record of parameters, and what the pictures of an operation show in turn.
OPERATIONS = {
    "crop": [{0: 0, 1: 90, 2: 260, 3: 340}, {0: 150, 1: 60, 2: 200, 3: 150}],
    "mirror": [{4: 1}],
    "brightness": [{5: 0.4}, {5: 0.7}, {5: 1.4}, {5: 1.8}],
    "contrast": [{6: 0.2}, {6: 0.6}, {6: 1.4}, {6: 1.8}],
    "saturation": [{7: 0.0}, {7: 0.5}, {7: 1.5}, {7: 1.8}],
    "hue": [{8: -0.2}, {8: -0.1}, {8: 0.1}, {8: 0.2}],
    "order": [{5: 1.6, 6: 0.4, 8: 0.1, 9: order} for order in (0, 6, 14, 21)],
    "grey": [{10: 1}],
    "blur": [{11: 0.5}, {11: 1.0}, {11: 2.0}],
    "solarise": [{12: 0.75}, {12: 0.5}, {12: 0.25}],
}


def operation(image: torch.Tensor, changes: list[dict[int, float]]) -> torch.Tensor:
    """The image as it is and after each change, side by side."""
    c, h, w = image.shape
    side = min(h, w)
    still = [(h - side) // 4, (w - side) // 2, side, side, 0, 1, 1, 1, 0, 0, 0, 0, 2]
    record = torch.tensor(still, dtype=torch.float32).repeat(1 + len(changes), 1)
    for row, change in zip(record[1:], changes, strict=True):
        for column, value in change.items():
            row[column] = value
    views = F.random_views(image[None], record[None], size=SIDE, kernel=17)
    gap = torch.ones(c, SIDE, 4)
    pieces = itertools.chain.from_iterable((view[0], gap) for view in views)
    return (torch.cat(list(pieces)[:-1], dim=2).clamp(0, 1) * 255).round().to(torch.uint8)


def write(name: str, pixels: torch.Tensor) -> None:
    image = Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0)))
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(FOLDER / f"{name}.png", optimize=True)


def photograph() -> Path:
    from matplotlib.cbook import get_sample_data

    return Path(get_sample_data("grace_hopper.jpg", asfileobj=False))


def main() -> None:
    image = read_image(Path(sys.argv[1]) if len(sys.argv) > 1 else photograph())
    FOLDER.mkdir(exist_ok=True)
    for name, changes in OPERATIONS.items():
        write(name, operation(image, changes))
    for name, preset in PRESETS.items():
        torch.manual_seed(1)
        sides = (SIDE, SMALL) if issubclass(preset, MultiCrop) else (SIDE,)
        module = preset(*sides, mean=None, deviation=None)
        write(name, contact_sheet(module, COLUMNS * [image], SIDE))


if __name__ == "__main__":
    main()
