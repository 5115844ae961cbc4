"""Pictures of a run: its curves, its features in the plane, neighbours, maps, spectra."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

# t-SNE takes seconds up to here and minutes beyond.
LARGEST_EMBEDDING = 2000
# Told apart by most colour-blind people, on white and on black.
HIT, MISS = "#1f9e89", "#e8743b"
CURVES = {
    "loss": "loss",
    "top1": "contrastive top-1",
    "spread": "spread of the embedding",
    "effective_rank": "effective rank of the embedding",
}


def curves(history: Sequence[dict]) -> Figure:
    """Loss, contrastive top-1, and the health of the embedding where the run kept it."""
    names = [name for name in CURVES if any(row.get(name) is not None for row in history)]
    figure = Figure(figsize=(4.5 * min(2, len(names)), 3.2 * -(-len(names) // 2)),
                    layout="constrained")  # fmt: skip
    axes = figure.subplots(-(-len(names) // 2), min(2, len(names)), squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        kept = [row for row in history if row.get(name) is not None]
        marker = "o" if len(kept) < 2 else None
        axis.plot([r["epoch"] for r in kept], [r[name] for r in kept], marker=marker, color=HIT)
        axis.set(xlabel="epoch", title=CURVES[name])
        if name in ("top1", "spread", "effective_rank"):
            axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def plot_curves(history: Sequence[dict], path: Path) -> None:
    """The picture of `curves` as a file."""
    curves(history).savefig(path, dpi=120)


def plane_method(method: str) -> str:
    """ "tsne" or "umap"; "auto" is UMAP where it is installed.

    Raises:
        ValueError: Unknown method.
        ImportError: UMAP is asked for and not there.
    """
    if method not in ("auto", "tsne", "umap"):
        raise ValueError(f"embedding must be auto, tsne or umap, got {method!r}")
    there = find_spec("umap") is not None
    if method == "umap" and not there:
        raise ImportError("embedding umap needs umap-learn: pip install umap-learn")
    return ("umap" if there else "tsne") if method == "auto" else method


def plane(features: Tensor, method: str = "tsne") -> np.ndarray | None:
    """The first 2,000 rows in the plane, `[n, 2]`; None below four rows, too few for either."""
    x = features[:LARGEST_EMBEDDING].cpu().numpy()
    if len(x) < 4:
        return None
    if plane_method(method) == "umap":
        from umap import UMAP

        return UMAP(n_neighbors=min(15, len(x) - 1), random_state=0).fit_transform(x)
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(x) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(x)


def embedding(
    features: Tensor,  # [n, d]
    labels: Tensor | None,  # [n] int64
    classes: Sequence[str],
    method: str = "tsne",
) -> Figure | None:
    """Features in the plane, coloured by class where there are labels; None below four rows.

    Args:
        features: `[n, d]`; the first 2,000 rows are drawn.
        labels: int64 `[n]` or None.
        classes: The name of each label.
        method: "auto", "tsne" or "umap".
    """
    points = plane(features, method)
    if points is None:
        return None
    figure = Figure(figsize=(7.5, 6), layout="constrained")
    axis = figure.subplots()
    if labels is None:
        axis.scatter(*points.T, s=9, rasterized=True)
    else:
        values = labels[:LARGEST_EMBEDDING].cpu().numpy()
        for label in np.unique(values):
            name = "no label" if label < 0 else str(label)
            name = classes[label] if 0 <= label < len(classes) else name
            axis.scatter(*points[values == label].T, s=9, label=name, rasterized=True)
        if len(np.unique(values)) <= 20:
            axis.legend(markerscale=2, fontsize="small", bbox_to_anchor=(1, 1), loc="upper left",
                        frameon=False)  # fmt: skip
    name = {"umap": "UMAP", "tsne": "t-SNE"}[plane_method(method)]
    axis.set(xticks=[], yticks=[], title=f"features of the test images ({name})")
    axis.spines[:].set_alpha(0.3)
    return figure


def plot_embedding(
    features: Tensor, labels: Tensor | None, classes: Sequence[str], path: Path
) -> None:
    """The picture of `embedding` by t-SNE as a file; none below four rows."""
    figure = embedding(features, labels, classes)
    if figure is not None:
        figure.savefig(path, dpi=120)


def _pixels(images: Tensor) -> np.ndarray:
    """uint8 `[n, c, h, w]` to `[n, h, w, 3]`."""
    x = images.cpu()
    return x.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()


def contact_sheet(
    queries: Tensor,  # uint8 [n, c, h, w]
    neighbours: Tensor,  # uint8 [n, k, c, h, w]
    query_names: Sequence[str] | None = None,
    neighbour_names: Sequence[Sequence[str]] | None = None,
) -> Figure:
    """Each query with its nearest images beside it, framed by whether they share its class.

    Args:
        queries: uint8 `[n, c, h, w]`.
        neighbours: uint8 `[n, k, c, h, w]`, nearest first.
        query_names: Class of each query; None draws no frames.
        neighbour_names: Class of each neighbour.
    """
    n, k = neighbours.shape[:2]
    gap = 0.22  # of a side
    left_edge = -1.1 if query_names else -0.1
    right_edge, bottom = (k + 1) * (1 + gap) + 0.55 - gap, n * (1 + gap)
    figure = Figure(figsize=(0.78 * (right_edge - left_edge), 0.78 * (bottom + 0.4)))
    axis = figure.add_axes((0, 0, 1, 1))
    for row, (query, near) in enumerate(zip(queries, neighbours, strict=True)):
        top = row * (1 + gap)
        for column, picture in enumerate(_pixels(torch.cat([query[None], near]))):
            left = column * (1 + gap) + (0.5 if column else 0)
            axis.imshow(picture, extent=(left, left + 1, top + 1, top), interpolation="none")
            if query_names is None or column == 0:
                continue
            name = neighbour_names[row][column - 1]
            hit = name == query_names[row]
            axis.add_patch(
                Rectangle((left, top), 1, 1, fill=False, linewidth=2.2,
                          edgecolor=HIT if hit else MISS, linestyle="-" if hit else (0, (2, 1)))
            )  # fmt: skip
            if not hit:
                axis.text(left + 0.5, top + 1.03, name, ha="center", va="top", fontsize=7)
        if query_names is not None:
            axis.text(-0.1, top + 0.5, query_names[row], ha="right", va="center", fontsize=8)
    axis.text(0.5, -0.12, "query", ha="center", fontsize=8)
    axis.text(1.5 + gap, -0.12, f"the {k} nearest training images, nearest first", fontsize=8)
    axis.set(xlim=(left_edge, right_edge), ylim=(bottom, -0.4), aspect="equal")
    axis.axis("off")
    return figure


def map_sheet(images: Tensor, columns: dict[str, Tensor]) -> Figure:
    """Images `[n, c, h, w]` uint8 with maps `[n, height, width]` in the columns beside them."""
    n, width = len(images), len(columns) + 1
    figure = Figure(figsize=(1.15 * width, 1.15 * n + 0.35), layout="constrained")
    axes = figure.subplots(n, width, squeeze=False)
    for row, picture in enumerate(_pixels(images)):
        axes[row, 0].imshow(picture, interpolation="none")
        for axis, x in zip(axes[row, 1:], columns.values(), strict=True):
            axis.imshow(x[row].cpu().numpy(), cmap="magma", interpolation="none")
    for axis, title in zip(axes[0], ("image", *columns), strict=True):
        axis.set_title(title, fontsize=8)
    for axis in axes.flat:
        axis.axis("off")
    return figure


def spectra(features: dict[str, Tensor]) -> Figure:
    """Singular values, and the spread of every dimension, of one or several sets of features.

    Args:
        features: Name to `[n, d]`.
    """
    from .geometry import dimension_spread, singular_values

    figure = Figure(figsize=(9, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = dict(zip(features, ("#9a9a9a", HIT, MISS), strict=False))
    for name, x in features.items():
        values = singular_values(F.normalize(x.float(), dim=1), center=True).cpu()
        values = values / values.max().clamp(min=1e-30)
        left.semilogy(range(1, len(values) + 1), values.clamp(min=1e-6), label=name,
                      color=colours[name])  # fmt: skip
        spread = dimension_spread(x).cpu().sort(descending=True).values
        right.plot(range(1, len(spread) + 1), spread, label=name, color=colours[name])
    left.set(xlabel="direction", title="singular values, of the largest")
    right.set(xlabel="dimension, sorted", title="spread of each dimension (even: 1)")
    right.set_ylim(bottom=0)
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize="small")
    return figure
