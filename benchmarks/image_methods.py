"""The image methods of the table: each on the same backbone, images and number of epochs."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fastcl.evaluate.features import extract
from fastcl.evaluate.geometry import effective_rank
from fastcl.evaluate.knn import knn_predict
from fastcl.pretrain.augment import Views
from fastcl.pretrain.backbone import build_backbone
from fastcl.pretrain.data import Images, load_images
from fastcl.pretrain.inputs import Batch
from fastcl.pretrain.methods import ENTRIES
from fastcl.pretrain.optimizer import learning_rate_at
from fastcl.views import MultiCrop, Recipe

from .paper_networks import PLACES, InfoMaxEncoder
from .report_methods import DATA, Entry

TRAIN, TEST = 5000, 2000
EPOCHS, BATCH, RATE = 6, 128, 1e-3
# Stride 4: 26 million multiplications per image of 32 pixels; the CIFAR stem has 555.
STEM = "imagenet"
# Heads, queue and temperature for few images and epochs; the rest is the class's default.
SMALL = {"hidden": 512, "dim": 128}
OPTIONS = {
    "instdisc": {"samples": TRAIN, "noise": None, "temperature": 0.1},
    # Estimation: below 0.5 the noise terms outgrow the positive while rows still share a direction.
    "instdisc-nce": {"samples": TRAIN, "noise": 1024, "temperature": 0.5},
    "moco": {"queue_size": 1024, "momentum": 0.97, "groups": 4, "temperature": 0.2},
    "mocov1": {"queue_size": 1024, "momentum": 0.97, "groups": 4, "temperature": 0.2},
    "mocov3": {"temperature": 0.2, "momentum": 0.97, **SMALL},
    "simclr": {"temperature": 0.2},
    "simclrv2": {"temperature": 0.2},
    "supcon": {"temperature": 0.2},
    "nnclr": {"queue_size": 2048, "prediction": 512, **SMALL},
    "cpc": {"patch": 16, "steps": 2},  # 9 patches; 49 of 8 pixels would cost ten times two views
    "cmc": {"samples": TRAIN, "noise": None, "temperature": 0.1},
    "dim": {"units": 512},
    "swav": {"prototypes": 256, "freeze": 20, **SMALL},
    # The teacher stays as sharp as it starts: at 0.07 it is even over the prototypes in 9 epochs.
    "dino": {
        "prototypes": 256,
        "freeze": 20,
        "batch_norm": True,
        "momentum": 0.97,
        "teacher_temperature": 0.04,
        **SMALL,
    },
    "byol": {"momentum": 0.97, **SMALL},
    "simsiam": {"hidden": 512, "dim": 512, "prediction": 128, "layers": 2},
    "barlowtwins": {"hidden": 512, "dim": 512},
    "vicreg": {"hidden": 512, "dim": 512},
    "inpainting": {"size": 32, "channels": 3},
}
SCHEDULED = ("mocov3", "dino", "byol")  # their momentum follows the number of steps
# Linear heads, slow keys, full banks, prototypes, neighbours as positives and losses without
# negatives begin slowly; one view, or a view without a gradient, makes an epoch cheaper.
OTHER_EPOCHS = {
    "instdisc": 12, "instdisc-nce": 12, "invaspread": 10, "mocov1": 12, "moco": 12,
    "cmc": 12, "byol": 14, "simsiam": 12, "swav": 9, "dino": 9, "nnclr": 8, "dim-8x8": 20,
}  # fmt: skip
NETWORKS = {"dim-8x8": PLACES}  # all others: the same ResNet-18
SPACES = {"cmc": "lab:", "split_brain": "lab:", "colorization": "lightness:"}
FAMILIES = {
    "instance discrimination": (
        "instdisc", "instdisc-nce", "invaspread", "mocov1", "moco", "mocov3", "simclr",
        "simclrv2", "nnclr", "flatnce", "dcl", "dclw", "supcon",
    ),
    "prediction and views": ("cpc", "cmc", "dim", "dim-nce", "dim-dv", "dim-8x8"),
    "clustering": ("swav", "dino"),
    "without negatives": ("byol", "simsiam", "barlowtwins", "vicreg"),
    "pretext": (
        "rotation", "jigsaw", "relative_patch", "colorization", "split_brain", "inpainting",
    ),
}  # fmt: skip
VARIANTS = {"instdisc-nce": "instdisc", "dim-nce": "dim", "dim-dv": "dim", "dim-8x8": "dim"}
OPTIONS |= {f"dim-{name}": {"units": 512, "estimator": name} for name in ("nce", "dv")}
OPTIONS["dim-8x8"] = {"units": 512}


class EdgeConv2d(nn.Conv2d):
    """A 3 x 3 convolution of padding 1 that is one product on maps of at most 2 x 2 pixels.

    There every output pixel sees the whole map, each pixel of it through another tap, and the
    other taps see padding alone. The same values and gradients, without products by zero.
    """

    def forward(self, x: Tensor) -> Tensor:  # [b, c, h, w] -> [b, c', h', w']
        b, _, height, width = x.shape
        if max(height, width) > 2:
            return super().forward(x)
        tops, lefts = range(1, 1 - height, -self.stride[0]), range(1, 1 - width, -self.stride[1])
        taps = [self.weight[:, :, i : i + height, j : j + width] for i in tops for j in lefts]
        matrix = torch.stack(taps).permute(0, 1, 3, 4, 2).flatten(2).flatten(0, 1)
        y = x.permute(0, 2, 3, 1).flatten(1) @ matrix.T  # places before channels on both sides
        y = y.view(b, len(tops), len(lefts), -1).permute(0, 3, 1, 2)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)


def skip_padding(network: nn.Module) -> nn.Module:
    """Give every 3 x 3 convolution of padding 1 the class above; its weights stay."""
    for module in network.modules():
        if type(module) is nn.Conv2d and (module.kernel_size, module.padding) == ((3, 3), (1, 1)):
            module.__class__ = EdgeConv2d
    return network


@cache
def images() -> Images:
    """5,000 training and 2,000 test images, the same for all methods."""
    found = load_images(str(DATA / "cifar10" / "cifar10-jpeg.npz"), limit=TRAIN)
    return replace(found, test=found.test[:TEST], test_labels=found.test_labels[:TEST])


def build(name: str) -> tuple[nn.Module, int]:
    """The untrained backbone of that name, always with the same weights, and its width."""
    torch.manual_seed(0)
    if name == PLACES:
        return InfoMaxEncoder(), 64
    network, width = build_backbone(name, channels=3, size=32, stem=STEM)
    return skip_padding(network), width


@cache
def untrained(name: str) -> tuple[float, float, float]:
    """What `measure` says of it, and the million operations of a forward pass of one image."""
    network, _ = build(name)
    return *measure(network), mflop(network)


def measure(backbone: nn.Module) -> tuple[float, float]:
    """Accuracy of 20 nearest neighbours on the test images, and the features' effective rank."""
    data = images()
    train, test = (extract(backbone, x, data.statistics()) for x in (data.train, data.test))
    predicted = knn_predict(test, train, data.train_labels, k=20, classes=len(data.classes))
    accuracy = (predicted == data.test_labels).float().mean().item()
    return accuracy, effective_rank(test.double(), center=True)


