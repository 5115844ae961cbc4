"""Linear probes: logistic regression on frozen features, with all labels or a few."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _check
from .features import labelled

# Rows whose logits exist at once: 65,536 x 1,000 classes are 262 MB.
BLOCK = 65536
PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
HELD_OUT = 0.2


def draw_labelled(labels: Tensor, per_class: int, seed: int) -> Tensor:
    """Rows int64 of `per_class` examples of each label, fewer where a label has fewer."""
    return _draw(labels, lambda count: min(per_class, count), seed)


def draw_fraction(labels: Tensor, fraction: float, seed: int) -> Tensor:
    """Rows int64 of the same fraction of every label, one example at least."""
    return _draw(labels, lambda count: max(1, round(fraction * count)), seed)


def _draw(labels: Tensor, wanted, seed: int) -> Tensor:
    generator = np.random.default_rng(seed)
    values = labels.cpu().numpy()
    rows = []
    for label in np.unique(values[values >= 0]):  # -1: no label
        members = np.flatnonzero(values == label)
        rows.append(generator.permutation(members)[: wanted(len(members))])
    return torch.from_numpy(np.concatenate(rows))


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation `[d]` of the rows."""
    mean, deviation = x.mean(0), x.std(0, correction=0)
    # A feature that never moves is zero after the mean is taken off.
    return mean, torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation))


@torch.enable_grad()
def fit_head(
    x: Tensor,  # [n, d]
    labels: Tensor,  # [n] int64
    *,
    classes: int,
    penalty: float,
    start: Tensor | None = None,  # [classes, d + 1]
    steps: int = 200,
) -> Tensor:
    """Weights `[classes, d + 1]`, the bias last, of a logistic regression.

    Minimises ``F.cross_entropy(x @ w.T + b, labels) + penalty / 2 * w.square().sum()`` by L-BFGS
    over all rows: convex, so there is no learning rate, batch or seed to choose. In scikit-learn
    this is ``LogisticRegression(C=1 / (n * penalty))``.
    """
    n, d = x.shape
    weights = x.new_zeros(classes, d + 1) if start is None else start.clone()
    weights.requires_grad_()
    search = torch.optim.LBFGS(
        [weights], max_iter=steps, tolerance_grad=1e-6, tolerance_change=1e-10, history_size=10,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> Tensor:
        search.zero_grad()
        total = 0.5 * penalty * weights[:, :-1].square().sum()
        total.backward()
        for rows, truth in zip(x.split(BLOCK), labels.split(BLOCK), strict=True):
            logits = F.linear(rows, weights[:, :-1], weights[:, -1])
            part = F.cross_entropy(logits, truth, reduction="sum") / n
            part.backward()
            total = total.detach() + part.detach()
        return total

    search.step(loss)
    return weights.detach()


def _accuracy(weights: Tensor, x: Tensor, labels: Tensor) -> float:
    found = [F.linear(b, weights[:, :-1], weights[:, -1]).argmax(1) for b in x.split(BLOCK)]
    return (torch.cat(found) == labels).double().mean().item()


@dataclass(frozen=True)
class LinearProbe:
    """Accuracy on the test split in [0, 1], and the penalty that the held-out rows chose."""

    accuracy: float
    penalty: float


def linear_probe(
    train: Tensor,  # [m, d]
    train_labels: Tensor,  # [m] int64
    test: Tensor,  # [n, d]
    test_labels: Tensor,  # [n] int64
    *,
    penalties: tuple[float, ...] = PENALTIES,
    seed: int = 0,
) -> LinearProbe:
    """The linear evaluation protocol: a linear classifier on frozen features, with all labels.

    Features are standardised by the training split. A fifth of it, drawn by the seed, chooses
    the L2 penalty; then the classifier is fitted to all of it.

    Args:
        train: Features `[m, d]`.
        train_labels: int64 `[m]`; rows of -1, which stands for none, are left out of both splits.
        test: Features `[n, d]`.
        test_labels: int64 `[n]`; read only for the accuracy.
        penalties: Of the weights, to choose from.
        seed: Of the draw of held-out rows.

    Raises:
        ValueError: Shapes do not fit, or fewer than two training rows.
        TypeError: Labels that are not int64, or rows that are not floating point.

    Source: Kornblith et al. 2019, "Do Better ImageNet Models Transfer Better?", appendix A.4:
    L-BFGS, penalty by held-out accuracy.
    """
    _check.rows("train", train)
    _check.rows("test", test, ("train", train))
    _check.vector("train_labels", train_labels, train.shape[0], train.device, integer=True)
    _check.vector("test_labels", test_labels, test.shape[0], train.device, integer=True)
    train, train_labels = labelled("train_labels", train_labels, train)
    test, test_labels = labelled("test_labels", test_labels, test)
    if train.shape[0] < 2:
        raise ValueError(f"train must have two labelled rows or more, got {train.shape[0]}")
    train, test = train.float(), test.float()
    mean, deviation = statistics(train)
    train, test = (train - mean) / deviation, (test - mean) / deviation
    classes = int(torch.max(train_labels.max(), test_labels.max())) + 1
    held = max(1, round(HELD_OUT * len(train)))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed), device="cpu")
    order = order.to(train.device)
    held_out, known = order[:held], order[held:]
    weights, best, chosen = None, -1.0, penalties[0]
    x, labels = train[known], train_labels[known]
    for penalty in sorted(penalties, reverse=True):  # each starts where the stronger one ended
        weights = fit_head(x, labels, classes=classes, penalty=penalty, start=weights)
        accuracy = _accuracy(weights, train[held_out], train_labels[held_out])
        if accuracy > best:
            best, chosen = accuracy, penalty
    weights = fit_head(train, train_labels, classes=classes, penalty=chosen)
    return LinearProbe(_accuracy(weights, test, test_labels), chosen)


def probe_accuracy(
    train: Tensor,  # [m, d]
    train_labels: Tensor,  # [m] int64
    test: Tensor,  # [n, d]
    test_labels: Tensor,  # [n] int64
    *,
    per_class: int = 5,
    draws: int = 5,
) -> float:
    """Accuracy on the whole test split after training on a few labels, mean over the draws.

    Features are standardised with mean and deviation of the whole training split, which takes no
    labels; then scikit-learn's logistic regression with its default L2 penalty (C = 1).

    Args:
        train: Features `[m, d]` the labelled examples are drawn from.
        train_labels: int64 `[m]`.
        test: Features `[n, d]`.
        test_labels: int64 `[n]`.
        per_class: Labelled examples per class.
        draws: Repetitions, with seeds 0, 1, ...
    """
    from sklearn.linear_model import LogisticRegression

    mean, deviation = statistics(train)
    test, test_labels = labelled("test_labels", test_labels, test)
    test, truth = ((test - mean) / deviation).cpu().numpy(), test_labels.cpu().numpy()
    accuracy = []
    for seed in range(draws):
        rows = draw_labelled(train_labels, per_class, seed).to(train.device)
        known = ((train[rows] - mean) / deviation).cpu().numpy()
        probe = LogisticRegression(max_iter=1000).fit(known, train_labels[rows].cpu().numpy())
        accuracy.append(probe.score(test, truth))
    return float(np.mean(accuracy))
