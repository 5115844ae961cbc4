"""Operations, forms and presets of the views alone: cases of `python -m benchmarks.views`."""

from collections.abc import Callable

import torch

import fastcl.functional as F
from fastcl import views
from fastcl.functional.packed import Packed

SIDE, SIZE = 335, 224
COLUMNS = {"mirror": 4, "brightness": 5, "contrast": 6, "saturation": 7, "hue": 8, "grey": 10,
           "sigma": 11, "threshold": 12}  # fmt: skip
IDENTITY = (0, 0, SIDE, SIDE, 0, 1, 1, 1, 0, 0, 0, 0, 2)  # nothing but resized and normalised
FOUR = {"brightness": 1.2, "contrast": 1.2, "saturation": 1.2, "hue": 0.1}
OPERATIONS = {
    "resized and normalised": {}, "and mirrored": {"mirror": 1},
    **{f"and {name}": {name: value} for name, value in FOUR.items()},
    "and all four colours": FOUR, "and grey": {"grey": 1}, "and blurred by 1": {"sigma": 1},
    "and blurred by 2": {"sigma": 2}, "and solarised": {"threshold": 0.5},
}  # fmt: skip
LAST = {"memory_format": torch.channels_last}
FORMS = {
    "channels last": LAST, "bfloat16": {"dtype": torch.bfloat16}, "float16": {"dtype": torch.half},
    "channels last, bfloat16": {"dtype": torch.bfloat16, **LAST},
}  # fmt: skip
PRESETS = ("SimCLR", "MoCoV1", "MoCoV2", "MoCoV3", "BYOL", "SimSiam", "Supervised")


def _call(images: torch.Tensor, values: dict[str, float], **form) -> Callable[[], object]:
    parameters = torch.tensor(IDENTITY, dtype=torch.float32).repeat(len(images), 1, 1)
    for name, value in values.items():
        parameters[..., COLUMNS[name]] = value
    normal = {"mean": (0.485, 0.456, 0.406), "deviation": (0.229, 0.224, 0.225)}
    out = F.random_views(images, parameters, size=SIZE, **normal, **form)
    return lambda: F.random_views(images, parameters, size=SIZE, **normal, **form, out=out)


def operations(count: int) -> dict[str, Callable[[], object]]:
    """A view of 224 out of all of 335 x 335 pixels, so many in a call."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    return {name: _call(images, values) for name, values in OPERATIONS.items()} | {
        f"and {name}": _call(images, {}, **form) for name, form in FORMS.items()
    }


def presets(record: Packed) -> dict[str, Callable[[], object]]:
    """All views of an image, drawing included."""
    made = {name: getattr(views, name)(SIZE) for name in PRESETS}
    made |= {"SwAV": views.SwAV(), "DINO": views.DINO()}
    return {name: lambda make=make: make(record) for name, make in made.items()}