def mflop(backbone: nn.Module) -> float:
    """Of the forward pass of one image."""
    data = images()
    with FlopCounterMode(display=False) as counter:
        extract(backbone, data.test[:1], data.statistics())
    return counter.get_total_flops() / 1e6


def train(
    method: nn.Module,
    inputs: Callable[[Views, Batch], tuple],
    *,
    crops: int = 0,
    preset: type[MultiCrop] | None = None,
    recipes: tuple[Recipe, ...] | None = None,
    epochs: int = EPOCHS,
) -> list[float]:
    """AdamW with warmup and half a cosine; the mean loss of every epoch.

    Args:
        method: A module whose forward takes `inputs` of a batch and returns the loss, with
            `update()` for after the step.
        inputs: As in `fastcl.pretrain.inputs`.
        crops: Small crops per image.
        preset, recipes: Of the views, as in `fastcl.pretrain.methods`.
        epochs: Passes over the training images.
    """
    data = images()
    views = Views(data.kind, data.size, data.statistics(), crops, preset=preset, recipes=recipes)
    trained = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, RATE, weight_decay=0.01, fused=True)
    method.train().to(memory_format=torch.channels_last)
    steps, losses = len(data.train) // BATCH, []
    for epoch in range(epochs):
        order = torch.randperm(len(data.train))[: steps * BATCH].view(steps, BATCH)
        total = 0.0
        for step, index in enumerate(order):
            now = learning_rate_at(epoch * steps + step, epochs * steps, RATE, 0.1)
            for group in optimizer.param_groups:
                group["lr"] = now
            batch = Batch(data.train[index], index, data.train_labels[index])
            loss = method(*inputs(views, batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            method.update()
            total += loss.item()
        losses.append(total / steps)
    if not torch.isfinite(torch.tensor(losses)).all():
        raise FloatingPointError(f"the loss is not finite: {losses}")
    return losses


def run(
    method: Callable[[nn.Module, int], nn.Module],
    inputs: Callable[[Views, Batch], tuple],
    *,
    crops: int = 0,
    preset: type[MultiCrop] | None = None,
    recipes: tuple[Recipe, ...] | None = None,
    backbone: str = "resnet18",
    epochs: int = EPOCHS,
) -> dict:
    """Measure an untrained backbone, train it, measure again: a row of the table.

    Args:
        method: The method around a backbone and its width.
        inputs, crops, preset, recipes, epochs: As for `train`.
        backbone: As for `build_backbone`.
    """
    before, rank_before, work = untrained(backbone)
    network, width = build(backbone)
    losses = train(
        method(network, width), inputs, crops=crops, preset=preset, recipes=recipes, epochs=epochs
    )  # fmt: skip
    after, rank_after = measure(network)
    return {
        "figure": "20-NN accuracy", "epochs": epochs, "before": before, "after": after,
        "rank_before": rank_before, "rank_after": rank_after, "loss_first": losses[0],
        "loss_last": losses[-1], "mflop_per_image": work,
    }  # fmt: skip


def _run(name: str) -> dict:
    entry = ENTRIES[VARIANTS.get(name, name)]
    options = dict(OPTIONS.get(name, {}))
    epochs = OTHER_EPOCHS.get(name, EPOCHS)
    if name in SCHEDULED:
        options["steps"] = epochs * (TRAIN // BATCH)
    return run(
        lambda backbone, width: entry.build(backbone, width=width, **options),
        entry.inputs,
        crops=2 if name in FAMILIES["clustering"] else 0,
        preset=entry.preset,
        recipes=entry.recipes,
        backbone=NETWORKS.get(name, SPACES.get(name, "") + "resnet18"),
        epochs=epochs,
    )


IMAGE_ENTRIES = [
    Entry(name, family, partial(_run, name)) for family, names in FAMILIES.items() for name in names
]
