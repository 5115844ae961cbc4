"""The libraries that fastcl.compat stands in for, where they can be imported."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.absent import imported  # noqa: E402

SHAPES = {"n": st.integers(2, 12), "d": st.integers(2, 9), "seed": st.integers(0, 2**31 - 1)}
TEMPERATURES = st.floats(0.02, 2.0)
DTYPES = st.sampled_from([torch.float32, torch.float64])

HOMES = {
    "lightly": "lightly.loss",
    "open_clip": "open_clip.loss",
    "pytorch_metric_learning": "pytorch_metric_learning.losses",
    "info_nce": "info_nce",
    "sentence_transformers": "sentence_transformers.sentence_transformer.losses",
    "pylate": "pylate.losses",
    "solo": "solo.losses",
}


def both(library):
    theirs = peer(HOMES[library])
    return importlib.import_module(f"fastcl.compat.{library}"), theirs


def rows(n, d, dtype, *names):
    """Rows of length 0.5 to 2: the gradient to a row of length 0 has no scale."""
    lengths = (0.5 + 1.5 * torch.rand(n, 1)).to(dtype)
    return {
        name: torch.nn.functional.normalize(torch.randn(n, d, dtype=dtype)) * lengths
        for name in names
    }


def peer(name: str) -> ModuleType:
    """A module of another library; without the library the test is skipped."""
    top = name.split(".")[0]
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        pytest.skip(f"{top} is not installed: make test-peers", allow_module_level=True)
    return imported(name)


# Inputs within a percent that tell how much a library rounds, where those of a test do not.
NEARBY = 32


def _run(function, tensors, dtype):
    """Value and gradients."""
    inputs = {k: x.detach().to(dtype).requires_grad_() for k, x in tensors.items()}
    loss = function(**inputs)
    gradients = torch.autograd.grad(loss.sum(), list(inputs.values()), allow_unused=True)
    return loss.detach(), *gradients


def _rounding(function, tensors, dtype):
    """The largest error in dtype of the value and of every gradient."""
    inputs = {k: x.to(dtype) for k, x in tensors.items()}
    pairs = zip(_run(function, inputs, dtype), _run(function, inputs, torch.float64), strict=True)
    return [
        0.0 if x is None or torch.equal(x.double(), y) else (x - y).abs().max().item()
        for x, y in pairs
    ]


def _excess(mine, exact, rounding, eps, logit):
    """The largest of |error| - bound, below 0 where all is well."""
    errors = [
        ((x.double() - y).abs() - (r + 4 * eps * (1 + y.abs()) + eps * logit * y.abs().max())).max()
        for x, y, r in zip(mine, exact, rounding, strict=True)
        if x is not None and not torch.equal(x.double(), y)  # both infinite
    ]
    return torch.stack(errors).max().item() if errors else -1.0  # NaN where one is NaN


def budgets(ours, theirs, tensors, logit=0.0):
    """Value and gradients of both losses in the dtype of the tensors are within rounding.

    The library in float64 is the truth, and the bound that of the project: twice the error of the
    library in the dtype and four roundings of the result. With the few rows of these tests that
    error may be next to zero by luck: where ours is above the bound, it is the largest at inputs
    within a percent of these. In float64 the truth has an error of its own, and nothing is there
    to measure it: both are taken from float32, in proportion to eps, and the error of the truth
    counts once more. tensors is a dict of arguments.

    logit is the size of the largest, for losses whose rows may be decided: the weights of our
    gradient are exponentials of a logit less the log of the sum, and carry its rounding; the
    library subtracts the largest logit of the row, exactly where a row is decided, and its weights
    have none.
    """
    dtype = next(iter(tensors.values())).dtype
    mine, their = _run(ours, tensors, dtype), _run(theirs, tensors, dtype)
    exact = _run(theirs, tensors, torch.float64)
    assert mine[0].shape == their[0].shape and mine[0].dtype == their[0].dtype
    for x, y in zip(mine, their, strict=True):
        assert (x is None) == (y is None)
        assert x is None or (x.dtype == y.dtype and x.shape == y.shape)
    eps, narrow, share = torch.finfo(dtype).eps, dtype, 2.0
    if dtype == torch.float64:
        narrow, share = torch.float32, 3 * eps / torch.finfo(torch.float32).eps
    rounding = [share * e for e in _rounding(theirs, tensors, narrow)]
    if _excess(mine, exact, rounding, eps, logit) <= 0:
        return
    for _ in range(NEARBY):
        moved = {k: x * (1 + 0.01 * torch.randn_like(x)) for k, x in tensors.items()}
        errors = _rounding(theirs, moved, narrow)
        rounding = [max(r, share * e) for r, e in zip(rounding, errors, strict=True)]
    excess = _excess(mine, exact, rounding, eps, logit)
    assert excess <= 0, f"{excess} above the bound"
