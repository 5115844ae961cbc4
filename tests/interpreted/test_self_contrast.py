"""The mean contrast of rows with each other, against the composite in float64."""

import pytest
import torch
from problems import Budget

from fastcl import composite

slow = pytest.mark.slow


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
def test_equals_the_composite(kernels, normalize, paired, positives_in, dtype):
    from fastcl.kernels import self_contrast

    random = torch.Generator().manual_seed(0)
    parts = [3 * torch.randn(n, 24, generator=random) for n in (21, 16)]
    if not normalize:
        parts = [torch.nn.functional.normalize(x) for x in parts]
    parts = [x.to(dtype) for x in parts]
    ids = torch.arange(37) % 18
    if not paired:
        ids[::3] += 37 * torch.arange(1, 14)
    results = []
    for module, to in ((self_contrast, dtype), (composite, dtype), (composite, torch.float64)):
        x = [part.to(to) for part in parts]
        loss, rows, dz = module.self_contrast_mean(
            x, 10.0, ids, positives_in, normalize, paired, True
        )
        results.append((loss[None], rows[0], rows[3], dz))
    budget, eps = Budget(), torch.finfo(dtype).eps
    for name, *three in zip(("mean", "loss", "count", "dz"), *results, strict=True):
        budget.add(name, *three, eps, floor=0.0 if name == "dz" else 1.0)
    budget.check()


def test_only_what_is_needed(kernels):
    from fastcl.kernels import self_contrast

    z, ids = torch.randn(20, 24), torch.arange(20) % 10
    whole, some = (
        self_contrast.self_contrast_mean([z], 10.0, ids, True, True, True, need)
        for need in (True, False)
    )
    assert torch.equal(some[0], whole[0]) and some[2].shape == (0, 24)
