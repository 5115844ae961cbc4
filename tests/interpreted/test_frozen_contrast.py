"""MoCo's loss from the raw query, against the composite in float64."""

import pytest
import torch
from problems import Budget, ids, unit_rows

from fastcl import composite

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


def problem(n, m, d, dtype):
    random = torch.Generator().manual_seed(n)
    query, key = (3 * torch.randn(n, d, generator=random) for _ in range(2))
    return query.to(dtype), key.to(dtype), unit_rows(m, d, 1).to(dtype)


@pytest.fixture
def frozen(kernels):
    from fastcl.kernels import frozen_contrast

    return frozen_contrast


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, pytest.param(torch.float16, marks=slow), torch.float32]
)
@pytest.mark.parametrize("name", CASES)
def test_equals_the_composite(frozen, name, dtype):
    n, m, pairs = CASES[name]
    rows = problem(n, m, 24, dtype)
    pairs = pairs.get("row_ids"), pairs.get("col_ids")
    budget, eps = Budget(), torch.finfo(dtype).eps
    for scale, flags in ((10.0, (True, True)), (60.0, (True, False)), (10.0, (False, False))):
        query, key, columns = rows
        query = query if flags[0] else unit_rows(n, 24, 2).to(dtype)
        key = key if flags[1] else unit_rows(n, 24, 3).to(dtype)
        results = []
        for module, to in ((frozen, dtype), (composite, dtype), (composite, torch.float64)):
            x = (x.to(to) for x in (query, key, columns))
            loss, dq = module.frozen_contrast_mean(*x, scale, *pairs, *flags, True)
            results.append((loss[None], dq))
        budget.add("loss", *(x[0] for x in results), eps)
        budget.add("dq", *(x[1] for x in results), eps, floor=0.0)
    budget.check()


def test_converged(frozen):
    """What the positive lacks of 1 is taken in float64: a loss of 1e-6 has a gradient."""
    query = unit_rows(20, 24, 0).bfloat16()
    columns = unit_rows(40, 24, 1).bfloat16()
    arguments = 60.0, None, None, False, False, True
    loss, dq = frozen.frozen_contrast_mean(query, query, columns, *arguments)
    wide = query.double(), query.double(), columns.double()
    exact, gradient = composite.frozen_contrast_mean(*wide, *arguments)
    assert exact < 1e-4
    # Products of bfloat16 are exact; their float32 sums near 60 are rounded at 24 terms, in both.
    torch.testing.assert_close(loss.double(), exact, rtol=1e-3, atol=0)
    assert (dq - gradient).norm() / gradient.norm() < 2**-8


def test_rows_without_a_direction_and_not_numbers(frozen):
    query, key, columns = problem(20, 40, 24, torch.bfloat16)
    query[3], query[5, 0] = 0, torch.nan
    loss, dq = frozen.frozen_contrast_mean(query, key, columns, 9.0, None, None, True, True, True)
    others = (torch.arange(20) != 3) & (torch.arange(20) != 5)
    assert loss.isnan() and dq[5].isnan().all() and (dq[3] == 0).all()
    assert dq[others].isfinite().all() and (dq[others] != 0).any()
