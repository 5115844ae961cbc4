"""bfloat16 rows multiplied in pairs: by the processor where it does, and emulated everywhere."""

import pytest
import torch
from budget import assert_within_budget
from cases import CASES, rounded, run
from contrasts import call, fields
from processors import PAIR_PRODUCTS, built, running

from fastcl._library import ops

pytestmark = built

FUSED = ("info_nce", "info_nce_unpaired", "nt_xent", "dcl", "sup_con", "clip", "siglip", "moco")


@pytest.fixture(params=PAIR_PRODUCTS[1:], autouse=True)
def in_pairs(request):
    with running(products=request.param):
        yield


# Rows: one, odd, a panel and one more, several tiles. Widths: one pair, less than a matrix register
# of 16 pairs, one and a bit, odd (which goes the way of floats), more than a slice of 512.
@pytest.mark.parametrize("n, d", [(1, 2), (7, 24), (33, 34), (65, 33), (150, 64), (40, 520)])
@pytest.mark.parametrize("name", FUSED)
def test_budget(name, n, d):
    case = next(c for c in CASES if c.name == name)
    tensors, kwargs = case.arguments(max(n, case.smallest), d, 0.1)
    dtype = torch.bfloat16
    tensors = rounded(tensors, dtype)
    exact, exact_grads = run(case.plain, tensors, case.constants, kwargs, torch.float64)
    plain, plain_grads = run(case.plain, tensors, case.constants, kwargs, dtype)
    ours, grads = run(case.function, tensors, case.constants, kwargs, dtype)
    assert_within_budget(ours, plain, exact, dtype, "loss")
    for key, grad in grads.items():
        assert_within_budget(grad, plain_grads[key], exact_grads[key], dtype, f"d{key}")


def losses(z):
    ids = torch.arange(300) % 150
    p = fields(z, scale=10.0, ids=ids, normalize=True)
    return call(ops, "contrast_forward", p, None, True, False)[0][0]


def test_similarities_are_those_of_float_products():
    """Products of bfloat16 numbers are exact in float32: only the order of sums may differ."""
    z = [torch.randn(150, 48).bfloat16() for _ in "12"]
    ours = losses(z)
    with running(products="widened"):
        expected = losses(z)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=2e-5)


def test_converged_pairs_keep_their_gradient():
    """The positive is subtracted before the one rounding: no more is lost than the exact weights
    lose in bfloat16. Rounded first, the gradient of these pairs (cosine 0.9) is all error."""
    make = torch.Generator().manual_seed(0)
    q = torch.nn.functional.normalize(torch.randn(192, 64, generator=make))
    k = torch.nn.functional.normalize(q + 0.06 * torch.randn(192, 64, generator=make))
    q, k, scale = q.bfloat16(), k.bfloat16(), 20.0
    ids = torch.arange(192)
    problem = fields(q, k, scale=scale, ids=ids)
    rows, cols, _, weighted = call(ops, "contrast_forward", problem, None, True, True)
    grads = torch.ones(192), None, None, None
    kept = rows, cols, weighted
    dq, *_ = call(ops, "contrast_backward", problem, *kept, *grads, True, True, False, False)
    p = (scale * q.double() @ k.double().T).softmax(1)
    others = p.clone().fill_diagonal_(0)
    weights = others - torch.diag(others.sum(1))

    def error(dq):
        exact = scale * weights @ k.double()
        return (dq.double() - exact).norm() / exact.norm()

    rounded_last = error((scale * weights).bfloat16().double() @ k.double())
    rounded_first = error(scale * (p.bfloat16().double() - torch.eye(192)) @ k.double())
    assert error(dq) <= 1.05 * rounded_last
    assert rounded_last < 4e-3 and rounded_first > 0.5


def test_same_bits_for_any_number_of_threads():
    z = [torch.randn(300, 48).bfloat16() for _ in "12"]
    ids = torch.arange(600) % 300
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        p = fields(z, scale=10.0, ids=ids, normalize=True)
        rows, cols, _, weighted = call(ops, "contrast_forward", p, None, True, False)
        grads = torch.ones(600), None, None, None
        needs = True, False, False, False
        dq = call(ops, "contrast_backward", p, rows, cols, weighted, *grads, *needs)[0]
        results += [(rows, dq)]
    torch.set_num_threads(before)
    for x, y in zip(*results, strict=True):
        assert torch.equal(x, y)
