"""What `contrast` is asked for, checked."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _check
from ..contrast.gradients import refuse_forward_mode
from ..reference import accumulate_dtype
from .rows import inverse_temperature


class Asked(NamedTuple):
    """The options of `contrast`; of the four kinds of positives one is given, or none."""

    scale: float | Tensor  # one over the temperature, where that is one number
    row_scale: Tensor | None  # [n], where it is one per row
    labels: tuple[Tensor, Tensor] | None  # [n, L] and [m, L]
    level_weights: Tensor | None  # [L]
    targets: tuple[Tensor, Tensor] | None  # [n, c] and [m, c]
    pairs: tuple[Tensor, Tensor, Tensor] | None  # [p] each
    summed: bool  # the logarithm of the sum over positives
    row_weight: Tensor | None  # [n]
    column_bias: Tensor | None  # [m]
    margin: float | None
    guide: tuple[Tensor, Tensor] | None  # [n, g] and [m, g]
    smoothing: float
    both: bool
    reduction: str

    @property
    def diagonal(self) -> bool:
        return self.labels is None and self.targets is None and self.pairs is None

    @property
    def by_ids(self) -> bool:
        """Equal integers, one per row and column, are all there is to the positives."""
        levels = 1 if self.labels is None else self.labels[0].shape[1]
        return self.targets is None and self.pairs is None and levels == 1

    def shares(self, levels: int, rows: Tensor) -> Tensor:
        """What every level counts in the loss, [levels] beside the rows."""
        return rows.new_ones(levels) if self.level_weights is None else self.level_weights

    @property
    def plain(self) -> bool:
        """Every logit is a similarity times one number."""
        return self.column_bias is None and self.row_scale is None


def asked(
    query, key, temperature, labels, level_weights, targets, pairs, positives, row_weight,
    column_bias, margin, guide, label_smoothing, both, reduction,
) -> Asked:  # fmt: skip
    """The options of `contrast`, or the errors that it names."""
    _check.no_transform()
    _check.rows("query", query)
    if key is not None:
        _check.rows("key", key, ("query", query))
    _check.one_of("positives", positives, ("mean", "sum"))
    _check.one_of("reduction", reduction, ("mean", "sum", "none"))
    n, device, itself = len(query), query.device, key is None
    m, dtype = n if itself else len(key), accumulate_dtype(query.dtype)
    kinds = [x is not None for x in (labels, targets, pairs)]
    if sum(kinds) > 1:
        raise ValueError("one of labels, targets and pairs may be given, got several")
    if not any(kinds):
        if itself:
            raise ValueError("labels, targets or pairs must be given where key is None")
        _check.pairs("key", key, "query", query)
    if both and itself:
        raise ValueError("both must be False where key is None: both directions are the same")
    if both and n != m and (row_weight is not None or reduction == "none"):
        raise ValueError(
            f"both takes as many columns as rows with row_weight or reduction "
            f"'none', got {n} and {m}"
        )
    refuse_forward_mode(*_tensors(
        query, key, temperature, level_weights, targets, pairs, row_weight, column_bias
    ))  # fmt: skip
    scale, row_scale = inverse_temperature(temperature, n, device)
    row_scale = None if row_scale is None else row_scale.to(dtype)
    if labels is not None:
        labels = _two("labels", labels, itself)
        labels = _labels(labels, (n, m), device)
    if level_weights is not None:
        if labels is None:
            raise ValueError("level_weights must be None where no labels are given")
        _check.vector("level_weights", level_weights, labels[0].shape[1], device)
        _check.not_negative("level_weights", level_weights)
        level_weights = level_weights.to(dtype)
    if targets is not None:
        targets = _targets(_two("targets", targets, itself), query, (n, m))
    if pairs is not None:
        pairs = _pairs(pairs, n, m, device, dtype)
    for name, x, size in (("row_weight", row_weight, n), ("column_bias", column_bias, m)):
        if x is not None:
            _check.vector(name, x, size, device)
    if row_weight is not None:
        _check.not_negative("row_weight", row_weight)
        row_weight = row_weight.to(dtype)
    smoothing = _check.share("label_smoothing", label_smoothing)
    if guide is not None:
        guide = _guide(_two("guide", guide, itself), (n, m), device)
        margin = 0.0 if margin is None else margin
    if margin is not None:
        _check.finite("margin", margin)
    _exclusions(positives == "sum", margin is not None, smoothing, targets, labels)
    return Asked(
        scale, row_scale, labels, level_weights, targets, pairs, positives == "sum", row_weight,
        None if column_bias is None else column_bias.to(dtype), margin, guide, smoothing, both,
        reduction,
    )  # fmt: skip


def _tensors(*options):
    """Of all that may have a gradient, alone or in pairs."""
    for x in options:
        parts = x if isinstance(x, (tuple, list)) else (x,)
        yield from (part for part in parts if isinstance(part, Tensor))


def _exclusions(summed, limited, smoothing, targets, labels) -> None:
    if smoothing and (summed or limited):
        raise ValueError(
            "label_smoothing must be 0 where positives is 'sum', or margin or guide is given"
        )
    if limited and targets is not None:
        raise ValueError("margin and guide take one positive per row, which targets do not name")
    if limited and labels is not None and labels[0].shape[1] > 1:
        raise ValueError("margin and guide take one positive per row, got several levels of labels")


def _two(name: str, x, itself: bool) -> tuple[Tensor, Tensor]:
    """Of the rows and of the columns."""
    if itself:
        if isinstance(x, (tuple, list)):
            if len(x) != 2 or x[0] is not x[1]:
                raise ValueError(f"{name} must be one tensor where key is None")
            return tuple(x)
        return x, x
    if not isinstance(x, (tuple, list)) or len(x) != 2:
        raise ValueError(f"{name} must be a pair of tensors, of the rows and of the columns")
    return tuple(x)


def _labels(labels, sizes, device):
    found = []
    for name, x, size in zip(("labels", "labels[1]"), labels, sizes, strict=True):
        _check.tensor(name, x)
        x = x[:, None] if x.dim() == 1 else x
        if x.dim() != 2 or len(x) != size or x.shape[1] == 0:
            raise ValueError(f"{name} must have shape [{size}] or [{size}, levels], "
                             f"got {list(x.shape)}")  # fmt: skip
        _check.state(name, x, device, tuple(x.shape))
        found.append(x)
    if found[0].shape[1] != found[1].shape[1]:
        raise ValueError(f"labels must have as many levels for rows and columns, "
                         f"got {found[0].shape[1]} and {found[1].shape[1]}")  # fmt: skip
    return tuple(found)


def _targets(targets, query, sizes):
    found = []
    for name, x, size in zip(("targets", "targets[1]"), targets, sizes, strict=True):
        _check.tensor(name, x)
        if x.dim() != 2 or len(x) != size or x.shape[1] != targets[0].shape[-1]:
            raise ValueError(f"{name} must have shape [{size}, c], got {list(x.shape)}")
        if x.device != query.device:
            raise ValueError(f"{name} must be on {query.device}, got {x.device}")
        if x.is_complex():
            raise TypeError(f"{name} must be real, got {x.dtype}")
        _check.not_negative(name, x)
        found.append(x.to(accumulate_dtype(query.dtype)))
    return tuple(found)


def shares_something(x: Asked, itself: bool, anywhere: Callable[[bool], bool] = bool) -> None:
    """Targets under which no row has a positive are a mistake. anywhere: whether that is so on any
    rank."""
    if x.targets is None or not _check.seen(x.targets[0]):
        return
    a, b = x.targets
    others = b.sum(0) - (b if itself else 0)
    if not anywhere(bool(((a > 0) & (others > 0)).any())):
        raise ValueError("targets must share something with a column in one row at least")


def _pairs(pairs, n: int, m: int, device, dtype):
    if not isinstance(pairs, (tuple, list)) or len(pairs) not in (2, 3):
        raise ValueError("pairs must be (rows [p], columns [p], weights [p] or None)")
    row, column = pairs[:2]
    for name, x, size in (("pairs[0]", row, n), ("pairs[1]", column, m)):
        _check.tensor(name, x)
        _check.state(name, x, device, tuple(row.shape))
        if x.dim() != 1:
            raise ValueError(f"{name} must have shape [p], got {list(x.shape)}")
        if _check.seen(x) and len(x) and not 0 <= int(x.min()) <= int(x.max()) < size:
            raise ValueError(f"{name} must be from 0 to {size - 1}, "
                             f"got {int(x.min())} to {int(x.max())}")  # fmt: skip
    if len(row) == 0:
        raise ValueError("pairs must hold one pair at least")
    weight = pairs[2] if len(pairs) == 3 else None
    if weight is None:
        return row, column, torch.ones(len(row), dtype=dtype, device=device)
    _check.vector("pairs[2]", weight, len(row), device)
    _check.not_negative("pairs[2]", weight)
    return row, column, weight.to(dtype)


def _guide(guide, sizes, device):
    for name, x, size in zip(("guide[0]", "guide[1]"), guide, sizes, strict=True):
        _check.rows(name, x, ("guide[0]", guide[0]))
        if len(x) != size or x.device != device:
            raise ValueError(f"{name} must have {size} rows on {device}, "
                             f"got {len(x)} on {x.device}")  # fmt: skip
    return tuple(x.detach() for x in guide)
