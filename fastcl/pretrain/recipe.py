"""The settings of a run: what each method and kind of data starts from, in one place.

"thumbnails" are photographs below 96 pixels. Where the recipes come from: SimCLR on photographs,
Chen et al. 2020 (arXiv 2002.05709) section 2.2; on thumbnails the SGD of lightly's CIFAR-10
benchmark (0.06 per 128 images) with the paper's temperature. MoCo v2, Chen et al. 2020 (arXiv
2003.04297), and on thumbnails its CIFAR-10 demonstration (SGD 0.06 at batch 512, queue 4096,
momentum 0.99, temperature 0.1). The digits are our own.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from .backbone import IMAGENET_STEM_FROM

METHODS = ("moco", "simclr")
PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed"}


@dataclass(frozen=True)
class Recipe:
    """What a method starts from on one kind of data.

    Args:
        learning_rate: Per 256 images of a batch; grows with the batch in proportion.
        warmup: Share of the steps in which the learning rate rises from zero.
        options: Arguments of the method's class.
    """

    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    weight_decay: float
    warmup: float
    options: dict


RECIPES = {
    ("simclr", "digits"): Recipe(60, 256, "sgd", 0.2, 5e-4, 0.1, {"temperature": 0.5}),
    ("moco", "digits"): Recipe(
        60, 256, "sgd", 0.2, 5e-4, 0.1, {"temperature": 0.2, "queue_size": 512, "momentum": 0.97}
    ),
    ("simclr", "thumbnails"): Recipe(200, 512, "sgd", 0.12, 5e-4, 0.05, {"temperature": 0.5}),
    ("moco", "thumbnails"): Recipe(
        200, 512, "sgd", 0.03, 5e-4, 0.0, {"temperature": 0.1, "queue_size": 4096, "momentum": 0.99}
    ),
    ("simclr", "photographs"): Recipe(100, 1024, "lars", 0.3, 1e-6, 0.1, {"temperature": 0.1}),
    ("moco", "photographs"): Recipe(
        200, 256, "sgd", 0.03, 1e-4, 0.0,
        {"temperature": 0.2, "queue_size": 65536, "momentum": 0.999},
    ),
}  # fmt: skip
BACKBONES = {"digits": "small", "thumbnails": "resnet18", "photographs": "resnet50"}


@dataclass(frozen=True)
class Config:
    """Everything that decides the numbers of a run; `config.json` of its folder."""

    method: str
    data: str
    backbone: str
    stem: str
    image_size: int
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    weight_decay: float
    warmup: float
    precision: str
    devices: int
    seed: int
    options: dict = field(default_factory=dict)
    limit: int | None = None  # images of each split

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Config":
        """Raises FileNotFoundError where the folder holds no run, ValueError on other contents."""
        if not path.exists():
            raise FileNotFoundError(f"{str(path.parent)!r} is no run folder: it has no {path.name}")
        try:
            return cls(**json.loads(path.read_text()))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{str(path)!r} is not the configuration of a run: {error}") from error

    def differences(self, other: "Config") -> list[str]:
        """The fields that differ, as text."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return [f"{k} {theirs[k]!r} there, {mine[k]!r} now" for k in mine if mine[k] != theirs[k]]


def kind_of(kind: str, size: int) -> str:
    """The recipe's kind of data: photographs below 96 pixels are thumbnails."""
    return "thumbnails" if kind == "photographs" and size < IMAGENET_STEM_FROM else kind


def resolve(
    images,  # Images
    *,
    method: str,
    data: str,
    precision: str,
    devices: int,
    seed: int,
    limit: int | None = None,
    stem: str = "auto",
    backbone: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    **options: float | int | None,
) -> Config:
    """The recipe with what the user asked for in its place.

    Args:
        images: The data, which decide the recipe and bound batch and queue.
        limit: What `load_images` was given.
        options: temperature, queue_size, momentum of the method; None keeps the recipe's.

    Returns:
        A `Config` without open choices.

    Raises:
        ValueError: A choice that is unknown or does not fit the data.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be auto, 32 or bf16, got {precision!r}")
    kind = kind_of(images.kind, images.size)
    recipe = RECIPES[method, kind]
    n = len(images.train)
    epochs = recipe.epochs if epochs is None else epochs
    batch_size = (
        min(recipe.batch_size, n // devices * devices) if batch_size is None else batch_size
    )
    if learning_rate is None:
        learning_rate = recipe.learning_rate * batch_size / 256
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    if not 2 * devices <= batch_size <= n or batch_size % devices:
        raise ValueError(
            f"batch-size must be a multiple of the {devices} devices from {2 * devices} to the "
            f"{n} training images, got {batch_size}"
        )
    if not learning_rate > 0:
        raise ValueError(f"lr must be above 0, got {learning_rate}")
    return Config(
        method=method,
        data=data,
        backbone=backbone or BACKBONES[kind],
        stem=stem,
        image_size=images.size,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=recipe.optimizer,
        learning_rate=learning_rate,
        weight_decay=recipe.weight_decay,
        warmup=recipe.warmup,
        precision=precision,
        devices=devices,
        seed=seed,
        options=_options(recipe, n, options),
        limit=limit,
    )


def _options(recipe: Recipe, n: int, given: dict) -> dict:
    """The method's arguments. A queue longer than the data would hold a query's own image."""
    asked = {name: value for name, value in given.items() if value is not None}
    unknown = sorted(asked.keys() - recipe.options.keys())
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: this method has no such setting")
    options = dict(recipe.options)
    if "queue_size" in options:
        options["queue_size"] = min(options["queue_size"], n)
    return options | asked
