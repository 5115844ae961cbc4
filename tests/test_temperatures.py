"""Temperatures that are tensors: of one element, and of one per row."""

import pytest
import torch
from cases import CASES, run

N, D, T = 6, 5, 0.3
# By their docstrings; all others take one per row.
OF_ONE_ELEMENT = (
    "dclw", "swav", "dino", "soft_cross_entropy", "mil_nce", "debiased", "hcl", "rince",
    "retrieval", "matryoshka", "max_sim",
)  # fmt: skip
TAKERS = [case for case in CASES if "temperature" in case.arguments(N, D, T)[1]]
PER_ROW = [case for case in TAKERS if not case.name.startswith(OF_ONE_ELEMENT)]
# The others compute with it before they call fastcl.
LOOKING = [x for x in TAKERS if x.name not in ("soft_cross_entropy", "contrast_temperatures")]
TWICE = "sup_con", "contrast_alone"  # their rows are those of both views


def called(case, temperature, dtype=torch.float64):
    torch.manual_seed(0)
    tensors, kwargs = case.arguments(N, D, T)
    return run(case.function, tensors, case.constants, kwargs | {"temperature": temperature}, dtype)


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("case", TAKERS, ids=lambda c: c.name)
def test_one_element_is_a_number(case, shape):
    ours = called(case, torch.full(shape, T, dtype=torch.float64))
    torch.testing.assert_close(ours, called(case, T))


@pytest.mark.parametrize("case", TAKERS, ids=lambda c: c.name)
def test_a_temperature_of_another_dtype_changes_none(case):
    tensors, kwargs = case.arguments(N, D, T)
    tensors = {k: x.float() if x.is_floating_point() else x for k, x in tensors.items()}
    loss = case.function(**tensors, **kwargs | {"temperature": torch.full((1,), T).double()})
    assert loss.shape == () and loss.dtype == torch.float32


@pytest.mark.parametrize("case", PER_ROW, ids=lambda c: c.name)
def test_a_temperature_of_every_row(case):
    """Equal ones are one number; the gradient of unequal ones is the derivative."""
    rows = 2 * N if case.name in TWICE else N
    torch.testing.assert_close(called(case, torch.full((rows,), T).double()), called(case, T))
    if not case.derivative:
        return
    torch.manual_seed(0)
    tensors, kwargs = case.arguments(N, D, T)
    unequal = torch.linspace(0.2, 0.5, rows).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda t: case.function(**tensors, **kwargs | {"temperature": t}), unequal
    )


@pytest.mark.parametrize("case", LOOKING, ids=lambda c: c.name)
def test_temperatures_that_do_not_fit(case):
    tensors, kwargs = case.arguments(N, D, T)
    with pytest.raises(ValueError, match="temperature"):
        case.function(**tensors, **kwargs | {"temperature": torch.full((N + 1,), T).double()})
