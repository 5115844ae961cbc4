"""`fastcl views`: a contact sheet of the user's own images under a preset."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .. import _check, views

PRESETS = {
    "simclr": views.SimCLR,
    "moco-v1": views.MoCoV1,
    "moco-v2": views.MoCoV2,
    "moco-v3": views.MoCoV3,
    "byol": views.BYOL,
    "simsiam": views.SimSiam,
    "swav": views.SwAV,
    "dino": views.DINO,
    "supervised": views.Supervised,
    "evaluation": views.Evaluation,
}
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


def preset_of(name: str, size: int) -> nn.Module:
    """A module whose views are pictures: nothing is subtracted or divided."""
    if name == "digits":
        return views.Digits()
    preset = PRESETS[name]
    if issubclass(preset, views.MultiCrop):
        small = max(1, round(size * 3 / 7))
        return preset(size, small, mean=None, deviation=None)
    return preset(size, mean=None, deviation=None)


def some_images(data: str, count: int, seed: int) -> list[Tensor]:
    """Images `[c, h, w]` drawn by a seed: files as they are, of arrays the training images.

    Raises:
        FileNotFoundError, ValueError: Nothing there, no image among it, or one that is damaged.
    """
    generator = torch.Generator().manual_seed(seed)
    path = Path(data).expanduser()
    if path.is_dir() or path.suffix.lower() in SUFFIXES:
        files = [path] if path.is_file() else sorted(
            file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES
        )  # fmt: skip
        if not files:
            raise ValueError(f"{data!r} holds no image: expected files {', '.join(SUFFIXES)}")
        chosen = torch.randperm(len(files), generator=generator)[:count].tolist()
        return views.unpack(views.decode([files[i] for i in chosen]))
    from ..pretrain.data import load_images

    images = load_images(data).train
    return list(images[torch.randperm(len(images), generator=generator)[:count]])


def write_sheet(data: str, *, preset: str, size: int, count: int, seed: int, out: Path) -> Path:
    """Write the sheet; where it is.

    Raises:
        FileNotFoundError, ValueError: As `some_images`, or a number out of range.
    """
    from PIL import Image

    from ..views.sheet import contact_sheet

    for name, value in (("size", size), ("count", count)):
        _check.count(name, value)
    images = some_images(data, count, seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sheet = contact_sheet(preset_of(preset, size), images, size)
    Image.fromarray(np.ascontiguousarray(sheet.permute(1, 2, 0))).save(out)
    return out
