"""The first minute on a GPU: every loss in every element type once, at the edge of its tiles.

test_gpu.py asks the same at many more sizes; this says early which kernel is wrong.
"""

import pytest
import torch
from cases import CASES
from test_gpu import DEVICES, DTYPES, check, unit

import fastcl.functional as F


@DEVICES
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda x: str(x).removeprefix("torch."))
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_one_row_beyond_a_tile(case, dtype, device):
    check(case, device, 129 if device == "cuda" else 20, 128, 0.1, dtype)


@DEVICES
@pytest.mark.parametrize("d", [256, 512])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_whole_tiles_of_wide_rows(case, d, device):
    """No borders, as in a real batch; by chunks of weights at 512."""
    check(case, device, 512 if device == "cuda" else 16, d, 0.07, torch.bfloat16)


@DEVICES
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_temperature_of_any_shape(reduction, device):
    q, k, negatives = (unit(5, 3).to(device).requires_grad_() for _ in range(3))
    results = []
    for shape in ((), (1,), (1, 1)):
        t = torch.full(shape, 0.3, device=device, requires_grad=True)
        for rest in (negatives, negatives.detach()):
            loss = F.info_nce(q, k, rest, temperature=t, reduction=reduction).sum()
            found = torch.autograd.grad(loss, (q, k, t))
            assert found[2].shape == shape
            results.append([loss.detach(), *found[:2], found[2].reshape(())])
    for some in results[2:]:
        torch.testing.assert_close(some, results[0])
