"""Random views of images for any training loop: modules with the papers' numbers.

`draw` makes the random numbers, `functional.random_views` the views; the modules are both in one.
"""

from ..functional.packed import Packed, pack
from .decoding import decode, unpack
from .digits import Digits
from .draw import draw
from .module import IMAGENET_DEVIATION, IMAGENET_MEAN, Views
from .multi_crop import DINO, MultiCrop, SwAV
from .presets import BYOL, Evaluation, MoCoV1, MoCoV2, MoCoV3, SimCLR, SimSiam, Supervised
from .recipe import Recipe

__all__ = [
    "BYOL",
    "DINO",
    "Digits",
    "Evaluation",
    "IMAGENET_DEVIATION",
    "IMAGENET_MEAN",
    "MoCoV1",
    "MoCoV2",
    "MoCoV3",
    "MultiCrop",
    "Packed",
    "Recipe",
    "SimCLR",
    "SimSiam",
    "Supervised",
    "SwAV",
    "Views",
    "decode",
    "draw",
    "pack",
    "unpack",
]
