"""The mean contrast of rows with each other, against the reference in float64."""

import pytest
import torch
from problems import Budget, wider

from fastcl import reference
from fastcl.contrast.problem import Problem

slow = pytest.mark.slow


def problem(parts, scale, ids, positives_in, normalize, paired):
    return Problem(
        tuple(parts), (), None, None, ids, None, *[None] * 5, scale, False, positives_in, True,
        normalize, normalize, normalize, paired,
    )  # fmt: skip


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, pytest.param(torch.float16, marks=slow)]
)
@pytest.mark.parametrize(
    "normalize, paired, positives_in",
    [
        (True, True, True),
        (False, False, True),
        pytest.param(True, True, False, marks=slow),
        pytest.param(True, False, True, marks=slow),
    ],
)
def test_equals_the_reference(kernels, normalize, paired, positives_in, dtype):
    random = torch.Generator().manual_seed(0)
    parts = [3 * torch.randn(n, 24, generator=random) for n in (21, 16)]
    if not normalize:
        parts = [torch.nn.functional.normalize(x) for x in parts]
    parts = [x.to(dtype) for x in parts]
    ids = torch.arange(37) % 18
    if not paired:
        ids[::3] += 37 * torch.arange(1, 14)
    p = problem(parts, 10.0, ids, positives_in, normalize, paired)
    results = []
    for module, x in ((kernels, p), (reference, p), (reference, wider(p))):
        loss, losses, dz, dk, d_own, slope = module.contrast_mean(x, True, False, False, True)
        count = module.contrast_forward(x, None, False, False)[0][3]
        assert dk.shape == d_own.shape == (0, 24)
        results.append((loss[None], losses, count, dz, slope))
    budget, eps = Budget(), torch.finfo(dtype).eps
    for name, *three in zip(("mean", "loss", "count", "dz", "slope"), *results, strict=True):
        budget.add(name, *three, eps, floor=0.0 if name in ("dz", "slope") else 1.0)
    budget.check()


def test_only_what_is_needed(kernels):
    p = problem([torch.randn(20, 24)], 10.0, torch.arange(20) % 10, True, True, True)
    whole, some = (kernels.contrast_mean(p, need, False, False, False) for need in (True, False))
    assert torch.equal(some[0], whole[0]) and some[2].shape == (0, 24)
