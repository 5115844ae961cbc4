"""How a run builds each method around a backbone, and what it hands to it."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import nn

from .. import methods, pretext
from ..views import DINO, MultiCrop, Recipe
from . import inputs

# What these methods tell apart is in the colours and places of one view, which their papers do not
# jitter: other colours than the bank saw, or none, are no view of the same image to CMC.
CMC_VIEW = Recipe(scale=(0.2, 1.0), mirror=0.5)  # the authors' code
# Section 3.2: 256 of 300 pixels and a mirror. There all is grey, and features know no colour.
CPC_VIEW = Recipe(scale=((256 / 300) ** 2, 1.0), mirror=0.5, grey=0.25)
DIM_VIEW = Recipe(scale=(1.0, 1.0), ratio=(1.0, 1.0), mirror=0.5)  # the whole image


class Entry(NamedTuple):
    """A method of `fastcl pretrain`."""

    build: Callable[..., nn.Module]  # (backbone, *, width, **options of the recipe)
    inputs: Callable[..., tuple] = inputs.two_views  # (views, batch), the arguments of its forward
    views: int = 2  # of full size, with colours and crops; 0 where it takes light ones
    preset: type[MultiCrop] | None = None  # whose recipes they have
    recipes: tuple[Recipe, ...] | None = None  # of photographs, where the full ones have others


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
    "cpc": Entry(methods.ImageCPC, inputs.one_view, views=1, recipes=(CPC_VIEW,)),
    "cmc": Entry(_cmc, inputs.lab_views_and_index, views=1, recipes=(CMC_VIEW,)),
    "dim": Entry(_deep_info_max, inputs.one_view, views=1, recipes=(DIM_VIEW,)),
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
