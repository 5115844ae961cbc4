"""How a run builds each method around a backbone, and what it hands to it."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import nn

from .. import methods, pretext
from ..views import DINO, MultiCrop
from . import inputs


class Entry(NamedTuple):
    """A method of `fastcl pretrain`."""

    build: Callable[..., nn.Module]  # (backbone, *, width, **options of the recipe)
    inputs: Callable[..., tuple] = inputs.two_views  # (views, batch), the arguments of its forward
    views: int = 2  # of full size, with colours and crops; 0 where it takes light ones
    preset: type[MultiCrop] | None = None  # whose recipes they have


def _deep_info_max(backbone: nn.Module, *, width: int, **options) -> nn.Module:
    if not hasattr(backbone, "local"):
        raise ValueError("dim needs local features: backbone small, resnet18 or resnet50")
    local, channels = backbone.local
    return methods.DeepInfoMax(backbone, width=width, local=local, channels=channels, **options)


def _cmc(backbone: nn.Module, *, width: int, **options) -> nn.Module:
    return methods.CMC(backbone.parts, width=width // 2, **options)


def _colorization(backbone: nn.Module, *, width: int) -> nn.Module:
    return pretext.Colorization(backbone.network, width=width)


def _split_brain(backbone: nn.Module, *, width: int) -> nn.Module:
    return pretext.SplitBrain(*backbone.parts, width=width // 2)


# In the order of the papers' families: instances, predictions and views, clusters, no negatives.
ENTRIES = {
    "instdisc": Entry(methods.InstDisc, inputs.view_and_index, views=1),
    "invaspread": Entry(methods.InvaSpread),
    "moco": Entry(methods.MoCo),
    "mocov1": Entry(partial(methods.MoCo, version=1)),
    "mocov3": Entry(methods.MoCoV3),
    "simclr": Entry(methods.SimCLR),
    "simclrv2": Entry(partial(methods.SimCLR, version=2)),
    "nnclr": Entry(methods.NNCLR),
    "flatnce": Entry(partial(methods.SimCLR, loss="flat_nce")),
    "dcl": Entry(partial(methods.SimCLR, loss="dcl")),
    "dclw": Entry(partial(methods.SimCLR, loss="dclw")),
    "supcon": Entry(partial(methods.SimCLR, loss="sup_con"), inputs.two_views_and_labels),
    "cpc": Entry(methods.ImageCPC, inputs.one_view, views=1),
    "cmc": Entry(_cmc, inputs.lab_views_and_index, views=1),
    "dim": Entry(_deep_info_max, inputs.one_view, views=1),
    "swav": Entry(methods.SwAV, inputs.crops),
    "dino": Entry(methods.DINO, inputs.crops, preset=DINO),
    "byol": Entry(methods.BYOL),
    "simsiam": Entry(methods.SimSiam),
    "barlowtwins": Entry(methods.BarlowTwins),
    "vicreg": Entry(methods.VICReg),
    "rotation": Entry(pretext.Rotation, inputs.light_view, views=0),
    "jigsaw": Entry(pretext.Jigsaw, inputs.light_view, views=0),
    "relative_patch": Entry(pretext.RelativePatch, inputs.light_view, views=0),
    "colorization": Entry(_colorization, inputs.light_view_in_color, views=0),
    "split_brain": Entry(_split_brain, inputs.light_view_in_color, views=0),
    "inpainting": Entry(pretext.Inpainting, inputs.light_view, views=0),
}
