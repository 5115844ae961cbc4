"""The nested widths against the reference: loss, gradients, and the sum for the scale."""

import pytest
import torch
from problems import Budget, in_float64, unit_rows

from fastcl import reference

ALL = True, True, True


@pytest.fixture
def nested_contrast_mean(kernels):
    """The launcher under the patches of `kernels`."""
    from fastcl.kernels import nested_contrast

    return nested_contrast.nested_contrast_mean


def case(n=37, d=64, widths=(16, 32, 64), dtype=torch.float32, scale=10.0, needs=ALL, **changes):
    q = unit_rows(n, d, 0)
    k = q + unit_rows(n, d, 1)
    return {
        "q": (3 * q).to(dtype), "k": k.to(dtype), "logit_scale": None, "scale": scale,
        "widths": list(widths), "weights": [0.5 + w / d for w in widths],
        **dict(zip(("need_q", "need_k", "need_scale"), needs, strict=True)), **changes,
    }  # fmt: skip


CASES = {
    "three widths": case(),
    "odd widths": case(d=24, widths=(1, 5, 20)),
    "one row": case(n=1, d=16, widths=(16,)),
    "learned scale": case(n=20, d=20, widths=(8, 20), logit_scale=torch.tensor(2.0)),
    "only dq": case(n=20, needs=(True, False, False)),
    "only dk": case(n=20, needs=(False, True, False)),
    "only the scale": case(n=20, needs=(False, False, True)),
    "only the loss": case(n=20, needs=(False, False, False)),
}


# What runs without the slow tests: one case of every path.
QUICK = {(name, torch.float32) for name in ("odd widths", "learned scale", "only dq", "only dk")}
QUICK |= {("three widths", torch.bfloat16)}


def cases():
    for name in CASES:
        for dtype in (torch.float32, torch.bfloat16):
            marks = [] if (name, dtype) in QUICK else [pytest.mark.slow]
            yield pytest.param(name, dtype, marks=marks)


@pytest.mark.parametrize("name, dtype", cases())
def test_table(nested_contrast_mean, name, dtype):
    arguments = CASES[name] | {side: CASES[name][side].to(dtype) for side in ("q", "k")}
    ours = nested_contrast_mean(**arguments)
    plain = reference.nested_contrast_mean(**arguments)
    exact = reference.nested_contrast_mean(**in_float64(arguments))
    budget, eps = Budget(), torch.finfo(dtype).eps
    for what, *three in zip(("loss", "dq", "dk", "slope"), ours, plain, exact, strict=True):
        assert three[0].dtype == torch.float32, what
        budget.add(what, *three, eps, floor=0.0 if what in ("dq", "dk") else 1.0)
    budget.check()


@pytest.mark.slow
def test_same_bits_twice(nested_contrast_mean):
    first, second = (nested_contrast_mean(**CASES["odd widths"]) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_float64_goes_to_the_reference(nested_contrast_mean):
    arguments = in_float64(CASES["three widths"])
    exact = reference.nested_contrast_mean(**arguments)
    ours = nested_contrast_mean(**arguments)
    assert all(torch.equal(a, b) for a, b in zip(ours, exact, strict=True))
