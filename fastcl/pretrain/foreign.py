"""What timm and torchvision call a backbone, and the Python that loads its weights there."""

from torch import nn

from .backbone import CLASSIFIERS
from .weights import Facts

LIBRARIES = "timm", "torchvision"
OWN = "resnet18", "resnet50"
# Networks of one name, keys and outputs in both libraries.
SHARED = (
    "densenet121", "densenet161", "densenet169", "densenet201", "resnet18", "resnet34", "resnet50",
    "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d",
    "wide_resnet50_2", "wide_resnet101_2",
)  # fmt: skip
ELSEWHERE = "--to onnx and --to hub-folder take every backbone"


def name_in(library: str, backbone: str) -> str:
    """The library's name for a backbone of `build_backbone`.

    Raises:
        ValueError: The library has no such network.
    """
    home, _, model = backbone.partition(":")
    if home in ("lab", "lightness"):
        raise ValueError(
            f"backbone {backbone} sees lightness and colour, as no network of {library} does; "
            f"{ELSEWHERE}"
        )
    name = model or home
    if home == library or name in (SHARED if model else OWN):
        return name
    raise ValueError(f"{library} has no network with the keys of backbone {backbone}; {ELSEWHERE}")


def loading(library: str, facts: Facts, network: nn.Module, path: str) -> str:
    """Lines of Python after which `model` is the library's network with the weights of a file.

    Args:
        library: One of `LIBRARIES`.
        facts: Of the weights.
        network: Built by `build_backbone`.
        path: Of the file.

    Raises:
        ValueError: The library has no such network.
    """
    name, size = name_in(library, facts.backbone), ""
    if hasattr(network, "size_option"):
        size = f", {network.size_option}={facts.size}"
    if library == "timm":
        options = f"num_classes=0, in_chans={facts.channels}{size}"
        lines = [f"model = timm.create_model({name!r}, {options})"]
    else:
        last = _classifier(name, network)
        lines = [
            f"model = torchvision.models.get_model({name!r}, weights=None{size})",
            f"model.{last} = torch.nn.Identity()",
        ]
    lines += _stem(library, facts, name)
    lines.append(f"model.load_state_dict(load_file({path!r}), strict=True)")
    imports = ["import torch"] if any("torch.nn" in line for line in lines) else []
    imports += [f"import {library}", "from safetensors.torch import load_file", ""]
    return "\n".join(imports + lines)


def _stem(library: str, facts: Facts, name: str) -> list[str]:
    """The first layers, where they are others than the library's."""
    if facts.backbone in OWN and facts.stem == "cifar":
        first = f"torch.nn.Conv2d({facts.channels}, 64, 3, padding=1, bias=False)"
        return [f"model.conv1 = {first}", "model.maxpool = torch.nn.Identity()"]
    if library == "timm" or facts.channels == 3:
        return []
    place = "features.conv0" if name.startswith("densenet") else "conv1"
    width = 96 if name == "densenet161" else 64
    return [f"model.{place} = torch.nn.Conv2d({facts.channels}, {width}, 7, 2, 3, bias=False)"]


def _classifier(name: str, network: nn.Module) -> str:
    """The last layer of a network of torchvision."""
    if name.startswith("densenet"):
        return "classifier"
    return "fc" if name in SHARED else next(n for n in CLASSIFIERS if hasattr(network, n))
