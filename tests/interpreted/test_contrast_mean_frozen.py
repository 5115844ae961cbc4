"""MoCo's loss from the raw query, against the reference in float64."""

import pytest
import torch
from problems import Budget, ids, unit_rows, wider

from fastcl import reference
from fastcl.contrast.problem import Problem

slow = pytest.mark.slow
CASES = {
    "queue": (21, 70, {}),
    "ids": (21, 70, ids(21, 70, 5)),
    "one row": (1, 5, {}),
    "nothing left": (
        17,
        20,
        {"row_ids": torch.zeros(17).long(), "col_ids": torch.zeros(20).long()},
    ),
}


def rows(n, m, d, dtype):
    random = torch.Generator().manual_seed(n)
    query, key = (3 * torch.randn(n, d, generator=random) for _ in range(2))
    return query.to(dtype), key.to(dtype), unit_rows(m, d, 1).to(dtype)


def problem(query, key, columns, scale, normalize=True, normalize_key=True, **pairs):
    return Problem(
        (query,), (columns,), key, None, pairs.get("row_ids"), pairs.get("col_ids"),
        *[None] * 5, scale,
        False, True, True, normalize, False, normalize_key, True,
    )  # fmt: skip


@pytest.fixture
def mean(kernels):
    """Loss and gradient of the operator, which must take the four launches."""

    def run(p):
        assert kernels._is_frozen(p, (True, False, False, False))
        return loss_and_gradient(kernels, p)

    return run


def loss_and_gradient(module, p):
    loss, _, dq, *others = module.contrast_mean(p, True, False, False, False)
    assert all(x.numel() == 0 for x in others)
    return loss, dq


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, pytest.param(torch.float16, marks=slow), torch.float32]
)
@pytest.mark.parametrize("name", CASES)
def test_equals_the_reference(mean, name, dtype):
    n, m, pairs = CASES[name]
    given = rows(n, m, 24, dtype)
    budget, eps = Budget(), torch.finfo(dtype).eps
    for scale, flags in ((10.0, (True, True)), (60.0, (True, False)), (10.0, (False, False))):
        query, key, columns = given
        query = query if flags[0] else unit_rows(n, 24, 2).to(dtype)
        key = key if flags[1] else unit_rows(n, 24, 3).to(dtype)
        p = problem(query, key, columns, scale, *flags, **pairs)
        three = mean(p), loss_and_gradient(reference, p), loss_and_gradient(reference, wider(p))
        budget.add("loss", *(x[0][None] for x in three), eps)
        budget.add("dq", *(x[1] for x in three), eps, floor=0.0)
    budget.check()


def test_converged(mean):
    """What the positive lacks of 1 is taken in float64: a loss of 1e-6 has a gradient."""
    query = unit_rows(20, 24, 0).bfloat16()
    p = problem(query, query, unit_rows(40, 24, 1).bfloat16(), 60.0, False, False)
    loss, dq = mean(p)
    exact, gradient = loss_and_gradient(reference, wider(p))
    assert exact < 1e-4
    # Products of bfloat16 are exact; their float32 sums near 60 are rounded at 24 terms, in both.
    torch.testing.assert_close(loss.double(), exact, rtol=1e-3, atol=0)
    assert (dq - gradient).norm() / gradient.norm() < 2**-8


def test_rows_without_a_direction_and_not_numbers(mean):
    query, key, columns = rows(20, 40, 24, torch.bfloat16)
    query[3], query[5, 0] = 0, torch.nan
    loss, dq = mean(problem(query, key, columns, 9.0))
    others = (torch.arange(20) != 3) & (torch.arange(20) != 5)
    assert loss.isnan() and dq[5].isnan().all() and (dq[3] == 0).all()
    assert dq[others].isfinite().all() and (dq[others] != 0).any()


def test_where_it_serves(kernels):
    """Not where the key, the columns' lengths or the scale ask for more."""
    p = problem(*rows(20, 40, 24, torch.float32), 9.0)
    needs = True, False, False, False
    assert kernels._is_frozen(p, needs)
    assert not kernels._is_frozen(p, (True, False, True, False))
    assert not kernels._is_frozen(p, (True, True, False, False))
    assert not kernels._is_frozen(p, (False, False, False, False))
    for changes in (
        {"own": None}, {"normalize_k": True}, {"unit": False}, {"logit_scale": torch.tensor(2.0)},
        {"q": p.q * 2}, {"k": ()},
    ):  # fmt: skip
        assert not kernels._is_frozen(p._replace(**changes), needs), changes
