"""Pictures of a run: its curves and its features in the plane."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

# t-SNE takes seconds up to here and minutes beyond.
LARGEST_EMBEDDING = 2000


def plot_curves(history: Sequence[dict], path: Path) -> None:
    """Loss and contrastive top-1 of every epoch."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    epochs = [row["epoch"] for row in history]
    titles = {"loss": "loss", "top1": "contrastive top-1"}
    for axis, (name, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        axis.plot(epochs, [row[name] for row in history])
        axis.set(xlabel="epoch", title=title)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def plot_embedding(
    features: Tensor,  # [n, d]
    labels: Tensor | None,  # [n] int64
    classes: Sequence[str],
    path: Path,
) -> None:
    """Features in the plane by t-SNE, coloured by class where there are labels.

    Args:
        features: `[n, d]`; the first 2,000 rows are drawn.
        labels: int64 `[n]` or None.
        classes: The name of each label.
        path: Of the picture.
    """
    from sklearn.manifold import TSNE

    x = features[:LARGEST_EMBEDDING].cpu().numpy()
    if len(x) < 4:  # below, no perplexity is valid
        return
    perplexity = min(30.0, (len(x) - 1) / 3)
    plane = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(x)
    figure = Figure(figsize=(7, 6), layout="constrained")
    axis = figure.subplots()
    if labels is None:
        axis.scatter(*plane.T, s=9)
    else:
        values = labels[:LARGEST_EMBEDDING].cpu().numpy()
        for label in np.unique(values):
            name = classes[label] if label < len(classes) else str(label)
            axis.scatter(*plane[values == label].T, s=9, label=name)
        if len(np.unique(values)) <= 20:
            axis.legend(markerscale=2, fontsize="small")
    axis.set(xticks=[], yticks=[], title="features of the test images (t-SNE)")
    figure.savefig(path, dpi=120)
