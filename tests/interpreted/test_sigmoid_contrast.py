"""The sigmoid contrast against the reference: loss, gradients, and sums for scale and bias."""

import device
import pytest
import torch
from problems import Budget, ids, in_float64, unit_rows

from fastcl import reference
from fastcl.contrast.problem import Problem


@pytest.fixture
def sigmoid_contrast(kernels):
    """The launcher under the patches of `kernels`, by name."""
    from fastcl.kernels import sigmoid_contrast

    return lambda **arguments: run(sigmoid_contrast, arguments)


def run(module, arguments):
    """Of rows as they are, or divided."""
    x = {"positives_in": True, "divided": (False, False), **arguments}
    p = Problem(
        (x["q"],), (x["k"],), None, x["logit_scale"], x["row_ids"], x["col_ids"],
        *[None] * 5, x["scale"],
        False, x["positives_in"], True, *x["divided"], False, True,
    )  # fmt: skip
    return module.sigmoid_contrast(p, x["bias"], x["logit_bias"], x["need_q"], x["need_k"])


def case(n=21, m=35, d=24, dtype=torch.float32, **changes):
    arguments = dict(
        q=unit_rows(n, d, 0, dtype), k=unit_rows(m, d, 1, dtype), scale=10.0, logit_scale=None,
        bias=-3.0, logit_bias=None, **ids(n, m), need_q=True, need_k=True,
    )  # fmt: skip
    return {**arguments, **changes}


SCALARS = dict(scale=2.0, logit_scale=torch.tensor(7.0), bias=0.5, logit_bias=torch.tensor([-4.0]))
CASES = {
    "pairs": case(),
    "several positives": case(**ids(21, 35, 5)),
    "positives left out": case(**ids(21, 35, 5), positives_in=False),
    "no ids": case(row_ids=None, col_ids=None),
    "wide ids": case(row_ids=torch.arange(21) * 2**40, col_ids=torch.arange(35) * 2**40 - 2**42),
    "one pair": case(n=1, m=1),
    "exact tiles": case(n=16, m=32, d=16),
    "several chunks": case(n=70, m=40),
    "width 1": case(d=1),
    "width 100": case(d=100),
    "width 320": case(n=17, m=20, d=320),
    "device scalars": case(**SCALARS),
    "where training starts": case(bias=-10.0),
    "all logits zero": case(scale=1e-30, bias=0.0),
    "scale 100": case(scale=100.0, bias=-16.0),
    "scale 200, far above": case(scale=200.0, bias=150.0),
    "far below": case(bias=-60.0),
    "only dq": case(need_k=False),
    "only dk": case(need_q=False),
    "only the loss": case(need_q=False, need_k=False),
    "divided": case(divided=(True, True), **SCALARS),
    "only k divided": case(divided=(False, True)),
}
QUICK = {
    ("several positives", torch.float32), ("positives left out", torch.bfloat16),
    ("several chunks", torch.bfloat16), ("device scalars", torch.float16),
    ("only the loss", torch.float32), ("all logits zero", torch.float32),
    ("divided", torch.bfloat16),
}  # fmt: skip


def cases():
    for name in CASES:
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            yield pytest.param(
                name, dtype, marks=[] if (name, dtype) in QUICK else [pytest.mark.slow]
            )


def check(ours, arguments):
    plain = run(reference, arguments)
    exact = run(reference, in_float64(arguments))
    budget, narrow = Budget(), torch.finfo(arguments["q"].dtype).eps
    for name, *three in zip(("loss", "dq", "dk", "sums"), ours, plain, exact, strict=True):
        gradient = name in ("dq", "dk")
        assert three[0].dtype == torch.float32, name
        eps = narrow if gradient else torch.finfo(torch.float32).eps
        budget.add(name, *three, eps, floor=0.0 if gradient else 1.0)
    budget.check()


@pytest.mark.parametrize("name,dtype", cases())
def test_table(sigmoid_contrast, name, dtype):
    arguments = dict(CASES[name])
    arguments |= {side: arguments[side].to(dtype) for side in ("q", "k")}
    check(sigmoid_contrast(**arguments), arguments)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_converged(sigmoid_contrast, dtype):
    """Positives at a logit of 14: their slope of 1e-6 is no difference of two numbers near 1."""
    q = unit_rows(20, 64, 0, dtype)
    arguments = case(n=20, m=20) | dict(q=q, k=q, scale=30.0, bias=-16.0)
    ours = sigmoid_contrast(**arguments)
    exact = run(reference, in_float64(arguments))
    # A logit of float32 is off by up to 2^-20 at 20 / log 2, and so is what it adds.
    torch.testing.assert_close(ours[0].double(), exact[0], rtol=4e-6, atol=0)
    for got, wanted in zip(ours[1:3], exact[1:3], strict=True):
        error = (got - wanted).norm(dim=1) / wanted.norm(dim=1)
        assert error.max() < 2 * torch.finfo(dtype).eps


def test_small_losses_add_up(sigmoid_contrast):
    """A product of 1 + e is not rounded to 1: the smallest losses of a row are all there."""
    arguments = case(n=16, m=64, bias=-24.0, row_ids=None, col_ids=None, need_q=False)
    exact = run(reference, in_float64(arguments))[0]
    assert 1e-7 < exact < 1e-4
    ours = sigmoid_contrast(**arguments)[0]
    assert abs(ours.double() / exact - 1) < 2e-6


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_not_finite(sigmoid_contrast, value):
    arguments = case()
    arguments["k"] = arguments["k"].clone()
    arguments["k"][3] = value
    loss, dq, _, _ = sigmoid_contrast(**arguments)
    assert loss.isnan()
    assert not dq.isfinite().any()


def test_minus_infinity_is_no_loss_of_zero(sigmoid_contrast):
    q, k = torch.ones(16, 16) / 4, torch.ones(16, 16) / 4
    k[2] = -torch.inf
    arguments = case(n=16, m=16) | dict(q=q, k=k, row_ids=None, col_ids=None)
    assert sigmoid_contrast(**arguments)[0].isnan()


def test_descriptors(sigmoid_contrast, monkeypatch):
    device.use_tiles(monkeypatch, bulk=True)
    check(sigmoid_contrast(**CASES["several chunks"]), CASES["several chunks"])


@pytest.mark.slow
def test_same_bits_twice(sigmoid_contrast):
    first, second = (sigmoid_contrast(**CASES["several chunks"]) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_float64_goes_to_the_reference(sigmoid_contrast):
    arguments = in_float64(CASES["pairs"])
    exact = run(reference, arguments)
    assert all(torch.equal(a, b) for a, b in zip(sigmoid_contrast(**arguments), exact, strict=True))
