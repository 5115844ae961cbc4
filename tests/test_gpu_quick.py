"""The first minute on a GPU: every loss in every element type once, at the edge of its tiles.

test_gpu.py asks the same at many more sizes; this says early which kernel is wrong.
"""

import pytest
import torch
from cases import CASES
from test_gpu import DEVICES, DTYPES, check


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
