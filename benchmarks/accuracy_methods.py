"""What `benchmarks.accuracy` trains: a setting, fastcl's method in it, and the views of both."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from fastcl import methods, views
from fastcl.functional import unit_rows
from fastcl.pretrain.backbone import build_backbone, small_side
from fastcl.pretrain.data import Images

# Heads, queue and momentum for few images and epochs, as in `benchmarks.image_methods`.
SMALL = {"hidden": 512, "dim": 128}
PROTOTYPES = 256
OPTIONS: dict[str, dict] = {
    "simclr": {"temperature": 0.2, **SMALL},
    "moco": {"temperature": 0.2, "queue_size": 1024, "momentum": 0.97, **SMALL},
    "byol": {"momentum": 0.97, **SMALL},
    # Where prototypes move from the first step on, the features of either library collapse: the
    # loss of three epochs is log 256. So they stay for so many steps, and for the first epoch.
    "swav": {"prototypes": PROTOTYPES, "freeze": 100, **SMALL},
    "dino": {
        "momentum": 0.97, "batch_norm": True, "teacher_temperature": 0.04,
        "prototypes": PROTOTYPES, "freeze": 0, **SMALL,
    },
}  # fmt: skip
OPTIONS[EXCHANGED := "dino-exchanged"] = OPTIONS["dino"]


class DINOByCrop(methods.DINO):
    """With a habit of lightly's examples: one crop after the other through backbone and head."""

    def forward(self, *crops: Tensor) -> Tensor:
        c = self.prototypes.unit(frozen=self.steps.count < self.freeze)
        student = [unit_rows(self.head(self.backbone(crop))) @ c.T for crop in crops]
        teacher = [self.target(crop) for crop in crops[:2]]
        return self.loss(student, teacher, self.teacher_temperature)


CLASSES = {
    "simclr": methods.SimCLR, "moco": methods.MoCo, "byol": methods.BYOL, "swav": methods.SwAV,
    "dino": methods.DINO, EXCHANGED: DINOByCrop,
}  # fmt: skip
SCHEDULED = "byol", "dino", EXCHANGED  # their momentum follows the number of steps
# Strength 0.5 is the paper's for CIFAR.
PRESETS: dict[str, Callable] = {
    "simclr": lambda size, **given: views.SimCLR(size, strength=0.5, **given),
    "moco": views.MoCoV2,
    "byol": views.BYOL,
    "swav": lambda size, **given: views.SwAV(size, small_side(size), 2, **given),
    "dino": lambda size, **given: views.DINO(size, small_side(size), 2, **given),
}
PRESETS[EXCHANGED] = PRESETS["dino"]


@dataclass(frozen=True)
class Setting:
    """All that the weights at the end depend on, but for the code.

    Args:
        method: A name of `CLASSES`.
        images: Of the training split, from the first on.
        epochs: Passes over them.
        batch: Images of a step; what is left of an epoch is left out.
        backbone: "six", or a name of `fastcl.pretrain.backbone.build_backbone`.
        seed: Of the weights, the order and the views.
        rate: AdamW's, after the warmup.
    """

    method: str
    images: int
    epochs: int
    batch: int = 128
    backbone: str = "six"
    seed: int = 0
    rate: float = 1e-3

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return self.images // self.batch

    @property
    def name(self) -> str:
        return "-".join(str(value).replace(":", "_") for value in asdict(self).values())


class SixLayers(nn.Sequential):
    """Six 3x3 convolutions, 16 to 128 channels at 32 to 4 pixels, and their mean: 128 features.

    8.7 million multiplications for an image of 32 pixels; ResNet-18 with CIFAR's stem has 555.
    """

    LAYERS = (16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2)
    width = LAYERS[-1][0]

    def __init__(self, channels: int) -> None:
        layers: list[nn.Module] = []
        for c_out, stride in self.LAYERS:
            layers += [
                nn.Conv2d(channels, c_out, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(c_out),
                nn.ReLU(inplace=True),
            ]
            channels = c_out
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def backbone_of(setting: Setting, size: int = 32) -> tuple[nn.Module, int]:
    """Untrained, always with the same weights, and its width."""
    torch.manual_seed(setting.seed)
    if setting.backbone == "six":
        return SixLayers(3), SixLayers.width
    return build_backbone(setting.backbone, channels=3, size=size)


def own_method(setting: Setting, size: int = 32) -> nn.Module:
    """fastcl's, around the backbone."""
    options = dict(OPTIONS[setting.method])
    if setting.method in SCHEDULED:
        options["steps"] = setting.epochs * setting.steps
    if setting.method == "swav":
        options["freeze"] = max(options["freeze"], setting.steps)
    backbone, width = backbone_of(setting, size)
    return CLASSES[setting.method](backbone, width=width, **options)


def contenders(setting: Setting, size: int = 32) -> dict[str, nn.Module]:
    """fastcl's method and lightly's, in training mode, with the same weights.

    Raises:
        ImportError: lightly is not installed.
    """
    from .accuracy_peers import METHODS

    own = own_method(setting, size)
    found = {"fastcl": own, "lightly": METHODS[setting.method](own)}
    return {k: v.train().to(memory_format=torch.channels_last) for k, v in found.items()}


class Crops:
    """The crops that both see at a step, whatever was asked for before."""

    def __init__(self, setting: Setting, images: Images) -> None:
        mean, deviation = images.statistics()
        self.setting, self.images = setting, images.train
        self.views = PRESETS[setting.method](
            images.size, mean=mean, deviation=deviation, memory_format=torch.channels_last
        )

    def at(self, step: int) -> list[Tensor]:
        """Each `[batch, 3, side, side]`."""
        setting = self.setting
        epoch, k = divmod(step, setting.steps)
        order = torch.randperm(len(self.images), generator=self.drawn(0, epoch))
        index = order[k * setting.batch : (k + 1) * setting.batch]
        groups = self.views(self.images[index], self.drawn(1, step))
        return [crop for group in groups for crop in (group if group.dim() == 5 else [group])]

    def drawn(self, kind: int, number: int) -> torch.Generator:
        """Of the orders of epochs, 0, or the views of steps, 1."""
        return torch.Generator().manual_seed((self.setting.seed * 2 + kind) * 1_000_003 + number)
