"""Networks that map images to features: a small convnet, ResNets, and those of other libraries."""

import importlib

import torch
from torch import Tensor, nn

from .lab import LabPair, Lightness
from .resnet import resnet18, resnet50

# Below this side the ImageNet stem (stride 4 before the first block) leaves too few positions.
IMAGENET_STEM_FROM = 96

# What torchvision calls the last layer, depending on the family.
CLASSIFIERS = "fc", "classifier", "heads", "head"

# Vision transformers, by how timm and torchvision name them: patches of one size, one projection.
TRANSFORMERS = "vit_", "deit"

CHOICES = (
    "small, resnet18, resnet50, timm:NAME or torchvision:NAME, or lab: or lightness: before one"
)


class SmallConvNet(nn.Module):
    """Four 3x3 convolutions and a global average: for images of 8 to 32 pixels on a CPU.

    Args:
        channels: Of the images.
        width: Of the features.
    """

    def __init__(self, channels: int, width: int = 128) -> None:
        super().__init__()
        self.width = width
        sizes = [(channels, 32, 1), (32, 64, 2), (64, width, 1), (width, width, 2)]
        layers = []
        for c_in, c_out, stride in sizes:
            layers += [
                nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(c_out),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    @property
    def local(self) -> tuple[nn.Module, int]:
        """The layer whose output is a map of local features, and their number."""
        return self.layers[-6], self.width

    def maps(self, x: Tensor) -> Tensor:
        """What `forward` averages, `[b, width, h', w']`."""
        return self.layers[:-2](x)

    def forward(self, x: Tensor) -> Tensor:  # [b, channels, h, w] -> [b, width]
        return self.layers(x)


def stem_of(stem: str, size: int) -> str:
    """The stem that "auto" stands for at this size of images; another as it is.

    Raises:
        ValueError: Unknown stem.
    """
    if stem not in ("auto", "cifar", "imagenet"):
        raise ValueError(f"stem must be auto, cifar or imagenet, got {stem!r}")
    automatic = "imagenet" if size >= IMAGENET_STEM_FROM else "cifar"
    return automatic if stem == "auto" else stem


def is_transformer(name: str) -> bool:
    """Whether a backbone is a vision transformer."""
    return name.partition(":")[2].startswith(TRANSFORMERS)


def patch_side(network: nn.Module) -> int:
    """Pixels along the patches of a transformer of timm; 1 for other networks."""
    sides = getattr(getattr(network, "patch_embed", None), "patch_size", (1,))
    return int(sides[0])


def small_side(size: int, multiple: int = 1) -> int:
    """Side of small crops, 3/7 of the full views', in whole patches."""
    return max(1, round(size * 3 / 7 / multiple)) * multiple


def build_backbone(
    name: str, *, channels: int, size: int, stem: str = "auto", small_crops: bool = False
) -> tuple[nn.Module, int]:
    """The network of that name with random weights, and the width of its features.

    Args:
        name: small, resnet18, resnet50, timm:NAME or torchvision:NAME. "lab:" before a name means
            two such networks, one of lightness and one of colour (`lab.LabPair`); "lightness:"
            before it one of lightness.
        channels: Of the images, 1 or 3.
        size: Side of the images in pixels.
        stem: Of the ResNets: "cifar" (3x3, stride 1), "imagenet" (7x7 and pooling, stride 4), or
            "auto", which takes "imagenet" from 96 pixels on.
        small_crops: Whether images of `small_side` pass through it too, for which transformers of
            timm interpolate their positions.

    Returns:
        A module that maps `[b, channels, size, size]` to `[b, width]`, and the width.

    Raises:
        ValueError: Unknown name or stem, or a network of another library that takes no image of
            this size, or not its small crops.
        ImportError: The library that has the network is not installed.
    """
    stem = stem_of(stem, size)
    library, _, model = name.partition(":")
    if library in ("lab", "lightness"):
        if channels != 3:
            raise ValueError(f"backbone {name} needs images of 3 channels, got {channels}")
        if library == "lightness":
            one, width = build_backbone(
                model, channels=1, size=size, stem=stem, small_crops=small_crops
            )
            return Lightness(one, width), width
        (one, width), (two, _) = (
            build_backbone(model, channels=c, size=size, stem=stem, small_crops=small_crops)
            for c in (1, 2)
        )
        pair = LabPair(one, two, width)
        return pair, pair.width
    if model:
        return _from_library(library, model, channels, size, small_crops)
    builders = {
        "small": lambda: SmallConvNet(channels),
        "resnet18": lambda: resnet18(channels, stem),
        "resnet50": lambda: resnet50(channels, stem),
    }
    if name not in builders:
        raise ValueError(f"backbone must be {CHOICES}, got {name!r}")
    network = builders[name]()
    return network, network.width


def _from_library(
    library: str, model: str, channels: int, size: int, small_crops: bool
) -> tuple[nn.Module, int]:
    if library not in ("timm", "torchvision"):
        raise ValueError(f"backbone must be {CHOICES}, got {library + ':' + model!r}")
    try:
        module = importlib.import_module("timm" if library == "timm" else "torchvision.models")
    except Exception as error:  # torchvision raises RuntimeError where it does not fit torch
        raise ImportError(
            f"backbone {library}:{model} needs {library}, which does not import here ({error}); "
            f"install it with: pip install {library}"
        ) from error
    if library == "timm":
        if model not in module.list_models():
            raise ValueError(f"timm has no model {model!r}; see timm.list_models()")
        several = small_crops and model.startswith(TRANSFORMERS)
        sizes = {"dynamic_img_size": True} if several else {}
        network = _of_size(
            "img_size", size, module.create_model, model, pretrained=False, num_classes=0,
            in_chans=channels, **sizes,
        )  # fmt: skip
    else:
        if model not in module.list_models():
            raise ValueError(f"torchvision has no model {model!r}; see its models.list_models()")
        if channels != 3:
            raise ValueError(f"torchvision:{model} takes images of 3 channels, got {channels}")
        network = _of_size("image_size", size, module.get_model, model, weights=None)
        _drop_classifier(network, model)
    sides = [small_side(size, patch_side(network))] * small_crops + [size]
    for side in sides:
        try:
            width = _feature_width(network, channels, side)
        except (AssertionError, RuntimeError) as error:  # what networks say of a size they refuse
            raise ValueError(
                f"{library}:{model} does not take images of {side} x {side}: {error}"
            ) from error
    return network, width


def _of_size(name: str, size: int, create, *given, **options) -> nn.Module:
    """Transformers are built for one size of images, which most convolutional networks have no
    argument for."""
    try:
        network = create(*given, **options, **{name: size})
    except TypeError as error:
        if name not in str(error):
            raise
        return create(*given, **options)
    network.size_option = name  # whoever builds it again needs it
    return network


def _drop_classifier(network: nn.Module, model: str) -> None:
    for name in CLASSIFIERS:
        if hasattr(network, name):
            setattr(network, name, nn.Identity())
            return
    raise ValueError(f"torchvision:{model} is no classifier: it has no last layer to take off")


@torch.no_grad()
def _feature_width(network: nn.Module, channels: int, size: int) -> int:
    network.eval()
    features = network(torch.zeros(1, channels, size, size))
    network.train()
    if features.dim() != 2:
        raise ValueError(f"the backbone must return [b, width], got {list(features.shape)}")
    return features.shape[1]
