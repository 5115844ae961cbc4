"""Products of matrices as they lie and turned, whatever the number of threads."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastcl._library import ops
from fastcl.functional.product import product

pytestmark = pytest.mark.instruction_sets

# Around a strip of 48 columns, a chunk of 256 rows and a slice of 256 of the depth.
SHAPES = [(1, 1, 1), (5, 300, 24), (257, 255, 47), (256, 257, 49), (3, 520, 96), (40, 1, 144)]
TURNED = [(False, False), (True, False), (False, True), (True, True)]


def operands(n, c, d, turned, dtype):
    a, b = torch.randn(n, c, dtype=torch.float64), torch.randn(c, d, dtype=torch.float64)
    return [(x.T.contiguous() if t else x).to(dtype) for x, t in zip((a, b), turned, strict=True)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("turned", TURNED)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_product(shape, turned, dtype):
    """Within the textbook's bound on a sum of products: a rounding for every term."""
    n, c, d = shape
    (a, b), grad = operands(n, c, d, turned, dtype), torch.randn(n, d, dtype=torch.float64)
    leaves = [x.requires_grad_() for x in (a, b)]
    out = ours(*leaves, turned)
    da, db = torch.autograd.grad(out, leaves, grad.to(dtype))
    a, b = (x.detach().double() for x in leaves)
    a, b, grad = a.T if turned[0] else a, b.T if turned[1] else b, grad.to(dtype).double()
    da, db = da.T if turned[0] else da, db.T if turned[1] else db
    for found, x, y in ((out, a, b), (da, grad, b.T), (db, a.T, grad)):
        bound = 2 * x.shape[1] * torch.finfo(dtype).eps * (x.abs() @ y.abs())
        assert ((found.double() - x @ y).abs() <= bound).all()


def ours(a, b, turned):
    return product(a, b, a_turned=turned[0], b_turned=turned[1])


def plain(a, b, turned):
    return (a.T if turned[0] else a) @ (b.T if turned[1] else b)


@given(st.integers(1, 300), st.integers(0, 600), st.integers(1, 150), st.sampled_from(TURNED))
def test_threads_give_the_same_bits(n, c, d, turned):
    a, b = operands(n, c, d, turned, torch.float32)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3, 4):
            torch.set_num_threads(count)
            found.append(ours(a, b, turned))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(x, found[0]) for x in found)
    torch.testing.assert_close(found[0], plain(a, b, turned), rtol=1e-4, atol=1e-4)


def test_of_views_and_of_nothing():
    a, b = torch.randn(6, 8).T[::2], torch.randn(1, 5).expand(6, 5)
    torch.testing.assert_close(product(a, b), a @ b)
    assert torch.equal(product(a[:, :0], b[:0]), torch.zeros(4, 5))
    assert product(a[:0], b).shape == (0, 5)


def test_what_is_not_finite_stays_so():
    a = torch.ones(3, 20)
    a[0, 3], a[1, 19] = torch.nan, torch.inf
    out = product(a, torch.eye(20))
    assert out[0].isnan().all() and out[1, 19].isinf() and out[2].isfinite().all()


def test_gradcheck_opcheck_and_no_second_derivative():
    for turned in TURNED:
        a, b = (x.requires_grad_() for x in operands(3, 4, 5, turned, torch.float64))
        torch.autograd.gradcheck(lambda a, b, turned=turned: ours(a, b, turned), (a, b))
        torch.library.opcheck(ops.product, (a.detach(), b.detach(), *turned))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(ours(a, b, turned).sum(), a, create_graph=True)
