"""Noise is drawn from the distribution it says."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fastcl
import fastcl.functional as F


def _far(counts, probabilities):
    """The largest deviation in standard deviations of a binomial count."""
    draws = counts.sum()
    spread = (draws * probabilities * (1 - probabilities)).sqrt().clamp(min=1e-9)
    return ((counts - draws * probabilities) / spread).abs().max()


def _counts(index, size):
    return torch.bincount(index[:, 1:].flatten(), minlength=size).double()


def test_uniform_noise():
    target = torch.arange(7)
    index = F.noise_indices(target, 40, 20_000)
    assert index.shape == (7, 20_001) and torch.equal(index[:, 0], target)
    assert _far(_counts(index, 40), torch.full((40,), 1 / 40).double()) < 5


def test_alias_table_follows_the_weights():
    weights = torch.tensor([0.0, 1.0, 5.0, 0.5, 0.0, 100.0, 3.0])
    table = fastcl.AliasTable(weights)
    counts = _counts(table(torch.zeros(10, dtype=torch.int64), 20_000), 7)
    assert _far(counts, weights.double() / weights.sum()) < 5
    assert counts[0] == counts[4] == 0
    # Negative control: the test would see another distribution.
    assert _far(counts, torch.full((7,), 1 / 7).double()) > 5
    torch.testing.assert_close(table.probabilities, weights / weights.sum())


@given(weights=st.lists(st.floats(0, 1e6), min_size=1, max_size=30))
def test_the_table_holds_exactly_the_weights(weights):
    weights = torch.tensor(weights, dtype=torch.float64)
    if weights.sum() == 0:
        weights[0] = 1
    table = fastcl.AliasTable(weights)
    size = len(weights)
    mass = table.threshold.double().clone()
    mass.index_add_(0, table.alias, 1 - table.threshold.double())
    torch.testing.assert_close(mass / size, weights / weights.sum(), rtol=0, atol=1e-6)


def test_generators_decide():
    table, target = fastcl.AliasTable(torch.rand(50)), torch.zeros(3, dtype=torch.int64)
    for draw in (table, lambda t, n, **k: F.noise_indices(t, 50, n, **k)):
        runs = [draw(target, 40, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
        assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_the_table_is_saved():
    table, twin = fastcl.AliasTable(torch.rand(5)), fastcl.AliasTable(torch.rand(5))
    twin.load_state_dict(table.state_dict())
    assert torch.equal(table.alias, twin.alias) and torch.equal(table.threshold, twin.threshold)


T = torch.zeros(2, dtype=torch.int64)
BAD = {
    "target": (lambda: F.noise_indices(T.float(), 3, 4), TypeError, "target must be int64"),
    "matrix": (lambda: F.noise_indices(T[None], 3, 4), ValueError, "target must have 1 dimension"),
    "size": (lambda: F.noise_indices(T, 0, 4), ValueError, "size must be 1 or more, got 0"),
    "count": (lambda: F.noise_indices(T, 3, 0), ValueError, "count must be 1 or more, got 0"),
    "weights": (lambda: fastcl.AliasTable(-torch.ones(2)), ValueError, "weights must be finite"),
    "nothing": (lambda: fastcl.AliasTable(torch.zeros(2)), ValueError, "not all zero"),
    "integers": (lambda: fastcl.AliasTable(T), TypeError, "weights must be floating point"),
    "table": (lambda: fastcl.AliasTable(torch.ones(2, 2)), ValueError, "weights must be a vector"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()
