"""Arguments of the general contrast drawn at random, in float64, with what may have a gradient."""

import torch
from hypothesis import strategies as st
from torch import Tensor

KINDS = "own", "labels", "levels", "targets", "pairs"
SEEDS = st.integers(0, 2**31 - 1)


def uniform(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def _some(n: int, c: int) -> Tensor:
    """Multi-label: half of all classes, with weights; some rows have none."""
    return torch.where(uniform(n, c) > 0.5, uniform(n, c), 0)


def _positives(pick, kind: str, n: int, m: int, itself: bool) -> dict:
    def sides(of):
        return of(n) if itself else (of(n), of(m))

    if kind == "labels":
        return {"labels": sides(lambda size: torch.randint(0, max(2, n // 3), (size,)))}
    if kind == "levels":
        weights = uniform(2) if pick((False, True)) else None
        return {
            "labels": sides(lambda size: torch.randint(0, 3, (size, 2))), "level_weights": weights
        }  # fmt: skip
    if kind == "targets":
        targets = sides(lambda size: _some(size, 5))
        for x in targets if isinstance(targets, tuple) else (targets,):
            x[:2] += 0.1  # an error, where no row shares anything with a column
        return {"targets": targets}
    if kind == "pairs":
        p = pick((1, 5, 3 * n))
        weight = uniform(p) if pick((False, True)) else None
        return {"pairs": (torch.randint(0, n, (p,)), torch.randint(0, m, (p,)), weight)}
    return {}


def _one_positive(pick, kind: str, n: int, m: int, itself: bool) -> dict:
    """Of every row, as a margin takes it."""
    if kind == "labels":
        order = torch.randperm(m)
        return {"labels": order // 2 if itself else (order[:n], torch.arange(m))}
    if kind == "pairs":
        column = (torch.arange(n) + 1) % n if itself else torch.randint(0, m, (n,))
        return {"pairs": (torch.arange(n), column, None)}
    return {}


def _judged(pick, n: int, m: int, itself: bool) -> dict:
    if pick((False, True)):
        return {"margin": pick((0.0, 0.1, 0.5))}
    guide = normal(n, 4) if itself else (normal(n, 4), normal(m, 4))
    return {"guide": guide, "margin": pick((None, 0.1))}


def _temperature(pick, n: int) -> float | Tensor:
    way = pick(("number", "one element", "one per row"))
    if way == "number":
        return 0.2
    return torch.tensor(0.3, dtype=torch.float64) if way == "one element" else uniform(n) + 0.1


def drawn(pick, sizes=(2, 4, 6, 12, 40), widths=(3, 8, 24)) -> tuple[Tensor, Tensor | None, dict]:
    """Rows, columns and options that do not exclude each other; pick chooses one of several."""
    n, itself = pick(sizes), pick((False, True))
    limited = pick((True, False, False, False))
    kind = pick(KINDS[1:] if itself else KINDS)
    if limited and kind in ("levels", "targets"):
        kind = "pairs"
    m = n if itself or kind == "own" else n + pick((0, 0, 1, 5))
    both = not itself and not (limited and (kind == "pairs" or n != m)) and pick((False, True))
    d = pick(widths)
    query, key = normal(n, d), None if itself else normal(m, d)
    options = (_one_positive if limited else _positives)(pick, kind, n, m, itself)
    options |= {"temperature": _temperature(pick, n), "both": both}
    options["positives"] = pick(("mean", "mean", "sum"))
    if limited:
        options |= _judged(pick, n, m, itself)
    elif options["positives"] == "mean":
        options["label_smoothing"] = pick((0.0, 0.2))
    if pick((False, True)):
        options["column_bias"] = normal(m)
    if not (both and n != m):
        options["reduction"] = pick(("mean", "sum", "none"))
        if pick((False, True)):
            options["row_weight"] = uniform(n) * (uniform(n) > 0.2)
    return query, key, options


@st.composite
def arguments(draw) -> tuple[Tensor, Tensor | None, dict]:
    """The same for hypothesis."""
    torch.manual_seed(draw(SEEDS))
    return drawn(lambda options: draw(st.sampled_from(options)))


def leaves(draw_gradient, query, key, options) -> list[Tensor]:
    """Of rows, columns and options those that are to have a gradient."""
    found, options = [], {"query": query, "key": key, **options}
    for name in (
        "query",
        "key",
        "temperature",
        "column_bias",
        "row_weight",
        "level_weights",
        "targets",
        "pairs",
    ):
        parts = options.get(name)
        parts = parts if isinstance(parts, tuple) else (parts,)
        floating = [x for x in parts if isinstance(x, Tensor) and x.is_floating_point()]
        found += floating if draw_gradient(name) else []
    return [x.requires_grad_() for x in found]
