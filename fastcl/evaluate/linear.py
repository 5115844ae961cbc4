"""A linear probe with few labels: logistic regression on frozen features."""

import numpy as np
import torch
from torch import Tensor


def draw_labelled(labels: Tensor, per_class: int, seed: int) -> Tensor:
    """Rows int64 of `per_class` examples of each label, fewer where a label has fewer."""
    generator = np.random.default_rng(seed)
    values = labels.cpu().numpy()
    rows = [
        generator.permutation(np.flatnonzero(values == label))[:per_class]
        for label in np.unique(values)
    ]
    return torch.from_numpy(np.concatenate(rows))


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

    mean, deviation = train.mean(0), train.std(0, correction=0)
    # A feature that never moves is zero after the mean is taken off.
    deviation = torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation))
    test, truth = ((test - mean) / deviation).cpu().numpy(), test_labels.cpu().numpy()
    accuracy = []
    for seed in range(draws):
        rows = draw_labelled(train_labels, per_class, seed).to(train.device)
        known = ((train[rows] - mean) / deviation).cpu().numpy()
        probe = LogisticRegression(max_iter=1000).fit(known, train_labels[rows].cpu().numpy())
        accuracy.append(probe.score(test, truth))
    return float(np.mean(accuracy))
