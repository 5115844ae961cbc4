"""The general contrast: any positives, weights, biases and temperatures."""

import torch
from torch import Tensor

from ..contrast.node import row_losses
from ..contrast.problem import problem
from . import blocks
from .asked import Asked, asked, shares_something
from .contrast_ways import beside_lse, by_ids, joined, limited_to_margin, summed_labels
from .rows import held_to, row_products, wide
from .unit_rows import unit_rows


def contrast(
    query: Tensor,  # [n, d]
    key: Tensor | None = None,  # [m, d]
    *,
    temperature: float | Tensor = 0.1,
    labels: Tensor | tuple[Tensor, Tensor] | None = None,
    level_weights: Tensor | None = None,  # [L]
    targets: Tensor | tuple[Tensor, Tensor] | None = None,
    pairs: tuple[Tensor, Tensor, Tensor | None] | None = None,
    positives: str = "mean",
    row_weight: Tensor | None = None,  # [n]
    column_bias: Tensor | None = None,  # [m]
    margin: float | None = None,
    guide: Tensor | tuple[Tensor, Tensor] | None = None,
    label_smoothing: float = 0.0,
    both: bool = False,
    reduction: str = "mean",
    normalize: bool = True,
) -> Tensor:
    """Softmax contrast of rows and columns with any kind of positive.

    Equal to ``-(y / y.sum(1, keepdim=True) * s.log_softmax(1)).sum(1).mean()`` with ``s =
    unit_rows(query) @ unit_rows(key).T / temperature + column_bias`` and y_ij how much column j is
    a positive of row i. A row without a positive counts as zero; the mean is over n.

    Args:
        query: Rows `[n, d]`.
        key: Columns `[m, d]`. None: the rows among themselves, none with itself.
        temperature: Positive; divides the similarities. A tensor of one element, or of one per row
            `[n]`, receives a gradient.
        labels: int64 `[n]`, equal ones are positives, or `[n, L]`, the loss of every level by
            itself; with a key a pair of tensors, of the rows and of the columns.
        level_weights: `[L]` of the levels' losses in their sum; None: ones.
        targets: Not negative, `[n, c]` and `[m, c]` (one tensor without a key): y = a b^T.
        pairs: int64 rows `[p]` and columns `[p]` and their weights `[p]`, or None for ones. Of
            labels, targets and pairs one may be given; none: column i is the positive of row i.
        positives: "mean": of the logarithms (SupCon "out"); or "sum": the logarithm of the sum,
            ``s.logsumexp(1) - (s + log(y)).logsumexp(1)`` (MIL-NCE, SupCon "in" up to a constant).
        row_weight: Not negative, `[n]`: the mean is ``(row_weight * loss).sum() / n``.
        column_bias: `[m]`, added to the logits of a column: logQ correction, priors.
        margin: Columns whose cosine with the row is above that of its one positive by more are
            left out, false negatives. `false_negatives` tells how many.
        guide: Rows `[n, g]` and columns `[m, g]` of another model (one tensor without a key), whose
            cosines decide about the margin, 0 where none is given; nothing else is taken of them.
        label_smoothing: From 0 to 1: the part of y that is spread over all columns.
        both: Also contrast every column with all rows; the mean of both directions.
        reduction: "mean", "sum", or "none" for one loss per row, `[n]`.
        normalize: False where all rows have unit length already, or are to be taken as they are.

    Returns:
        The loss, a scalar, or `[n]` for reduction "none"; float32 (float64 for float64 rows).

    Raises:
        ValueError: Shapes do not fit, an empty batch, values out of their range, two kinds of
            positives, none without a key, a margin with several positives of a row, or options
            that exclude each other.
        TypeError: Dtypes do not fit.

    docs/positives.md has an example of every option.

    Source: van den Oord et al. 2018, equation 4; Khosla et al. 2020, equations 2 and 3; Miech et
    al. 2020, equation 1.
    """
    x = asked(
        query, key, temperature, labels, level_weights, targets, pairs, positives, row_weight,
        column_bias, margin, guide, label_smoothing, both, reduction,
    )  # fmt: skip
    shares_something(x, key is None)
    return of(x, query, key, normalize)


def of(x: Asked, query: Tensor, key: Tensor | None, normalize: bool) -> Tensor:
    """The contrast, by the way that serves what is asked."""
    limited = x.margin is not None
    alone = x.by_ids and not limited and (x.plain or key is not None)
    if alone and (not x.summed or x.diagonal):
        return by_ids(x, query, key, normalize)
    if normalize:
        query = unit_rows(query)
        key = None if key is None else unit_rows(key)
    # Of thin factors of y the sum under the logarithm is not known, and in the order of labels the
    # host asks for their number, which a graph cannot.
    asks = x.labels is not None and torch.compiler.is_compiling()
    # The operators know the similarities of rows with a bias or a temperature by cosines alone.
    raw = not (normalize or x.plain or x.guide is not None)
    if (limited and (raw or not x.by_ids)) or (x.summed and (x.targets is not None or asks)):
        return joined(x, blocks.losses(x, query, key))
    if limited:
        return limited_to_margin(x, query, key)
    if x.summed and x.labels is not None:
        return summed_labels(x, query, key)
    return beside_lse(x, query, key)


def false_negatives(
    query: Tensor,  # [n, d]
    key: Tensor,  # [n, d]
    *,
    margin: float = 0.0,
    guide: tuple[Tensor, Tensor] | None = None,  # [n, g] each
    normalize: bool = True,
) -> Tensor:
    """How many columns the margin of `contrast` leaves out of every row.

    Equal to ``(s > s.diagonal()[:, None] + margin).sum(1)`` without the diagonal, with the cosines
    s of query and key, or of the guide.

    Returns:
        `[n]` int64.

    Raises:
        ValueError, TypeError: As for `contrast`.
    """
    x = asked(
        query, key, 1.0, None, None, None, None, "mean", None, None, margin, guide, 0.0, False,
        "none",
    )  # fmt: skip
    q, k = (query, key) if x.guide is None else wide(x.guide, query)
    if normalize or x.guide is not None:
        q, k = unit_rows(q), unit_rows(k)
    pivot = held_to(row_products(q, k), margin)
    with torch.no_grad():
        p = problem(q, k, scale=1.0, diagonal=True, normalize=False)
        return row_losses(p, pivot=pivot).rank
