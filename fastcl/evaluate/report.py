"""The table at the end of a run: raw pixels, the untrained backbone and the trained one."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .._files import replace_file
from ..pretrain.backbone import build_backbone
from ..pretrain.data import Images, load_images
from ..pretrain.recipe import Config
from ..pretrain.weights import Facts, fill, read_weights
from .features import extract, labelled, pixels
from .knn import knn_predict
from .linear import probe_accuracy

WEIGHTS = "backbone.safetensors"
RESULTS = "results.json"
CONFIG = "config.json"


@dataclass(frozen=True)
class Score:
    """Accuracy of one kind of features on the test split, in [0, 1]."""

    features: str
    knn: float
    probe: float


@dataclass(frozen=True)
class Report:
    """What a run came to.

    Args:
        scores: Empty where the data have no labels.
        shares: Of the step time in loss, queue and momentum; None where not measured.
        seconds: Spent training, over all sessions; None where unknown.
    """

    scores: list[Score]
    shares: dict[str, float] | None
    seconds: float | None

    def save(self, path: Path) -> None:
        text = json.dumps(dataclasses.asdict(self), indent=2) + "\n"
        replace_file(path, lambda file: file.write(text.encode()))


def score(name: str, train: Tensor, test: Tensor, images: Images) -> Score:
    """Both accuracies of features `[n, d]` of the training and the test images."""
    test, truth = labelled("test_labels", images.test_labels, test)
    predicted = knn_predict(test, train, images.train_labels, classes=len(images.classes))
    knn = (predicted == truth).float().mean().item()
    probe = probe_accuracy(train, images.train_labels, test, truth)
    return Score(name, knn, probe)


def initial_backbone(config: Config, channels: int) -> tuple[nn.Module, int]:
    """The backbone as the run of this configuration starts it, and its width."""
    torch.manual_seed(config.seed)
    return build_backbone(
        config.backbone, channels=channels, size=config.image_size, stem=config.stem,
        small_crops=config.crops > 0,
    )  # fmt: skip


def score_all(config: Config, trained: nn.Module, images: Images) -> list[Score]:
    """Scores of pixels, untrained and trained backbone; none for data without labels."""
    if not images.labelled:
        return []
    untrained, _ = initial_backbone(config, images.channels)
    return score_backbones(untrained, trained, images)


def score_backbones(untrained: nn.Module, trained: nn.Module, images: Images) -> list[Score]:
    """The same of any network from normalised images to features; the data have labels."""
    statistics, images = images.statistics(), images.with_labels()
    scores = [score("raw pixels", pixels(images.train), pixels(images.test), images)]
    for name, backbone in (("untrained backbone", untrained), ("trained backbone", trained)):
        backbone = backbone.to(images.train.device)
        train, test = (extract(backbone, x, statistics) for x in (images.train, images.test))
        scores.append(score(name, train, test, images))
    return scores


def load_run(
    folder: Path, limit: int | None = None, data: str | None = None, bad: str | None = None
) -> tuple[Config, nn.Module, Images]:
    """What a finished run left: its configuration, its backbone and its data, on the CPU.

    Args:
        folder: Made by `fastcl pretrain`.
        limit: Images of each split at most; the run's own by default.
        data: Other data, as `load_images` takes them, which the backbone sees as it saw its own.
        bad: What is done about images that cannot be read, "error" or "skip"; as in the run by
            default.

    Raises:
        FileNotFoundError: The folder is no run, the run is not finished, or its data are gone.
        ValueError: The weights are of another backbone, or the data are not those of the run.
    """
    config = Config.load(folder / CONFIG)
    weights = folder / WEIGHTS
    if not weights.exists():
        raise FileNotFoundError(
            f"{str(folder)!r} has no {WEIGHTS}: the run is not finished; "
            f"repeat its command to continue it"
        )
    limit = limit or config.limit
    kept = "always" if config.stream else "never"
    images = load_images(
        data or config.data, size=config.image_size, limit=limit, bad=bad or config.bad_images,
        stream="auto" if data else kept,
    )  # fmt: skip
    if (
        data is None
        and limit == config.limit
        and config.fingerprint not in (None, images.fingerprint())
    ):
        raise ValueError(
            f"the data of the run have changed: {config.data!r} has {len(images.train):,} training "
            f"images with fingerprint {images.fingerprint()}, the run was made with "
            f"{config.samples:,} of {config.fingerprint}"
        )
    facts, state = read_weights(weights)
    if data is not None:
        images = _seen_by(images, facts, data)
    backbone, _ = initial_backbone(config, images.channels)
    if facts.epoch != config.epochs:
        raise FileNotFoundError(
            f"{str(weights)!r} is of epoch {facts.epoch}, but the run now goes to epoch "
            f"{config.epochs}: repeat its command to finish it"
        )
    fill(backbone, state, weights)
    return config, backbone, images.readable()


def _seen_by(images: Images, facts: Facts, data: str) -> Images:
    """Other images as a backbone takes them."""
    found, wanted = (images.channels, images.size), (facts.channels, facts.size)
    if found != wanted:
        raise ValueError(
            f"data must be images of {wanted[0]} channels and {wanted[1]} pixels as those of the "
            f"run, {data!r} has {found[0]} and {found[1]}"
        )
    return dataclasses.replace(
        images, seen_by=(torch.tensor(facts.mean), torch.tensor(facts.deviation))
    )
