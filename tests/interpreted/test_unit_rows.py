"""Rows of unit length against the reference."""

import pytest
import torch
from problems import Budget

from fastcl import reference


@pytest.fixture
def unit_rows(kernels, monkeypatch):
    """The launchers, with blocks that a small matrix has several of."""
    from fastcl.kernels import unit_rows

    monkeypatch.setattr(unit_rows, "BLOCK", 64)
    monkeypatch.setattr(unit_rows, "WIDEST", 32)
    return unit_rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sizes", [(7, 1, 5), (1,), (0, 3)], ids=str)
@pytest.mark.parametrize("d", [1, 16, 31, 32, 33, 100])
def test_equals_the_reference(unit_rows, d, sizes, dtype):
    random = torch.Generator().manual_seed(d)
    x = torch.randn(sum(sizes), d, generator=random)
    x = (x + torch.sign(x) / 2).to(dtype)  # no row so short that it amplifies rounding
    grad = torch.randn(sum(sizes), d, generator=random).to(dtype)
    results = []
    for module, of in ((unit_rows, dtype), (reference, dtype), (reference, torch.float64)):
        parts = x.to(of).split(sizes)
        y, lengths = module.unit_rows_forward(parts)
        dx = module.unit_rows_backward(grad.to(of), parts, lengths)
        results.append((y, lengths, dx))
    budget = Budget()
    for name, *three in zip(("y", "lengths", "dx"), *results, strict=True):
        eps = torch.finfo(torch.float32 if name == "lengths" else dtype).eps
        assert three[0].dtype == three[1].dtype
        budget.add(name, *three, eps)
    budget.check()


def test_short_rows(unit_rows):
    """Zero stays zero, with a gradient of zero; 1e-10 has its direction."""
    x = torch.zeros(3, 40)
    x[1, 2], x[2, 35] = 1e-10, 1e-14
    y, lengths = unit_rows.unit_rows_forward([x])
    dx = unit_rows.unit_rows_backward(torch.ones_like(x), [x], lengths)
    assert torch.equal(y[0], x[0])
    torch.testing.assert_close(y[1, 2], torch.tensor(1.0))
    torch.testing.assert_close(y[2, 35], torch.tensor(1e-2))
    assert torch.equal(dx[0], x[0]) and torch.equal(dx[2], x[0])
    assert dx[1].isfinite().all() and dx[1, 3] > 1e9


def test_what_is_not_finite_stays_so(unit_rows):
    x = torch.ones(3, 40)
    x[0, 3], x[1, 39] = torch.nan, torch.inf
    y, _ = unit_rows.unit_rows_forward([x])
    assert y[0].isnan().all() and y[1, 39].isnan() and y[2].isfinite().all()


def test_float64_goes_to_the_reference(unit_rows):
    x = torch.randn(5, 7, dtype=torch.float64)
    y, lengths = unit_rows.unit_rows_forward([x])
    exact, wanted = reference.unit_rows_forward([x])
    assert torch.equal(y, exact) and torch.equal(lengths, wanted)
    assert torch.equal(
        unit_rows.unit_rows_backward(x, [x], lengths),
        reference.unit_rows_backward(x, [x], lengths),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n, d", [(1, 1), (7, 31), (13, 33), (5, 100)])
def test_row_products(unit_rows, n, d, dtype):
    a, b = torch.randn(2, n, d, generator=torch.Generator().manual_seed(d)).to(dtype)
    ours = unit_rows.row_products(a, b)
    plain, exact = ((a.to(x) * b.to(x)).sum(1) for x in (torch.float32, torch.float64))
    budget = Budget()
    budget.add("products", ours, plain, exact, torch.finfo(torch.float32).eps)
    budget.check()
