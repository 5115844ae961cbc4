"""Golden values: inputs, losses and gradients of the methods' original code, in float64."""

import json

import numpy as np
import pytest
import torch
from shared import SHARED

import fastcl.functional as F

GOLDEN = SHARED / "golden"
FUNCTIONS = ("info_nce", "nt_xent", "dcl", "flat_nce", "sup_con", "clip", "siglip", "moco")
# float32: the largest logit here is 1 / 0.07, so a few rounding steps of 14 / 2 ** 24.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 4e-6}


def load(name, i, dtype):
    """Inputs in dtype, keyword arguments, loss and gradients of one stored case."""
    path = GOLDEN / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"golden values not found: {path.name} under ../shared/golden")
    stored = np.load(path)
    part = {"in": {}, "grad": {}}
    for key in stored.files:
        if key.startswith(f"case/{i}/") and key.count("/") == 3:
            kind, argument = key.split("/")[2:]
            part[kind][argument] = torch.from_numpy(stored[key])
    inputs = {k: x.to(dtype) if x.is_floating_point() else x for k, x in part["in"].items()}
    for k in part["grad"]:
        inputs[k].requires_grad_()
    kwargs = json.loads(str(stored[f"case/{i}/kwargs"]))
    return inputs, kwargs, torch.from_numpy(stored[f"case/{i}/loss"]), part["grad"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("i", range(3))
@pytest.mark.parametrize("name", FUNCTIONS)
def test_golden(name, i, dtype):
    inputs, kwargs, expected, grads = load(name, i, dtype)
    loss = getattr(F, name)(**inputs, **kwargs)
    assert loss.dtype == dtype
    loss.backward()
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    torch.testing.assert_close(loss.double(), expected, **tolerance)
    for argument, grad in grads.items():
        torch.testing.assert_close(inputs[argument].grad.double(), grad, **tolerance)
