"""The settings of a run: what each method and kind of data starts from, in one place.

"thumbnails" are photographs below 96 pixels; "transformers" go before both where the backbone is
one and the method has such a recipe. The numbers themselves are in `recipes`.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

from .._files import replace_file
from .augment import STRONGEST
from .backbone import IMAGENET_STEM_FROM, is_transformer
from .recipes import METHODS, RECIPES, Recipe

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed"}
CHANGEABLE = ("epochs", "learning_rate")  # of a run that goes on
# Methods whose step neither reads the device nor counts on the host.
GRAPHED = (
    "moco", "mocov1", "simclr", "simclrv2", "flatnce", "dcl", "dclw", "supcon", "invaspread",
    "simsiam", "barlowtwins",
)  # fmt: skip
FREE = ("changes", "bad_images", "compile", "channels_last")  # the same without being told
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
    crops: int = 0  # small ones, beside two full views
    augmentation: float = 1.0  # strength of the views
    stream: bool = False  # whether the images stay on the disk
    bad_images: str = "error"  # what is done about them
    samples: int | None = None  # training images
    fingerprint: str | None = None  # of the data
    weights: str | None = None  # file that the backbone starts from
    accumulate: int = 1  # parts of a batch
    compile: bool = False  # the networks
    cuda_graph: bool = False  # the step
    channels_last: bool = True
    weight_decay_end: float | None = None  # to which it rises; None: it stays
    changes: list = field(default_factory=list)  # what other values held until which epoch

    def save(self, path: Path) -> None:
        text = json.dumps(dataclasses.asdict(self), indent=2) + "\n"
        replace_file(path, lambda file: file.write(text.encode()))

    @classmethod
    def load(cls, path: Path) -> "Config":
        """Raises FileNotFoundError where the folder holds no run, ValueError on other contents."""
        if not path.exists():
            raise FileNotFoundError(f"{str(path.parent)!r} is no run folder: it has no {path.name}")
        try:
            return cls(**json.loads(path.read_text()))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{str(path)!r} is not the configuration of a run: {error}") from error

    def differences(self, other: "Config") -> list[str]:
        """The fields that differ and have to be equal for a run to go on, as text."""
        mine, theirs = self._fixed(), other._fixed()
        return [f"{k} {theirs[k]!r} there, {mine[k]!r} now" for k in mine if mine[k] != theirs[k]]

    def _fixed(self) -> dict:
        values = dataclasses.asdict(self)
        for name in (*CHANGEABLE, *FREE):
            del values[name]
        if _rises(self.method):  # follows from the number of epochs
            values["options"].pop("steps", None)
        return values

    def continued(self, before: "Config", epoch: int) -> "Config":
        """This configuration as it goes on from another one after an epoch, with what has changed
        on record.

        Raises:
            ValueError: They differ where a run may not; the message says where.
        """
        differences = self.differences(before)
        if differences:
            raise ValueError("; ".join(differences))
        changed = {
            name: getattr(before, name) for name in CHANGEABLE
            if getattr(before, name) != getattr(self, name)
        }  # fmt: skip
        new = [{"until_epoch": epoch} | changed] if changed else []
        return dataclasses.replace(self, changes=[*before.changes, *new])


def _rises(method: str) -> bool:
    """Whether the method's momentum rises over the steps of the run."""
    return any(
        recipe.options.get("steps", 0) is None for (name, _), recipe in RECIPES.items()
        if name == method
    )  # fmt: skip


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
    optimizer: str | None = None,
    weight_decay: float | None = None,
    warmup: float | None = None,
    augmentation: float = 1.0,
    bad_images: str = "error",
    weights: str | None = None,
    accumulate: int = 1,
    compile: bool = False,
    cuda_graph: bool = False,
    channels_last: bool = True,
    **options: float | int | None,
) -> Config:
    """The recipe with what the user asked for in its place.

    Args:
        images: The data, which decide the recipe and bound batch and queue.
        limit, bad_images: What `load_images` was given.
        weights: File that the backbone starts from.
        accumulate: Parts of every batch that are trained on one after the other.
        compile, channels_last: Of the networks.
        cuda_graph: Whether the step is captured.
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
    if (method, kind) not in RECIPES:
        raise ValueError(f"{method} has no recipe for {kind}")
    recipe = RECIPES[method, kind]
    if backbone is not None and is_transformer(backbone):
        recipe = RECIPES.get((method, "transformers"), recipe)
    n = len(images.train)
    epochs = recipe.epochs if epochs is None else epochs
    if compile and method == "dim":
        raise ValueError(f"compile: {method} takes features from inside its network, out of reach")
    if cuda_graph and method not in GRAPHED:
        raise ValueError(
            f"cuda-graph: a step of {method} reads or counts on the host; those of "
            f"{', '.join(GRAPHED)} do not"
        )
    if cuda_graph and devices > 1:
        raise ValueError(f"cuda-graph needs a single device, got {devices}")
    if accumulate < 1:
        raise ValueError(f"accumulate must be 1 or more, got {accumulate}")
    parts = devices * accumulate
    multiple = parts * recipe.options.get("groups", 1)
    batch_size = (
        min(recipe.batch_size, n // multiple * multiple) if batch_size is None else batch_size
    )
    if learning_rate is None:
        learning_rate = recipe.learning_rate * batch_size / 256
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    if not 2 * parts <= batch_size <= n or batch_size % parts:
        of = f"the {devices} devices" + (f" times accumulate {accumulate}" * (accumulate > 1))
        raise ValueError(
            f"batch-size must be a multiple of {of} from {2 * parts} to the {n} training images, "
            f"got {batch_size}"
        )
    if batch_size % multiple:
        raise ValueError(
            f"batch-size must be a multiple of {multiple}, the groups of {method} on {devices} "
            f"devices{' in parts' * (accumulate > 1)}, got {batch_size}"
        )
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"lr must be above 0 and finite, got {learning_rate}")
    bounds = {
        "weight-decay": (weight_decay, math.inf), "warmup": (warmup, 1),
        "augmentation": (augmentation, STRONGEST),
    }  # fmt: skip
    for name, (value, most) in bounds.items():
        if value is not None and not (0 <= value <= most and math.isfinite(value)):
            raise ValueError(f"{name} must be finite and from 0 to {most}, got {value}")
    backbone = backbone or BACKBONES[kind]
    if recipe.space:
        if images.channels != 3:
            raise ValueError(f"{method} needs images in colour, got {images.channels} channel")
        prefix = f"{recipe.space}:"
        backbone = backbone if backbone.startswith(prefix) else prefix + backbone
    return Config(
        method=method,
        data=data,
        backbone=backbone,
        stem=stem,
        image_size=images.size,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer or recipe.optimizer,
        learning_rate=learning_rate,
        weight_decay=recipe.weight_decay if weight_decay is None else weight_decay,
        weight_decay_end=recipe.weight_decay_end if weight_decay is None else None,
        warmup=recipe.warmup if warmup is None else warmup,
        precision=precision,
        devices=devices,
        seed=seed,
        options=_options(recipe, images, epochs, n // batch_size, options),
        limit=limit,
        crops=recipe.crops,
        augmentation=augmentation,
        stream=images.streamed,
        bad_images=bad_images,
        samples=n,
        fingerprint=images.fingerprint(),
        weights=weights,
        accumulate=accumulate,
        compile=compile,
        cuda_graph=cuda_graph,
        channels_last=channels_last,
    )


def _options(recipe: Recipe, images, epochs: int, steps: int, given: dict) -> dict:
    """The method's arguments. A queue longer than the data would hold a query's own image."""
    asked = {name: value for name, value in given.items() if value is not None}
    unknown = sorted(asked.keys() - recipe.options.keys())
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: this method has no such setting")
    options, n = dict(recipe.options), len(images.train)
    if "queue_size" in options:
        options["queue_size"] = min(options["queue_size"], n)
    known = {
        "steps": epochs * steps, "freeze": steps, "samples": n, "size": images.size,
        "channels": images.channels,
    }  # fmt: skip
    open_ones = [name for name, value in options.items() if value is None and name in known]
    options |= {name: known[name] for name in open_ones}
    return options | asked
