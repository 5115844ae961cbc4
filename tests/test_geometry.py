"""Alignment, uniformity, spread and rank against the formula in float64, laws, known values."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fastcl.evaluate import (
    alignment,
    dimension_spread,
    effective_rank,
    singular_values,
    uniformity,
)

sizes = st.tuples(st.integers(2, 40), st.integers(1, 20), st.integers(0, 2**31 - 1))


def rows(n, d, seed, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def plain_uniformity(x, t=2.0):
    return torch.pdist(F.normalize(x.double(), dim=1)).square().mul(-t).exp().mean().log().item()


def plain_rank(x):
    s = torch.linalg.svdvals(x.double())
    p = s[s > 0] / s.sum()
    return torch.exp(-(p * p.log()).sum()).item()


@given(sizes, st.sampled_from((0.5, 2.0, 8.0)))
def test_uniformity_equals_the_pairwise_formula(size, t):
    x = rows(*size)
    expected = plain_uniformity(x, t)
    assert uniformity(x, t=t) == pytest.approx(expected, abs=1e-12 * (1 + t))
    # float32: an error of a logit 2 t is 2 t / 2 ** 24, and the sums add a few.
    assert uniformity(x.float(), t=t) == pytest.approx(plain_uniformity(x.float(), t), abs=2e-6 * t)


def test_uniformity_across_tiles_of_the_kernel():
    x = rows(1500, 33, 0)
    assert uniformity(x.float()) == pytest.approx(plain_uniformity(x), abs=1e-5)


@given(sizes)
def test_uniformity_knows_no_order_length_or_rotation(size):
    n, d, seed = size
    x = rows(*size)
    turn = torch.linalg.qr(rows(d, d, seed + 1))[0]
    changed = (x @ turn * torch.rand(n, 1, dtype=x.dtype).add(0.1))[torch.randperm(n)]
    assert uniformity(changed) == pytest.approx(uniformity(x), abs=1e-12)


def test_uniformity_of_known_sets():
    point = torch.randn(1, 16).expand(50, 16)
    assert uniformity(point) == pytest.approx(0, abs=1e-6)
    assert uniformity(torch.zeros(5, 4)) == pytest.approx(0, abs=1e-6), "zeros are one point too"
    opposite = torch.tensor([[1.0, 0.0], [-3.0, 0.0]])
    assert uniformity(opposite) == pytest.approx(-8, abs=1e-6)
    assert uniformity(torch.eye(9)) == pytest.approx(-4, abs=1e-6)
    with_zero = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    assert uniformity(with_zero) == pytest.approx(-4, abs=1e-6)
    spread_out = rows(2000, 64, 1, torch.float32)
    assert -4 < uniformity(spread_out) < -3.8, "random directions come near the least value"
    assert math.isnan(uniformity(torch.full((3, 2), float("nan"))))


@given(sizes, st.sampled_from((1.0, 2.0)))
def test_alignment_equals_the_formula(size, alpha):
    n, d, seed = size
    x, y = rows(*size), rows(n, d, seed + 1)
    expected = sum((a / a.norm() - b / b.norm()).norm() ** alpha for a, b in zip(x, y, strict=True))
    assert alignment(x, y, alpha=alpha) == pytest.approx((expected / n).item(), rel=1e-12)
    assert alignment(x, y, alpha=alpha) == pytest.approx(alignment(y, 3 * x, alpha=alpha))
    assert alignment(x, 2 * x, alpha=alpha) == pytest.approx(0, abs=1e-12)
    assert alignment(x, -x) == pytest.approx(4)


@given(sizes)
def test_effective_rank_equals_the_formula(size):
    x = rows(*size)
    assert effective_rank(x) == pytest.approx(plain_rank(x), rel=1e-6)
    assert effective_rank(x, center=True) == pytest.approx(plain_rank(x - x.mean(0)), rel=1e-6)
    assert 1 - 1e-9 <= effective_rank(x) <= min(x.shape) + 1e-6
    assert effective_rank(7 * x) == pytest.approx(effective_rank(x), rel=1e-6)


@pytest.mark.parametrize("d", [1, 2, 17, 64])
def test_effective_rank_of_equal_directions_is_their_number(d):
    turned = torch.linalg.qr(rows(d, d, 0))[0]
    assert effective_rank(turned) == pytest.approx(d)
    assert effective_rank(torch.cat([turned, -turned]), center=True) == pytest.approx(d)
    assert effective_rank(rows(5, d, 1)[:1].expand(5, d)) == pytest.approx(1, abs=1e-5)
    assert effective_rank(torch.zeros(5, d)) == 0
    assert effective_rank(rows(20_000, d, 2)) == pytest.approx(d, rel=0.01)


def test_singular_values_over_several_blocks(monkeypatch):
    monkeypatch.setattr("fastcl.evaluate.geometry.BLOCK", 7)
    x = rows(50, 6, 0) + 3
    torch.testing.assert_close(singular_values(x), torch.linalg.svdvals(x))
    centred = torch.linalg.svdvals(x - x.mean(0))
    torch.testing.assert_close(singular_values(x, center=True), centred)
    assert singular_values(torch.full((3, 2), float("nan"))).isnan().all()


@given(sizes)
def test_spread_of_dimensions(size):
    x = rows(*size)
    unit = x / x.norm(dim=1, keepdim=True)
    expected = (unit - unit.mean(0)).square().mean(0).sqrt() * x.shape[1] ** 0.5
    torch.testing.assert_close(dimension_spread(x), expected)
    assert dimension_spread(x[:1].expand(4, -1)).abs().max() < 1e-7


def test_spread_of_even_directions_is_one():
    spread = dimension_spread(rows(20_000, 32, 0))
    assert (spread - 1).abs().max() < 0.03


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: uniformity(torch.randn(1, 3)), ValueError, "x must have two rows or more, got 1"),
        (lambda: uniformity(torch.randn(3, 3), t=0.0), ValueError, "t must be finite and above 0"),
        (lambda: uniformity(torch.ones(3, 3).long()), TypeError, "x must be float16"),
        (lambda: alignment(torch.randn(3, 2), torch.randn(4, 2)), ValueError, "as many rows as x"),
        (lambda: effective_rank(torch.randn(3)), ValueError, "x must have 2 dimensions"),
        (lambda: dimension_spread(torch.empty(0, 3)), ValueError, "x must not be empty"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
