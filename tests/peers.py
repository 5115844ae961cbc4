"""The libraries that fastcl.compat stands in for, where they can be imported."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.absent import imported  # noqa: E402


def peer(name: str) -> ModuleType:
    """A module of another library; without the library the test is skipped."""
    top = name.split(".")[0]
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        pytest.skip(f"{top} is not installed: make test-peers", allow_module_level=True)
    return imported(name)


def budgets(ours, theirs, tensors, size=1.0):
    """Value and gradients of both losses in the dtype of the tensors are within rounding.

    The library in float64 is the truth; ours may be twice as far from it as the library, plus
    four roundings of the result and of its largest intermediate, of the given size: a logit of
    size 1 / temperature is rounded by that times eps. tensors is a dict of arguments.
    """

    def run(function, dtype):
        inputs = {k: x.detach().to(dtype).requires_grad_() for k, x in tensors.items()}
        loss = function(**inputs)
        gradients = torch.autograd.grad(loss.sum(), list(inputs.values()), allow_unused=True)
        return loss.detach(), *gradients

    dtype = next(iter(tensors.values())).dtype
    mine, their, exact = run(ours, dtype), run(theirs, dtype), run(theirs, torch.float64)
    assert mine[0].shape == their[0].shape and mine[0].dtype == their[0].dtype
    for x, y, truth in zip(mine, their, exact, strict=True):
        assert (x is None) == (y is None)
        if x is None:
            continue
        assert x.dtype == y.dtype and x.shape == y.shape
        eps = torch.finfo(dtype).eps
        bound = 2 * (y.double() - truth).abs().max() + 4 * eps * (1 + size + truth.abs().max())
        error = (x.double() - truth).abs().max()
        same = torch.equal(x.double(), truth)  # both infinite
        assert same or error <= bound, f"{error} > {bound}"
