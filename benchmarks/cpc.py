"""CPC on images in its paper's way: `python -m benchmarks.cpc [SETTING ...]`.

7 x 7 grey patches of 8 pixels, half of them overlapping, each moved within its place, by an encoder
without batch normalisation, whose features are averaged over the patches; beside it the same but in
colour, with batch normalisation and patches where they are. 10,000 images of CIFAR-10, one seed;
accuracies of 20 nearest neighbours and of a linear classifier on the whole test split, of the
network before and after. Rows of results/cpc.csv, which docs/methods.md has as a table.
"""

import argparse
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from fastcl.methods import ImageCPC
from fastcl.pretrain.data import Images

from . import tables
from .accuracy import images_of
from .accuracy_table import PAGE
from .accuracy_training import scores
from .report import RESULTS, circumstances, insert, read, save

ROWS = RESULTS / "cpc.csv"
PATCH, MOVED = 8, 2  # pixels; how far a patch may be moved
GREY = (0.299, 0.587, 0.114)
CHANNELS = (32, 64, 64, 128, 128)


@dataclass(frozen=True)
class Setting:
    name: str
    grey: bool
    moved: bool
    batch_norm: bool
    images: int = 10_000
    epochs: int = 8
    batch: int = 64
    rate: float = 1e-3
    seed: int = 0


SETTINGS = {x.name: x for x in (
    Setting("paper's way", grey=True, moved=True, batch_norm=False),
    Setting("colour, batch normalisation", grey=False, moved=False, batch_norm=True),
)}  # fmt: skip


def encoder(setting: Setting) -> nn.Sequential:
    """Five convolutions of a patch, each normalised, and their mean."""
    layers: list[nn.Module] = []
    for i, (of, to) in enumerate(pairwise((1 if setting.grey else 3, *CHANNELS))):
        norm = nn.BatchNorm2d(to) if setting.batch_norm else nn.GroupNorm(8, to)
        layers += [nn.Conv2d(of, to, 3, 1 + i % 2, 1, bias=False), norm, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Patches(ImageCPC):
    """CPC whose patches are moved while it is trained."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(encoder(setting), width=CHANNELS[-1], patch=PATCH, steps=3)
        self.setting = setting
        self.register_buffer("grey", torch.tensor(GREY).view(1, 3, 1, 1))

    def patches(self, images: Tensor) -> Tensor:  # [n, rows, cols, c, p, p]
        if self.setting.grey:
            images = (images * self.grey).sum(1, keepdim=True)
        found = super().patches(images)
        return moved(found) if self.setting.moved and self.training else found


def moved(patches: Tensor) -> Tensor:
    """A random part of every patch, zeros around it: no line goes on from one to the next."""
    flat, inner = patches.flatten(0, 2), PATCH - MOVED
    place = torch.arange(PATCH)
    for shape in ((-1, 1, PATCH, 1), (-1, 1, 1, PATCH)):
        first = torch.randint(0, MOVED + 1, (len(flat), 1))
        flat = flat * ((place >= first) & (place < first + inner)).view(shape)
    return flat.view_as(patches)


class Averaged(nn.Module):
    """The features of an image: those of its patches, averaged."""

    def __init__(self, method: Patches) -> None:
        super().__init__()
        self.method = method

    def forward(self, images: Tensor) -> Tensor:
        patches = self.method.patches(images)
        features = self.method.backbone(patches.flatten(0, 2))
        return features.view(len(images), -1, features.shape[1]).mean(1)


def cropped(images: Tensor) -> Tensor:
    """Of the whole batch alike: mirrored or not, and moved by up to four pixels."""
    images = images.flip(-1) if torch.rand(()) < 0.5 else images
    y, x = torch.randint(0, 9, (2,)).tolist()
    size = images.shape[-1]
    return nn.functional.pad(images, (4,) * 4, mode="reflect")[..., y : y + size, x : x + size]


def trained(method: Patches, images: Images, setting: Setting) -> list[float]:
    """The mean loss of every epoch."""
    mean, deviation = (x.view(1, 3, 1, 1) for x in images.statistics())
    steps = len(images.train) // setting.batch
    optimiser = torch.optim.AdamW(method.parameters(), setting.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, setting.rate, total_steps=steps * setting.epochs, pct_start=0.1
    )
    losses = []
    for _ in range(setting.epochs):
        total = 0.0
        for some in torch.randperm(len(images.train))[: steps * setting.batch].split(setting.batch):
            x = images.train[some].float() / 255
            loss = method(cropped((x - mean) / deviation))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        losses.append(total / steps)
    return losses


def row(setting: Setting) -> dict:
    begun = circumstances("cpu")
    images = images_of(setting)
    torch.manual_seed(setting.seed)
    method = Patches(setting)
    network = Averaged(method)
    found = {f"untrained_{k}": v for k, v in scores(network, images).items()}
    method.train()
    losses = trained(method, images, setting)
    found |= scores(network, images) | {"first": losses[0], "last": losses[-1]}
    return asdict(setting) | {"tested": len(images.test)} | found | begun


def table(rows: list[dict[str, str]]) -> str:
    names = ["CPC, 7 x 7 patches", "20-NN: untrained", "trained", "linear: untrained", "trained"]
    keys = "untrained_knn", "knn", "untrained_probe", "probe"
    lines = [[x["name"], *(f"{100 * float(x[k]):.1f}" for k in keys)] for x in rows]
    one = rows[0]
    return (
        f"{tables.grid(names, lines)}\n\n"
        f"Per cent of {int(one['tested']):,} test images; {int(one['images']):,} images, "
        f"{one['epochs']} passes, seed {one['seed']}. {one['machine']}, torch {one['torch']}, "
        f"commit {one['commit']}, {one['date']}: `python -m benchmarks.cpc`.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.cpc", description=__doc__)
    parser.add_argument("settings", nargs="*", choices=[[], *SETTINGS], metavar="SETTING",
                        help=f"of {', '.join(map(repr, SETTINGS))}; all without one")  # fmt: skip
    parser.add_argument("--epochs", type=int, default=Setting.epochs)
    parser.add_argument("--images", type=int, default=Setting.images)
    parser.add_argument("--rows", type=Path, default=ROWS)
    args = parser.parse_args()
    rows = {x["name"]: x for x in (read(args.rows) if args.rows.exists() else ())}
    for name in args.settings or SETTINGS:
        rows[name] = row(replace(SETTINGS[name], epochs=args.epochs, images=args.images))
        save([rows[x] for x in SETTINGS if x in rows], args.rows, tuple(rows[name]))
    text = table(read(args.rows))
    print(text)
    if args.rows == ROWS:
        PAGE.write_text(insert(PAGE.read_text(), "cpc", text))


if __name__ == "__main__":
    main()
