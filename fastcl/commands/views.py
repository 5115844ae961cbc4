"""`fastcl views`: a contact sheet of the user's own images under a preset."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .. import _check, views
from ..data import Source, decode, open_images, read_image
from ..data.folder import is_image
from ..pretrain.data import read_digits

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
    """Training images `[c, h, w]` in their own sizes, drawn by a seed; or one image.

    Raises:
        FileNotFoundError, ValueError: Nothing there, no image among it, or one that is damaged.
    """
    if is_image(data) and Path(data).is_file():
        return [read_image(data)]
    source = (read_digits() if data == "digits" else open_images(data))["train"]
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))
    return [_read(source, i) for i in order[:count].tolist()]


def _read(source: Source, i: int) -> Tensor:
    found = source.read(i)
    return decode(found, source.name(i)) if isinstance(found, bytes) else torch.from_numpy(found)


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
