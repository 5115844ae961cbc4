"""Late interaction against the reference: loss, gradients, and the sum for the scale."""

import pytest
import torch
from problems import Budget, in_float64

from fastcl import reference

ALL = (True,) * 4


@pytest.fixture
def max_sim(kernels):
    """The module of the launchers under the patches of `kernels`."""
    from fastcl.kernels import max_sim

    return max_sim


def rows(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def case(n=5, q=7, m=6, k=21, h=0, o=0, d=20, masked=False, normalize=True, needs=ALL, **changes):
    query, document, hard = rows(n, q, d, seed=0), rows(m, k, d, seed=1), None
    document[:n, : min(q, k)] += 0.5 * query[:, :k]
    hard = rows(n, h, o, d, seed=2) if h else None
    masks = [None if x is None else rows(*x.shape[:-1], seed=3) < 0.5
             for x in (query, document, hard)]  # fmt: skip
    for mask in masks:
        if mask is not None:
            mask[..., -1] = True
    return {
        "query": query, "document": document, "hard": hard,
        **dict(zip(("query_mask", "document_mask", "hard_mask"),
                   masks if masked else (None,) * 3, strict=True)),
        "logit_scale": None, "scale": 10.0 / q, "normalize": normalize,
        **dict(zip(("need_q", "need_d", "need_hard", "need_scale"), needs, strict=True)),
        **changes,
    }  # fmt: skip


CASES = {
    "several tiles": case(q=19, k=37),
    "masks": case(masked=True),
    "hard ones": case(h=2, o=18, masked=True),
    "hard ones alone": case(n=1, m=1, h=3, o=5),
    "one of everything": case(n=1, m=1, q=1, k=1, d=1),
    "one token each": case(n=20, m=23, q=1, k=1),
    "wide": case(d=150),
    "unit tokens": case(normalize=False, scale=0.05),
    "learned scale": case(logit_scale=torch.tensor(2.0)),
    "only dq": case(masked=True, needs=(True, False, False, False)),
    "only dk": case(masked=True, needs=(False, True, False, False)),
    "only the hard ones": case(h=2, o=4, needs=(False, False, True, False)),
    "only the scale": case(needs=(False, False, False, True)),
}


slow = pytest.mark.slow
# What runs without the slow tests: one case of every path, tokens of 16 bits once.
SLOW = "hard ones alone", "one token each", "wide", "unit tokens"
QUICK = {(name, torch.float32) for name in CASES if name not in SLOW}
QUICK |= {("hard ones", torch.bfloat16)}


def cases():
    for name in CASES:
        for dtype in (torch.float32, torch.bfloat16):
            yield pytest.param(name, dtype, marks=[] if (name, dtype) in QUICK else [slow])


@pytest.mark.parametrize("name, dtype", cases())
def test_table(max_sim, name, dtype):
    narrow = {
        key: CASES[name][key].to(dtype) for key in ("query", "document", "hard")
        if CASES[name][key] is not None
    }  # fmt: skip
    arguments = CASES[name] | narrow
    ours = max_sim.max_sim_mean(**arguments)
    plain = reference.max_sim_mean(**arguments)
    exact = reference.max_sim_mean(**in_float64(arguments))
    budget, eps = Budget(), torch.finfo(dtype).eps
    for what, *three in zip(("loss", "dq", "dd", "dh", "slope"), ours, plain, exact, strict=True):
        assert three[0].dtype == torch.float32, what
        if three[0].numel():
            budget.add(what, *three, eps, floor=1.0 if what in ("loss", "slope") else 0.0)
        else:
            assert three[0].shape == three[2].shape
    budget.check()


@pytest.mark.parametrize("queries, length", [
    (5, 3), (1, 7), *(pytest.param(*x, marks=slow) for x in ((5, 1), (17, 2), (3, 40)))
])  # fmt: skip
def test_how_a_tile_is_shared_changes_nothing(max_sim, monkeypatch, queries, length):
    arguments = case(n=queries, m=queries, q=length, masked=True)
    exact = reference.max_sim_mean(**in_float64(arguments))
    for places in (1, 4, 16):
        monkeypatch.setattr(max_sim, "places_of", lambda *_, places=places: places)
        for x, y in zip(max_sim.max_sim_mean(**arguments), exact, strict=True):
            torch.testing.assert_close(x.double(), y, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_chunks_of_queries(max_sim, monkeypatch):
    """Documents collect what every chunk has for them."""
    monkeypatch.setattr(max_sim, "CHUNK", 1)
    arguments = case(n=7, m=20, q=9, k=2, h=2, o=3, d=5, masked=True)
    chunks = list(max_sim._chunks(*[
        max_sim._side(arguments[x], None, False) for x in ("query", "document", "hard")
    ]))  # fmt: skip
    assert [chunk.count for chunk in chunks] == [2, 2, 2, 1]
    exact = reference.max_sim_mean(**in_float64(arguments))
    for x, y in zip(max_sim.max_sim_mean(**arguments), exact, strict=True):
        torch.testing.assert_close(x.double(), y, rtol=1e-5, atol=1e-6)


def test_of_equal_tokens_the_first_has_the_gradient(max_sim):
    arguments = case(k=40)
    arguments["document"] = arguments["document"][:, :20].repeat(1, 2, 1)
    dd = max_sim.max_sim_mean(**arguments)[2]
    assert dd[:, :20].abs().sum() > 0 and not dd[:, 20:].any()


@pytest.mark.parametrize("which", ["query", "document", "hard"])
@pytest.mark.parametrize("value", [torch.nan, pytest.param(torch.inf, marks=slow)])
@pytest.mark.parametrize("normalize", [pytest.param(False, marks=slow), True])
def test_any_poisoned_token_gives_nan(max_sim, which, value, normalize):
    arguments = case(h=2, o=18, normalize=normalize)
    arguments[which] = arguments[which].clone()
    arguments[which].view(-1, 20)[11, 3] = value
    assert max_sim.max_sim_mean(**arguments)[0].isnan()


@pytest.mark.parametrize("which", ["query_mask", "document_mask", "hard_mask"])
def test_no_token_gives_nan(max_sim, which):
    arguments = case(h=2, o=18, masked=True)
    arguments[which] = arguments[which].clone()
    arguments[which][1] = False
    assert max_sim.max_sim_mean(**arguments)[0].isnan()


@pytest.mark.slow
def test_masked_tokens_may_hold_anything(max_sim):
    arguments = case(h=2, o=18, masked=True)
    expected = max_sim.max_sim_mean(**arguments)
    for which in ("query", "document", "hard"):
        mask = arguments[f"{which}_mask"]
        arguments[which] = arguments[which].masked_fill(~mask[..., None], torch.nan)
    ours = max_sim.max_sim_mean(**arguments)
    assert all(torch.equal(x, y) for x, y in zip(ours, expected, strict=True))


@pytest.mark.slow
def test_same_bits_twice(max_sim):
    first, second = (max_sim.max_sim_mean(**CASES["hard ones"]) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_float64_goes_to_the_reference(max_sim):
    arguments = in_float64(CASES["hard ones"])
    exact = reference.max_sim_mean(**arguments)
    ours = max_sim.max_sim_mean(**arguments)
    assert all(torch.equal(a, b) for a, b in zip(ours, exact, strict=True))
