"""The general contrast over all ranks."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from .. import _check, functional
from .._ranks import gather, gather_with_gradient
from ..functional.asked import asked, shares_something
from ..functional.contrast import of
from ._plan import agree, global_ids, global_mean, shared


def contrast(
    query: Tensor,  # [b, d]
    key: Tensor | None = None,  # [b, d]
    *,
    temperature: float | Tensor = 0.1,  # [] or [b]
    labels: Tensor | tuple[Tensor, Tensor] | None = None,  # [b] or [b, L]
    level_weights: Tensor | None = None,  # [L]
    targets: Tensor | tuple[Tensor, Tensor] | None = None,  # [b, c]
    positives: str = "mean",
    row_weight: Tensor | None = None,  # [b]
    column_bias: Tensor | None = None,  # [b]
    margin: float | None = None,
    guide: Tensor | tuple[Tensor, Tensor] | None = None,  # [b, g]
    label_smoothing: float = 0.0,
    both: bool = False,
    normalize: bool = True,
    group: ProcessGroup | None = None,
    equal: bool = False,
) -> Tensor:
    """The contrast of every row with the columns of all ranks.

    Equal to ``functional.contrast(gather(query), gather(key), ...)`` with the rows of all ranks in
    every option that has a row per query or key.

    With a key a rank contrasts its own rows, and where both its own columns; without one every rank
    contrasts the whole batch. The columns of all ranks are gathered.

    Arguments: those of `functional.contrast` without pairs and reduction, labels and targets
    meaning the same on all ranks, and the package's but for mode. A key has as many rows as query
    on the rank. margin and guide take no labels, and a temperature per row not both.
    """
    options: dict[str, Any] = {
        "temperature": temperature, "labels": labels, "level_weights": level_weights,
        "targets": targets, "pairs": None, "positives": positives, "row_weight": row_weight,
        "column_bias": column_bias, "margin": margin, "guide": guide,
        "label_smoothing": label_smoothing, "both": both,
    }  # fmt: skip

    def check() -> None:
        if key is not None:
            _check.pairs("key", key, "query", query)
        asked(query, key, **options, reduction="mean")
        if labels is not None and (margin is not None or guide is not None):
            raise ValueError(
                "labels must be None over several ranks where margin or guide is given"
            )
        if both and _per_row(temperature, query):
            raise ValueError("temperature must be one number over ranks where both")

    learned = {
        "query": query, "key": key, "temperature": temperature, "level_weights": level_weights,
        "row_weight": row_weight, "column_bias": column_bias,
    }  # fmt: skip
    sides = targets if isinstance(targets, (tuple, list)) else (targets, None)
    learned |= dict(zip(("targets", "targets[1]"), sides, strict=False))
    same = {"key": None if key is None else "given", "normalize": normalize}
    same |= _kinds(options, not _per_row(temperature, query))
    plan = agree("query", query, "gather", group, equal, check, learned, same)
    if plan is None:
        return functional.contrast(query, key, **options, normalize=normalize)

    everyone = partial(_everyone, equal=equal, group=group)
    if key is None:
        for name in ("labels", "targets", "row_weight", "column_bias", "guide"):
            options[name] = everyone(options[name])
        if _per_row(temperature, query):
            options["temperature"] = everyone(temperature)
        return functional.contrast(everyone(query), **options, normalize=normalize)
    if labels is None and targets is None:
        own = global_ids(plan, query.device)
        options["labels"] = own, own
    for name in ("temperature", "level_weights"):
        if not (name == "temperature" and _per_row(temperature, query)):
            options[name] = shared(options[name], plan)

    def anywhere(some: bool) -> bool:
        return equal or plan.ranks.sum(query.new_tensor(some, dtype=torch.int64)) > 0

    losses = [_of_rank(query, key, options, everyone, normalize, anywhere)]
    if both:
        turned = {name: x if x is None else x[::-1] for name, x in options.items() if name in SIDES}
        # A bias of what is a row here adds the same to all its logits.
        turned = {**options, **turned, "column_bias": None}
        losses.append(_of_rank(key, query, turned, everyone, normalize, anywhere))
    return global_mean(sum(losses) / len(losses), plan)


SIDES = "labels", "targets", "guide"  # in pairs, of the rows and of the columns


def _of_rank(
    rows: Tensor,  # [b, d]
    columns: Tensor,  # [b, d]
    options: dict[str, Any],
    everyone: Callable[[Any], Any],
    normalize: bool,
    anywhere: Callable[[bool], bool],
) -> Tensor:
    """The loss of every row of this rank against the columns of all, [b]."""
    here = {**options, "both": False, "column_bias": everyone(options["column_bias"])}
    for name in SIDES:
        if here[name] is not None:
            here[name] = here[name][0], everyone(here[name][1])
    columns = everyone(columns)
    x = asked(rows, columns, **here, reduction="none")
    shares_something(x, False, anywhere)
    return of(x, rows, columns, normalize)


def _everyone(x: Any, *, equal: bool, group: ProcessGroup | None) -> Any:
    """The rows of all ranks; of a pair, of each."""
    if x is None or isinstance(x, (tuple, list)):
        return x if x is None else tuple(_everyone(y, equal=equal, group=group) for y in x)
    every = gather_with_gradient if x.is_floating_point() else gather
    return every(x, equal=equal, group=group)


def _per_row(temperature: float | Tensor, query: Tensor) -> bool:
    return isinstance(temperature, Tensor) and temperature.shape == query.shape[:1]


def _kinds(options: dict, one: bool) -> dict[str, float | str | None]:
    """What of the options must be alike on all ranks: numbers, and of tensors that they are given,
    their dtypes and widths; one: the temperature is a number."""
    same = {}
    for name, x in options.items():
        parts = x if isinstance(x, (tuple, list)) else (x,)
        if all(isinstance(y, Tensor) for y in parts) and not (name == "temperature" and one):
            x = ", ".join(f"{y.dtype} {list(y.shape[1:])}" for y in parts)
        same[name] = x
    if isinstance(options["level_weights"], Tensor):
        same["level_weights"] = str(options["level_weights"].tolist())
    return same
