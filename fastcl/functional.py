"""The losses as functions.

All take raw rows and normalise them (eps 1e-12, in float32 at least); `normalize=False` says that
they have unit length already. All return float32 scalars (float64 for float64 rows) and
accumulate in that dtype. None forms the similarity matrix: memory is linear in the number of rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _check
from .contrast import Contrast, contrast
from .momentum import momentum_update_
from .queue import queue_push_
from .reference import accumulate_dtype

__all__ = [
    "Contrast", "clip", "contrast", "dcl", "flat_nce", "info_nce", "moco", "momentum_update_",
    "nt_xent", "queue_push_", "row_products", "sup_con", "unit_rows",
]  # fmt: skip


def unit_rows(x: Tensor) -> Tensor:
    """Rows divided by their length.

    Equal to ``F.normalize(x.float(), dim=1, eps=1e-12).to(x.dtype)``.

    Args:
        x: `[n, d]`.

    Returns:
        `[n, d]` in the dtype of x; a zero row stays zero.
    """
    return F.normalize(x.to(accumulate_dtype(x.dtype)), dim=1, eps=1e-12).to(x.dtype)


def row_products(a: Tensor, b: Tensor) -> Tensor:
    """Products of the rows of two matrices that belong together.

    Equal to ``(a.float() * b.float()).sum(1)``.

    Args:
        a: `[n, d]`.
        b: `[n, d]`.

    Returns:
        `[n]` in float32 (float64 for float64 rows).
    """
    dtype = accumulate_dtype(a.dtype)
    return (a.to(dtype) * b.to(dtype)).sum(1)


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return loss.mean()
    return loss.sum() if reduction == "sum" else loss


def info_nce(
    query: Tensor,  # [n, d]
    key: Tensor,  # [n, d]
    negatives: Tensor | None = None,  # [m, d], or [n, m, d] where paired
    *,
    temperature: float = 0.1,
    negative_mode: str = "unpaired",
    reduction: str = "mean",
    normalize: bool = True,
) -> Tensor:
    """InfoNCE of every query against its key and the negatives.

    Equal to ``F.cross_entropy(unit_rows(query) @ unit_rows(key).T / temperature, arange(n))``.

    Args:
        query: `[n, d]`.
        key: `[n, d]`; row i is the positive of query i, and without negatives the other rows are
            its negatives.
        negatives: Rows that replace the other keys: `[m, d]` for all queries ("unpaired"), or
            `[n, m, d]` with a set for each ("paired").
        temperature: Positive; divides the similarities.
        negative_mode: "unpaired" or "paired".
        reduction: "mean", "sum", or "none" for one loss per query, `[n]`.
        normalize: False where all rows have unit length already.

    Returns:
        The loss, a scalar, or `[n]` for reduction "none".

    Raises:
        ValueError: Shapes do not fit, an empty batch, a temperature that is not positive, an
            unknown mode or reduction.
        TypeError: Dtypes differ or are not floating point.

    Source: van den Oord et al. 2018, "Representation Learning with Contrastive Predictive
    Coding", equation 4.
    """
    _check.pairs("key", key, "query", query)
    _check.one_of("negative_mode", negative_mode, ("unpaired", "paired"))
    _check.one_of("reduction", reduction, ("mean", "sum", "none"))
    scale = 1 / _check.positive("temperature", temperature)
    n = query.shape[0]
    q, k = (unit_rows(query), unit_rows(key)) if normalize else (query, key)
    if negatives is None:
        ids = torch.arange(n, device=q.device)
        if k.requires_grad:
            loss = contrast(q, k, scale=scale, ids=ids).loss
        else:
            # Constant keys: with the positive apart, one pass yields loss and gradient.
            loss = contrast(q, k, scale=scale, ids=ids, extra=row_products(q, k)).loss
    elif negative_mode == "unpaired":
        _check.rows("negatives", negatives, ("query", query))
        columns = unit_rows(negatives) if normalize else negatives
        loss = contrast(q, columns, scale=scale, extra=row_products(q, k)).loss
    else:
        loss = _paired(q, k, negatives, scale, normalize)
    return _reduce(loss, reduction)


def _paired(q, k, negatives, scale, normalize):
    """Negatives [n, m, d] are as large as anything formed here: plain products serve."""
    if negatives.dim() != 3 or negatives.shape[0] != q.shape[0]:
        raise ValueError(
            f"negatives must have shape [{q.shape[0]}, m, {q.shape[1]}] where paired, "
            f"got {list(negatives.shape)}"
        )
    _check.rows("negatives", negatives.flatten(0, 1), ("query", q))
    dtype = accumulate_dtype(q.dtype)
    rows = negatives.to(dtype)
    if normalize:
        rows = F.normalize(rows, dim=2, eps=1e-12)
    with torch.autocast(q.device.type, enabled=False):
        s = torch.einsum("nd,nmd->nm", q.to(dtype), rows)
    s = torch.cat([row_products(q, k)[:, None], s], dim=1) * scale
    return s.logsumexp(1) - s[:, 0]


def _two_views(z0: Tensor, z1: Tensor, normalize: bool) -> tuple[Tensor, Tensor]:
    """Both views as unit rows [2n, d] and the id that a row shares with its other view [2n]."""
    _check.pairs("z1", z1, "z0", z0)
    z = torch.cat([z0, z1])
    ids = torch.arange(z0.shape[0], device=z.device).repeat(2)
    return unit_rows(z) if normalize else z, ids


def nt_xent(
    z0: Tensor,  # [n, d]
    z1: Tensor,  # [n, d]
    *,
    temperature: float = 0.5,
    normalize: bool = True,
) -> Tensor:
    """NT-Xent, the loss of SimCLR: every row against the 2n - 1 other rows of both views.

    Equal to ``F.cross_entropy((z @ z.T / temperature).fill_diagonal_(-inf), partner)``
    with ``z = unit_rows(cat([z0, z1]))`` and ``partner = arange(2 * n).roll(n)``.

    Args:
        z0: First view `[n, d]`.
        z1: Second view `[n, d]`; row i belongs to row i of z0.
        temperature: Positive; divides the similarities.
        normalize: False where all rows have unit length already.

    Returns:
        The mean over all 2n rows, a scalar.

    Raises:
        ValueError: Shapes do not fit, an empty batch, or a temperature that is not positive.
        TypeError: Dtypes differ or are not floating point.

    Source: Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual
    Representations", equation 1.
    """
    scale = 1 / _check.positive("temperature", temperature)
    z, ids = _two_views(z0, z1, normalize)
    return contrast(z, scale=scale, ids=ids).loss.mean()


def _decoupled(z0: Tensor, z1: Tensor, scale: float, normalize: bool) -> Tensor:
    """The decoupled loss of every row of both views [2n]."""
    z, ids = _two_views(z0, z1, normalize)
    if z0.shape[0] == 1:
        raise ValueError("z0 must have 2 rows at least, got 1: a single pair has no negative")
    return contrast(z, scale=scale, ids=ids, positives_in=False).loss


def dcl(
    z0: Tensor,  # [n, d]
    z1: Tensor,  # [n, d]
    *,
    temperature: float = 0.1,
    normalize: bool = True,
) -> Tensor:
    """Decoupled contrastive loss: NT-Xent with the positive left out of the denominator.

    Equal to ``(s.masked_fill(self | positive, -inf).logsumexp(1) - s[positive]).mean()`` with
    ``s = z @ z.T / temperature`` and ``z = unit_rows(cat([z0, z1]))``.

    Arguments, result and errors are those of `nt_xent`; a single pair, which has no negative, is
    an error too.

    Source: Yeh et al. 2022, "Decoupled Contrastive Learning", equation 6.
    """
    scale = 1 / _check.positive("temperature", temperature)
    return _decoupled(z0, z1, scale, normalize).mean()


def flat_nce(
    z0: Tensor,  # [n, d]
    z1: Tensor,  # [n, d]
    *,
    temperature: float = 0.1,
    normalize: bool = True,
) -> Tensor:
    """FlatNCE: the value of NT-Xent with the gradient of the decoupled loss.

    Equal to ``nt_xent(z0, z1).detach() + dcl(z0, z1) - dcl(z0, z1).detach()``.

    Arguments, result and errors are those of `dcl`.

    Source: Chen et al. 2021, "Simpler, Faster, Stronger: Breaking The log-K Curse On Contrastive
    Learners With FlatNCE", equation 8.
    """
    scale = 1 / _check.positive("temperature", temperature)
    loss = _decoupled(z0, z1, scale, normalize)
    # With v the decoupled loss, NT-Xent is log(1 + exp(v)).
    return (F.softplus(loss).detach() + loss - loss.detach()).mean()


def sup_con(
    z: Tensor,  # [n, d]
    labels: Tensor,  # [n] int64
    *,
    temperature: float = 0.07,
    base_temperature: float | None = None,
    normalize: bool = True,
) -> Tensor:
    """Supervised contrastive loss: all other rows of the same label are positives.

    Equal to ``-(log_softmax(s) * same / same.sum(1)).sum(1).mean() * temperature /
    base_temperature`` with ``s = (z @ z.T / temperature).fill_diagonal_(-inf)``.

    Args:
        z: `[n, d]`; several views of a sample are several rows.
        labels: `[n]` int64.
        temperature: Positive; divides the similarities.
        base_temperature: Positive; the loss is multiplied by temperature / base_temperature.
            None: the same as temperature.
        normalize: False where all rows have unit length already.

    Returns:
        The mean over all rows, a scalar; a row without a positive counts as zero.

    Raises:
        ValueError: Shapes do not fit, an empty batch, or a temperature that is not positive.
        TypeError: Dtypes do not fit.

    Source: Khosla et al. 2020, "Supervised Contrastive Learning", equation 2.
    """
    scale = 1 / _check.positive("temperature", temperature)
    _check.rows("z", z)
    _check.vector("labels", labels, z.shape[0], z.device, integer=True)
    factor = 1.0
    if base_temperature is not None:
        factor = temperature / _check.positive("base_temperature", base_temperature)
    result = contrast(unit_rows(z) if normalize else z, scale=scale, ids=labels)
    return torch.where(result.count > 0, result.loss, 0).mean() * factor


def clip(
    image: Tensor,  # [n, d]
    text: Tensor,  # [n, d]
    logit_scale: Tensor | float,  # []
    *,
    ids: Tensor | None = None,  # [n] int64
    normalize: bool = True,
) -> Tensor:
    """CLIP loss: the mean of image to text and text to image.

    Equal to ``(F.cross_entropy(s, arange(n)) + F.cross_entropy(s.T, arange(n))) / 2`` with
    ``s = logit_scale * unit_rows(image) @ unit_rows(text).T``.

    Args:
        image: `[n, d]`.
        text: `[n, d]`; row i belongs to row i of image.
        logit_scale: One over the temperature, already exponentiated: a tensor of one element,
            which receives a gradient, or a float.
        ids: Optional integers `[n]`: pairs of equal id are positives of each other (duplicates).
        normalize: False where all rows have unit length already.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: Shapes do not fit, an empty batch, or a scale that is not positive.
        TypeError: Dtypes do not fit.

    Source: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
    Supervision", figure 3.
    """
    _check.pairs("text", text, "image", image)
    if ids is None:
        ids = torch.arange(image.shape[0], device=image.device)
    q, k = (unit_rows(image), unit_rows(text)) if normalize else (image, text)
    result = contrast(q, k, scale=logit_scale, ids=ids, both=True)
    return (result.loss.mean() + result.col_loss.mean()) / 2


def moco(
    query: Tensor,  # [n, d]
    key: Tensor,  # [n, d]
    queue: Tensor,  # [K, d] unit rows
    *,
    temperature: float = 0.07,
    normalize: bool = True,
) -> Tensor:
    """MoCo loss: every query against its key and a queue of older keys.

    Equal to ``F.cross_entropy(cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / temperature,
    zeros(n))`` with unit rows q and constant unit rows k.

    Args:
        query: `[n, d]`.
        key: `[n, d]`; receives no gradient.
        queue: `[K, d]` unit rows; receives no gradient. Rows of another dtype are converted.
        temperature: Positive; divides the similarities.
        normalize: False where query and key have unit length already.

    Returns:
        The mean over queries, a scalar.

    Raises:
        ValueError: Shapes do not fit, an empty batch or queue, a temperature that is not
            positive, or a queue that requires a gradient.
        TypeError: Dtypes do not fit.

    Source: He et al. 2020, "Momentum Contrast for Unsupervised Visual Representation Learning",
    equation 1.
    """
    _check.pairs("key", key, "query", query)
    _check.rows("queue", queue)
    if queue.requires_grad:
        raise ValueError("queue must not require a gradient")
    scale = 1 / _check.positive("temperature", temperature)
    q, k = (unit_rows(query), unit_rows(key.detach())) if normalize else (query, key.detach())
    return contrast(q, queue.to(q.dtype), scale=scale, extra=row_products(q, k)).loss.mean()
