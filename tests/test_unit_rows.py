"""Rows of unit length against torch's normalize."""

import pytest
import torch
import torch.nn.functional as F
from budget import assert_within_budget

from fastcl.functional import unit_rows

pytestmark = pytest.mark.instruction_sets

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 15, 16, 17, 100, 1024])
def test_equals_normalize(d, dtype):
    """Around the sixteen sums that the kernel keeps side by side."""
    x = torch.randn(33, d, dtype=torch.float64).to(dtype)
    x = x + torch.sign(x) / 2  # no row so short that it amplifies rounding
    grad = torch.randn(33, d, dtype=torch.float64).to(dtype)
    results = []
    for function, of in (
        (unit_rows, dtype),
        (lambda x: F.normalize(x, dim=1, eps=1e-12), dtype),
        (lambda x: F.normalize(x, dim=1, eps=1e-12), torch.float64),
    ):
        leaf = x.detach().to(of, copy=True).requires_grad_()
        y = function(leaf)
        y.backward(grad.to(of))
        results.append((y.detach().double(), leaf.grad.double()))
    for ours, plain, exact, name in zip(*results, ("y", "dx"), strict=True):
        assert_within_budget(ours, plain, exact, dtype, name)


def test_parts_below_each_other():
    parts = [torch.randn(n, 7, dtype=torch.float64, requires_grad=True) for n in (3, 1, 5)]
    y = unit_rows(*parts)
    assert torch.equal(y, torch.cat([unit_rows(x) for x in parts]))
    grad = torch.randn(9, 7, dtype=torch.float64)
    together = torch.autograd.grad(y, parts, grad)
    for x, dx, g in zip(parts, together, grad.split([3, 1, 5]), strict=True):
        assert torch.equal(dx, torch.autograd.grad(unit_rows(x), x, g)[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_short_rows(dtype):
    """Zero stays zero, with a gradient of zero; a row just long enough has its direction."""
    x = torch.zeros(3, 4, dtype=dtype)
    x[1, 2] = 1e-3
    x.requires_grad_()
    y = unit_rows(x)
    y.backward(torch.ones_like(y))
    assert torch.equal(y[0], torch.zeros(4, dtype=dtype))
    assert y[1, 2] == 1
    assert torch.equal(x.grad[0], torch.zeros(4, dtype=dtype))
    assert x.grad.isfinite().all()


def test_what_is_not_finite_stays_so():
    x = torch.ones(3, 20)
    x[0, 3], x[1, 19] = torch.nan, torch.inf
    y = unit_rows(x)
    assert y[0].isnan().all() and y[1, 19].isnan() and y[2].isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_give_the_same_bits(dtype):
    x = torch.randn(5000, 33).to(dtype)
    threads = torch.get_num_threads()
    expected = unit_rows(x)
    torch.set_num_threads(1)
    try:
        assert torch.equal(unit_rows(x), expected)
    finally:
        torch.set_num_threads(threads)
