"""Golden values: inputs, losses and gradients of the methods' original code, in float64."""

import json

import numpy as np
import pytest
import torch
from shared import SHARED

import fastcl.functional as F

GOLDEN = SHARED / "golden"
FUNCTIONS = (
    "info_nce", "nt_xent", "dcl", "dclw", "flat_nce", "sup_con", "clip", "siglip", "moco",
    "moco_v3", "byol", "simsiam", "barlow_twins", "swav", "inst_disc", "nce", "cmc",
    "inva_spread", "cpc", "dim_jsd", "dim_nce", "sim_cse",
)  # fmt: skip
# float32: the largest logit here is 1 / 0.07, so a few rounding steps of 14 / 2 ** 24.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 4e-6}


def stored_case(name, i):
    """Arrays of one stored case by key."""
    path = GOLDEN / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"golden values not found: {path.name} under ../shared/golden")
    stored = np.load(path)
    prefix = f"case/{i}/"
    return {k.removeprefix(prefix): stored[k] for k in stored.files if k.startswith(prefix)}


def load(name, i, dtype):
    """Inputs in dtype, keyword arguments, loss and gradients of one stored case."""
    stored = stored_case(name, i)
    part = {"in": {}, "grad": {}}
    for key, array in stored.items():
        if "/" in key:
            kind, argument = key.split("/")
            part[kind][argument] = torch.from_numpy(array)
    inputs = {k: x.to(dtype) if x.is_floating_point() else x for k, x in part["in"].items()}
    for k in part["grad"]:
        inputs[k].requires_grad_()
    kwargs = json.loads(str(stored["kwargs"]))
    return inputs, kwargs, torch.from_numpy(stored["loss"]), part["grad"]


def arguments(inputs):
    """`name.0`, `name.1`, ... become one list."""
    out = {}
    for key, x in inputs.items():
        name, _, part = key.partition(".")
        if part:
            out.setdefault(name, []).append(x)
        else:
            out[name] = x
    return out


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("i", range(3))
@pytest.mark.parametrize("name", FUNCTIONS)
def test_golden(name, i, dtype):
    inputs, kwargs, expected, grads = load(name, i, dtype)
    loss = getattr(F, name)(**arguments(inputs), **kwargs)
    assert loss.dtype == dtype
    loss.backward()
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    torch.testing.assert_close(loss.double(), expected, **tolerance)
    for argument, grad in grads.items():
        torch.testing.assert_close(inputs[argument].grad.double(), grad, **tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("i", range(3))
def test_golden_assignment(i, dtype):
    stored = stored_case("sinkhorn", i)
    scores = torch.from_numpy(stored["in/scores"]).to(dtype)
    q = F.sinkhorn(scores, **json.loads(str(stored["kwargs"])))
    assert q.dtype == dtype
    # float32: exponents up to 1 / 0.03, rounded, are factors.
    tolerance = {torch.float64: 1e-13, torch.float32: 2e-5}[dtype]
    expected = torch.from_numpy(stored["out"])
    torch.testing.assert_close(q.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("i", range(3))
def test_golden_bank(i, dtype):
    stored = {k: torch.from_numpy(x) for k, x in stored_case("bank_update_", i).items()}
    bank = stored["in/bank"].to(dtype)
    F.bank_update_(bank, stored["in/index"], stored["in/x"].to(dtype))
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    torch.testing.assert_close(bank.double(), stored["after/bank"], **tolerance)
