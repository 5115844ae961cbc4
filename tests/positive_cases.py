"""Rows of the table for all that has more to its positives than one of every row."""

import plain_contrast
import torch
from case import Case, pair, rows, two
from torch import Tensor

import fastcl.functional as F

IN_PARTS = ("labels", "targets", "pairs", "guide")


def in_parts(function):
    """With the parts of `labels` and its like as arguments of their own: labels0, labels1."""

    def call(**arguments):
        parts = {}
        for name in tuple(arguments):
            if name[-1].isdigit() and name[:-1] in IN_PARTS:
                parts.setdefault(name[:-1], []).append(arguments.pop(name))
        return function(**arguments, **parts)

    return call


def _times(function):
    """With factors of the temperature."""
    return lambda factors, temperature, **arguments: function(
        temperature=temperature * factors, **arguments
    )


def _in_steps(function):
    """Of three quarters of the width, and of all of it; with narrow rows at a temperature of 0.005
    one element decides the errors of either side, of InfoNCE too."""

    def call(query, key, *, temperature):
        d = query.shape[1]
        d = d if isinstance(d, int) else 1  # nested tensors have no width
        widths = max(1, 3 * d // 4), d
        return function(query, key, widths=widths, weights=(0.5, 1.0), temperature=temperature)

    return call


def _in_any_order(function):
    """Of widths that do not rise, one twice and one of weight zero, and features that are part of
    none; as wide as above."""

    def call(query, key, *, temperature):
        d = query.shape[1]
        d = d if isinstance(d, int) else 1
        widths = [max(1, x) for x in (d - 1, 3 * d // 4, 7 * d // 8, 3 * d // 4, 5 * d // 6)]
        weights = 1.0, 0.25, 0.0, 0.5, 2.0
        return function(query, key, widths=widths, weights=weights, temperature=temperature)

    return call


CONTRAST = in_parts(F.contrast), in_parts(plain_contrast.contrast)
RETRIEVAL = in_parts(F.retrieval), in_parts(plain_contrast.retrieval)


def _more_columns(n: int, d: int) -> dict[str, Tensor]:
    """Three more than rows."""
    query, key = pair(n, d)
    return {"query": query, "key": torch.cat([key, rows(3, d)])}


def _labels(n: int, d: int) -> dict[str, Tensor]:
    """Every row has a column of its label."""
    labels = torch.randint(0, max(2, n // 4), (n,))
    columns = torch.cat([labels[torch.randperm(n)], torch.randint(0, n, (3,))])
    return {**_more_columns(n, d), "labels0": labels, "labels1": columns}


def _levels(n: int, d: int) -> dict[str, Tensor]:
    first, second = _labels(n, d), _labels(n, d)
    levels = {k: torch.stack([first[k], second[k]], 1) for k in ("labels0", "labels1")}
    return {**first, **levels, "level_weights": torch.tensor([0.3, 1.2], dtype=torch.float64)}


def _alone(n: int, d: int) -> dict[str, Tensor]:
    return {"query": torch.cat(pair(n, d)), "labels": torch.arange(n).repeat(2) // 2}


def _targets(n: int, d: int) -> dict[str, Tensor]:
    """Of four classes a little, of one more."""

    def draw(size):
        more = 2 * torch.nn.functional.one_hot(torch.randint(0, 4, (size,)), 4)
        return 0.05 + 0.2 * torch.rand(size, 4, dtype=torch.float64) + more

    return {**_more_columns(n, d), "targets0": draw(n), "targets1": draw(n + 3)}


def _pairs(n: int, d: int) -> dict[str, Tensor]:
    """Two of every row on average, one at least."""
    row = torch.cat([torch.arange(n), torch.randint(0, n, (n,))])
    return {
        **_more_columns(n, d), "pairs0": row, "pairs1": torch.randint(0, n + 3, (2 * n,)),
        "pairs2": 0.1 + torch.rand(2 * n, dtype=torch.float64),
    }  # fmt: skip


_two = two("query", "key")


def _with(name: str, draw):
    """And one tensor more, by the number of rows."""
    return lambda n, d: {**_two(n, d), name: draw(n)}


def _positive(n: int) -> Tensor:
    return 0.5 + torch.rand(n, dtype=torch.float64)


def _bias(n: int) -> Tensor:
    return torch.randn(n, dtype=torch.float64)


def _towards(x: Tensor, cosine: float) -> Tensor:
    """Unit rows of this cosine with unit rows x."""
    noise = torch.randn_like(x)
    across = noise - (noise * x).sum(1, keepdim=True) * x
    across = across / across.norm(dim=1, keepdim=True).clamp(min=1e-3)
    return cosine * x + (1 - cosine**2) ** 0.5 * across


def _strangers(n: int, d: int) -> dict[str, Tensor]:
    """Views that hardly agree, at a cosine of 0.1: of negatives and the share of positives that is
    taken from them nearly nothing would be left, in any arithmetic, where they nearly agree."""
    z0 = rows(n, d)
    return {"z0": z0, "z1": (0.5 + torch.rand(n, 1)) * _towards(F.unit_rows(z0), 0.1)}


def _false_negatives(n: int, d: int) -> dict[str, Tensor]:
    """Columns at a cosine of 0.6 with their own row and, every second, of 0.9 with the row before:
    none lies near a margin of 0.2, where rounding would decide."""
    query = F.unit_rows(rows(n, d))
    key = _towards(query, 0.6)
    key[1::2] = _towards(query[: n - 1 : 2], 0.9)
    query[1::2] = _towards(key[1::2], 0.6)
    lengths = 0.5 + torch.rand(2, n, 1, dtype=torch.float64)
    return {"query": lengths[0] * query, "key": lengths[1] * key}


def _classes(*shape: int) -> Tensor:
    """Of another model, cosines of 0 and 1."""
    one = torch.nn.functional.one_hot(torch.randint(0, 5, shape), 5).double()
    return one * (0.5 + torch.rand(*shape, 1, dtype=torch.float64))


def _guided(n: int, d: int) -> dict[str, Tensor]:
    return {**_two(n, d), "guide0": _classes(n), "guide1": _classes(n)}


def _bags(n: int, d: int) -> dict[str, Tensor]:
    query, key = pair(n, d)
    return {"query": query, "keys": key[:, None] + 0.3 * torch.randn(n, 3, d).double()}


def _documents(n: int, d: int) -> dict[str, Tensor]:
    return dict(zip(("query", "document"), _false_negatives(n, d).values(), strict=True))


def _hard(n: int, d: int) -> dict[str, Tensor]:
    """One near the query, one anywhere."""
    tensors = _documents(n, d)
    near = _towards(F.unit_rows(tensors["query"]), 0.9)
    return {**tensors, "hard": torch.stack([near, rows(n, d)], 1)}


def _hard_guided(n: int, d: int) -> dict[str, Tensor]:
    guides = {"guide0": _classes(n), "guide1": _classes(n), "guide2": _classes(n, 2)}
    return {**_hard(n, d), **guides}


def _concepts(d: int) -> Tensor:
    """Three directions as far apart as the width allows, [3, d]."""
    return torch.eye(max(3, d), dtype=torch.float64)[:3, :d] + 1e-3


def _longer(x: Tensor, noise: float) -> Tensor:
    """Tokens near those, in any order, of lengths from 0.5 to 2."""
    *items, _, d = x.shape
    order = torch.rand(*items, 3).argsort(-1)[..., None].expand(*items, 3, d)
    near = F.unit_rows(x.gather(-2, order).flatten(0, -2)).view(x.shape)
    near = near + noise / d**0.5 * torch.randn(x.shape, dtype=torch.float64)
    lengths = 0.5 + 1.5 * torch.rand(*items, 3, 1, dtype=torch.float64)
    return lengths * F.unit_rows(near.flatten(0, -2)).view(x.shape)


def _tokens(d: int, *items: int) -> Tensor:
    """Per item a token near each of the concepts: none but the own one is near another's, so that
    rounding does not decide which token is the best."""
    return _longer(_concepts(d).expand(*items, 3, d), 1.0)


def _late(n: int, d: int) -> dict[str, Tensor]:
    """Documents that agree with their queries about as well as in training, and two more."""
    query = _tokens(d, n)
    return {"query": query, "document": torch.cat([_longer(query, 0.7), _tokens(d, 2)])}


def _late_hard(n: int, d: int) -> dict[str, Tensor]:
    return {**_late(n, d), "hard": _tokens(d, n, 2)}


def _among_others(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens [..., 3, d] in places of five, the third always, and where: the rest is anything."""
    *items, _, d = tokens.shape
    order = torch.rand(*items, 5)
    order[..., 2] = -1
    there = order.argsort(-1).argsort(-1) < 3
    x = torch.randn(*items, 5, d, dtype=torch.float64)
    x[there] = tokens.flatten(0, -2)
    return x, there


def _late_masked(n: int, d: int) -> dict[str, Tensor]:
    tensors = {}
    for name, x in _late_hard(n, d).items():
        tensors[name], tensors[f"{name}_mask"] = _among_others(x)
    return tensors


SUM, BOTH, MARGIN = {"positives": "sum"}, {"both": True}, {"margin": 0.2}
GUIDES = "guide0", "guide1", "guide2"

POSITIVES = (
    Case("contrast", *CONTRAST, _two),
    Case("contrast_both", *CONTRAST, _two, kwargs=BOTH),
    Case("contrast_labels", *CONTRAST, _labels),
    Case("contrast_alone", *CONTRAST, _alone),
    Case("contrast_levels", *CONTRAST, _levels),
    Case("contrast_targets", *CONTRAST, _targets, any_length=False),
    Case("contrast_pairs", *CONTRAST, _pairs),
    Case("contrast_sum", *CONTRAST, _labels, kwargs=SUM),
    Case("contrast_sum_pairs", *CONTRAST, _pairs, kwargs=SUM),
    Case("contrast_weights", *CONTRAST, _with("row_weight", _positive)),
    Case("contrast_weights_both", *CONTRAST, _with("row_weight", _positive), ("row_weight",),
         kwargs=BOTH),
    Case("contrast_bias", *CONTRAST, _with("column_bias", _bias)),
    Case("contrast_temperatures", *map(_times, CONTRAST), _with("factors", _positive)),
    Case("contrast_temperature", *map(_times, CONTRAST), _with("factors", lambda n: _positive(1))),
    Case("contrast_margin", *CONTRAST, _false_negatives, kwargs=MARGIN),
    Case("contrast_margin_both", *CONTRAST, _false_negatives, kwargs={**MARGIN, **BOTH}),
    Case("contrast_guide", *CONTRAST, _guided, GUIDES, kwargs=MARGIN),
    Case("contrast_guide_frozen", *CONTRAST, _guided, ("key", *GUIDES), kwargs=MARGIN),
    Case("contrast_bias_frozen", *CONTRAST, _with("column_bias", _bias), ("key",)),
    Case("contrast_smoothing_frozen", *CONTRAST, _two, ("key",), kwargs={"label_smoothing": 0.1}),
    Case("contrast_smoothing", *CONTRAST, _two, kwargs={"label_smoothing": 0.1}),
    Case("contrast_smoothing_labels", *CONTRAST, _labels, kwargs={"label_smoothing": 0.1}),
    Case("mil_nce", F.mil_nce, plain_contrast.mil_nce, _bags),
    Case("debiased", F.debiased, plain_contrast.debiased, _strangers, smallest=2,
         kwargs={"tau_plus": 0.1}),
    Case("hcl", F.hcl, plain_contrast.hcl, _strangers, smallest=2,
         kwargs={"tau_plus": 0.1, "beta": 1.0}),
    # exp(q / temperature): a larger q has the rounding of one logit decide.
    Case("rince", F.rince, plain_contrast.rince, two("z0", "z1"), kwargs={"q": 0.05, "lam": 0.01}),
    Case("retrieval", *RETRIEVAL, _documents),
    Case("retrieval_hard", *RETRIEVAL, _hard),
    Case("retrieval_margin", *RETRIEVAL, _hard, kwargs=MARGIN),
    Case("retrieval_guide", *RETRIEVAL, _hard_guided, GUIDES),
    Case("matryoshka", _in_steps(F.matryoshka), _in_steps(plain_contrast.matryoshka), _two),
    Case("matryoshka_any_order", _in_any_order(F.matryoshka),
         _in_any_order(plain_contrast.matryoshka), _two),
    Case("max_sim", F.max_sim, plain_contrast.max_sim, _late),
    Case("max_sim_hard", F.max_sim, plain_contrast.max_sim, _late_hard),
    Case("max_sim_masked", F.max_sim, plain_contrast.max_sim, _late_masked),
)  # fmt: skip
