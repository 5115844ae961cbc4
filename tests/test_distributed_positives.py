"""The general contrast over gloo ranks of unequal size: values and averaged gradients of one
process with the global batch."""

import pytest
import torch
import torch.distributed as dist
from gloo import spawn

import fastcl.functional as F
from fastcl import distributed as D

WIDTH, GUIDE = 5, 3
COUNTS = {2: [1, 5], 3: [2, 1, 4]}
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def batch(counts):
    """Of all ranks: what has a row per query or key, and what has none."""
    n, g = sum(counts), torch.Generator().manual_seed(3)

    def rows(d):
        return torch.randn(n, d, dtype=torch.float64, generator=g)

    query = rows(WIDTH)
    labels = [torch.randint(0, 3, (n, 2), generator=g) for _ in "qk"]
    return {
        "query": query, "key": query + 0.5 * rows(WIDTH), "labels": labels,
        "targets": [rows(4).relu(), rows(4).relu()], "guide": [rows(GUIDE), rows(GUIDE)],
        "row_weight": rows(1)[:, 0].relu(), "column_bias": rows(1)[:, 0],
        "temperatures": rows(1)[:, 0].abs() + 0.2,
    }  # fmt: skip


TWO = {"level_weights": torch.tensor([0.3, 1.2], dtype=torch.float64)}
HEAT = {"temperature": torch.tensor(0.3, dtype=torch.float64)}
# Inputs by row, other options, and what learns beside the rows.
CASES = {
    "own": ((), {}),
    "both": (("row_weight",), {"both": True, "label_smoothing": 0.2, **HEAT}),
    "levels": (("labels", "row_weight"), {**TWO, **HEAT}),
    "levels both": (("labels",), {**TWO, "both": True}),
    "sum": (("labels",), {**TWO, "positives": "sum"}),
    "targets": (("targets", "column_bias"), {"both": True}),
    "bias": (("column_bias",), HEAT),
    "temperatures": (("temperatures",), {}),
    "margin": ((), {"margin": 0.1, "both": True}),
    "guide": (("guide", "row_weight"), {"margin": -0.1}),
    "alone": (("labels", "row_weight"), {**TWO, **HEAT, "alone": True}),
    "alone targets": (("targets",), {"alone": True, "label_smoothing": 0.1}),
}


def call(function, rows, names, options):
    """Value and gradients by name; of pairs, without a key, the first alone."""
    learns = {"query", "key", "row_weight", "column_bias", "temperatures"}
    leaves = {k: x.clone().requires_grad_() for k, x in rows.items() if k in learns}
    shared = {
        k: x.clone().requires_grad_() if isinstance(x, torch.Tensor) else x
        for k, x in options.items()
    }
    alone = shared.pop("alone", False)
    given = dict(shared)
    for name in names:
        x = leaves.get(name, rows[name])
        given["temperature" if name == "temperatures" else name] = (
            x[0] if alone and isinstance(x, list) else x
        )
    key = () if alone else (leaves["key"],)
    value = function(leaves["query"], *key, **given)
    value.backward()
    found = {**leaves, **{k: x for k, x in shared.items() if isinstance(x, torch.Tensor)}}
    return value.detach(), {k: x.grad for k, x in found.items() if x.grad is not None}


def _cut(x, rank, counts):
    return [y.split(counts)[rank] for y in x] if isinstance(x, list) else x.split(counts)[rank]


def _every_case(rank, world):
    counts = COUNTS[world]
    whole = batch(counts)
    mine = {k: _cut(x, rank, counts) for k, x in whole.items()}
    for title, (names, options) in CASES.items():
        want, grads = call(F.contrast, whole, names, options)
        value, found = call(D.contrast, mine, names, options)
        torch.testing.assert_close(value, want, **CLOSE, msg=title)
        assert found.keys() == grads.keys(), title
        for name, grad in grads.items():
            if name in options:  # exact on every rank
                torch.testing.assert_close(found[name], grad, **CLOSE, msg=f"{title} {name}")
            else:
                grad = _cut(grad, rank, counts)
                torch.testing.assert_close(
                    found[name] / world, grad, **CLOSE, msg=f"{title} {name}"
                )


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_averaged_gradients_equal_one_process(world, tmp_path):
    spawn(_every_case, world, tmp_path, world)


def _bad_input(rank):
    """What is wrong on one rank, or differs, is an error on all of them."""
    x = torch.randn(3, WIDTH)
    ids, ones = torch.arange(3), torch.ones(3, 2)
    wide = torch.float64 if rank else torch.float32
    for options, message in (
        ({"margin": 0.1 if rank else 0.2}, "margin must be the same on every rank"),
        ({"labels": (ids, ids) if rank else None}, "labels must be the same on every rank"),
        ({"row_weight": torch.ones(3) if rank else -torch.ones(3)}, "negative|of its own"),
        ({"labels": (ids, ids), "margin": 0.1}, "labels must be None over several ranks"),
        ({"temperature": torch.ones(3), "both": True}, "temperature must be one number"),
        ({"column_bias": torch.ones(3 if rank else 4)}, "column_bias|of its own"),
        ({"column_bias": torch.ones(3, dtype=wide)}, "column_bias must be the same on every"),
        ({"targets": (ones, torch.ones(3, 2, dtype=wide))}, "targets must be the same on every"),
        ({"guide": (torch.ones(3, 2, dtype=wide),) * 2}, "guide must be the same on every rank"),
        (
            {"targets": (ones, ones.clone().requires_grad_(rank == 0))},
            r"targets\[1\] must require a",
        ),
        (
            {"labels": (ids, ids), "level_weights": torch.ones(1) + rank},
            "level_weights must be the",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            D.contrast(x, x, **options)
    # No rank's rows share anything with a column; then the first's do, with the second's.
    left, right = torch.eye(2)[:1].expand(3, 2), torch.eye(2)[1:].expand(3, 2)
    with pytest.raises(ValueError, match="targets must share something"):
        D.contrast(x, x, targets=(left, right), both=True)
    assert D.contrast(x, x, targets=(right * (rank == 0), right if rank else left)).isfinite()
    with pytest.raises(ValueError, match="key"):
        D.contrast(x, x[:2] if rank else x[:1])
    with pytest.raises(ValueError, match="key must be the same on every rank"):
        D.contrast(x, x if rank else None, labels=(ids, ids) if rank else ids)
    dist.barrier()


def test_bad_input(tmp_path):
    spawn(_bad_input, 2, tmp_path)


def test_in_one_process_it_is_its_namesake():
    x, y = torch.randn(4, WIDTH), torch.randn(4, WIDTH)
    assert torch.equal(D.contrast(x, y, margin=0.1), F.contrast(x, y, margin=0.1))
