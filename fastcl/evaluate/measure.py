"""Every figure of a backbone, each with its protocol."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .. import _check
from ..pretrain.augment import Views
from ..pretrain.data import Images
from .collapse import diagnose
from .features import evaluating, extract, labelled, pixels
from .finetune import finetune, finetune_steps
from .geometry import alignment, uniformity
from .knn import knn_predict
from .linear import draw_fraction, linear_probe, probe_accuracy
from .retrieval import retrieve

PIXELS, UNTRAINED, TRAINED = "raw pixels", "untrained backbone", "trained backbone"


@dataclass(frozen=True)
class Choices:
    """What a user decides about an evaluation.

    Args:
        knn_k: Neighbours that vote.
        temperature: Of their weights.
        fractions: Of the labels to fine-tune with.
        finetune_steps: Of SGD; by the number of images where None.
        retrieval_k: Neighbours in precision and recall.
        embedding: "auto", "tsne" or "umap".
        seed: Of draws and augmentation.
    """

    knn_k: int = 20
    temperature: float = 0.07
    fractions: tuple[float, ...] = (0.01, 0.1)
    finetune_steps: int | None = None
    retrieval_k: int = 10
    embedding: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        _check.count("knn-k", self.knn_k)
        _check.count("retrieval-k", self.retrieval_k)
        _check.positive("temperature", self.temperature)
        if self.finetune_steps is not None:
            _check.count("finetune-steps", self.finetune_steps)
        for fraction in self.fractions:
            if not 0 < _check.finite("fractions", fraction) <= 1:
                raise ValueError(f"fractions must be above 0 and at most 1, got {fraction}")


@dataclass(frozen=True)
class Metric:
    """One figure of several kinds of features.

    Args:
        name: Of the figure.
        protocol: How it was taken, in a sentence or two.
        values: Kind of features to value; a kind that has no such figure is left out.
        percent: Whether it is shown in percent.
        better: "higher", "lower", or "" where neither is.
    """

    name: str
    protocol: str
    values: dict[str, float] = field(default_factory=dict)
    percent: bool = True
    better: str = "higher"

    def text(self, features: str) -> str:
        if features not in self.values:
            return "-"
        value = self.values[features]
        return f"{value:.1%}" if self.percent else f"{value:#.3g}"

    @property
    def best(self) -> str | None:
        """The kind of features with the best value, where there is something to choose."""
        if not self.better or len(set(self.values.values())) < 2:
            return None
        choose = max if self.better == "higher" else min
        return choose(self.values, key=self.values.get)


Tell = Callable[[str], None]
Features = dict[str, tuple[Tensor, Tensor]]  # name to the features of both splits


def features_of(
    images: Images, backbones: dict[str, nn.Module], numbers: tuple[Tensor, Tensor] | None = None
) -> Features:
    """Pixels and the output of every backbone on both splits, normalised by these numbers, or by
    those of the images."""
    found: Features = {PIXELS: (pixels(images.train), pixels(images.test))}
    numbers = images.statistics() if numbers is None else numbers
    for name, backbone in backbones.items():
        found[name] = tuple(extract(backbone, x, numbers) for x in (images.train, images.test))
    return found


def classification(
    features: Features, images: Images, choices: Choices, tell: Tell
) -> list[Metric]:
    """Neighbours, linear probes and retrieval of frozen features."""
    known, many = ((x >= 0).sum().item() for x in (images.train_labels, images.test_labels))
    k, tau = min(choices.knn_k, known), choices.temperature
    r = min(choices.retrieval_k, known)
    data = f"{known:,} training and {many:,} test images"
    knn = Metric(
        f"{k}-NN accuracy",
        f"Vote of the {k} nearest training images by cosine, weight exp(cosine / {tau:g}) "
        f"(Wu et al. 2018); {data}.",
    )
    linear = Metric(
        "linear probe, all labels",
        "Logistic regression (L-BFGS) on frozen, standardised features of all training images; "
        "L2 penalty chosen on a held-out fifth of them.",
    )
    few = Metric(
        "linear probe, 5 labels per class",
        "Logistic regression (C = 1) on frozen, standardised features of 5 labelled images per "
        "class; mean of 5 draws.",
    )
    precision = Metric(
        f"retrieval precision@{r}",
        f"Share of the {r} nearest training images by cosine that show the class of the test "
        f"image.",
    )
    recall = Metric(
        f"retrieval recall@{r}",
        f"Share of all training images of the class that are among the {r}; at most {r} / images "
        f"of the class.",
    )
    hit = Metric(
        f"retrieval hit rate@{r}",
        "Share of test images with one such neighbour at least (Recall@k in metric learning).",
    )
    for name, (train, test) in features.items():
        train, train_labels = labelled("train_labels", images.train_labels, train)
        test, test_labels = labelled("test_labels", images.test_labels, test)
        tell(f"neighbours of {name}")
        votes = knn_predict(test, train, train_labels, k=k, temperature=tau)
        knn.values[name] = (votes == test_labels).double().mean().item()
        found = retrieve(test, test_labels, train, train_labels, k=r)
        precision.values[name], recall.values[name] = found.precision, found.recall
        hit.values[name] = found.hit_rate
        tell(f"linear probes of {name}")
        probe = linear_probe(train, train_labels, test, test_labels, seed=choices.seed)
        linear.values[name] = probe.accuracy
        few.values[name] = probe_accuracy(train, train_labels, test, test_labels)
    return [knn, linear, few, precision, recall, hit]


def finetuning(
    backbones: dict[str, nn.Module], images: Images, choices: Choices, tell: Tell
) -> list[Metric]:
    """Accuracy of whole networks trained with a fraction of the labels."""
    metrics = []
    for fraction in choices.fractions:
        rows = draw_fraction(images.train_labels, fraction, choices.seed)
        steps = choices.finetune_steps or finetune_steps(len(rows))
        metric = Metric(
            f"fine-tuned, {100 * fraction:g} % of the labels",
            f"All weights trained with {len(rows):,} labelled images, the same share of every "
            f"class: {steps:,} steps of SGD from 0.05 by a cosine, batch 128, light augmentation.",
        )
        for name, backbone in backbones.items():

            def progress(step: int, steps: int, name=name, metric=metric) -> None:
                if step == 1 or step % 50 == 0:
                    tell(f"{metric.name}: {name}, step {step}/{steps}")

            metric.values[name] = finetune(
                backbone, images, fraction, steps=steps, seed=choices.seed, progress=progress
            )
        metrics.append(metric)
    return metrics


@torch.no_grad()
def geometry(
    features: Features, backbones: dict[str, nn.Module], images: Images, choices: Choices
) -> list[Metric]:
    """Alignment, uniformity, spread and effective rank of the test images' features."""
    n = len(images.test)
    align = Metric(
        "alignment",
        f"Mean squared distance of the normalised features of two random views of each of {n:,} "
        f"test images (Wang and Isola 2020).",
        percent=False,
        better="lower",
    )
    uniform = Metric(
        "uniformity",
        f"log mean exp(-2 |x - y|^2) over all pairs of {n:,} normalised test features; lower is "
        f"more even (Wang and Isola 2020).",
        percent=False,
        better="lower",
    )
    rank = Metric(
        "effective rank",
        "exp of the entropy of the singular values of the normalised test features about their "
        "mean, as in training; the width bounds it.",
        percent=False,
        better="",
    )
    spread = Metric(
        "spread",
        "Deviation of the normalised features about their mean, over all dimensions: 0 where "
        "collapsed, 1 where even.",
        percent=False,
        better="",
    )
    for name, (_, test) in features.items():
        if n > 1:
            uniform.values[name] = uniformity(test)
            found = diagnose(test)
            rank.values[name], spread.values[name] = found.effective_rank, found.spread
    numbers = images.statistics()
    views = Views(images.kind, images.size, numbers).to(images.test.device)
    for name, backbone in backbones.items():
        with evaluating(backbone), torch.random.fork_rng():
            torch.manual_seed(choices.seed)
            pairs = [
                [backbone(view).float() for view in views(batch, 2)]
                for batch in images.test.split(512)
            ]
        align.values[name] = alignment(*(torch.cat(side) for side in zip(*pairs, strict=True)))
    return [align, uniform, rank, spread]
