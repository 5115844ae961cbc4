"""A method whose update is never called, or whose backbone was replaced, says so."""

import warnings

import pytest
import torch
from torch import nn

from fastcl import Momentum, methods
from fastcl.momentum import PATIENCE

VIEWS = torch.randn(2, 4, 6)


def _method(name, **options):
    make = {"moco": methods.MoCo, "nnclr": methods.NNCLR, "byol": methods.BYOL}[name]
    return make(nn.Linear(6, 6), width=6, hidden=4, dim=4, **options)


@pytest.mark.parametrize("name", ["moco", "nnclr", "byol"])
@pytest.mark.parametrize("called", [False, True])
def test_update_that_never_comes(name, called):
    method = _method(name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(PATIENCE):
            with torch.no_grad():
                method(*VIEWS)
            if called:
                method.update()
    said = [str(w.message) for w in caught if "update()" in str(w.message)]
    assert bool(said) != called


@pytest.mark.parametrize("name", ["moco", "byol"])
def test_a_backbone_that_was_replaced(name):
    method = _method(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method.update()
    method.backbone = nn.Linear(6, 6)
    with pytest.warns(UserWarning, match="backbone or head was replaced"):
        method.update()


def test_a_copy_in_evaluation_mode_may_stay():
    twin = Momentum(nn.Linear(6, 6)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(PATIENCE + 1):
            twin(VIEWS[0])
