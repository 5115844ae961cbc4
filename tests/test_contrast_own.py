"""A positive of each row's own, beside constant columns: MoCo's loss and its gradient."""

import pytest
import torch
import torch.nn.functional as nnf
from contrasts import call, fields, to

import fastcl.functional as F
from fastcl import reference
from fastcl._library import ops
from fastcl.contrast.node import mean_loss, row_losses
from fastcl.contrast.problem import problem as checked_problem

pytestmark = pytest.mark.instruction_sets

# Float64 carries 2^-53: sums of thousands of terms near one may differ by some 1e-13 between two
# orders of adding, gradients of the mean by as much of their largest entry. Ten times that, and a
# gradient near zero by what its terms, of the size of the scale over the rows, may lose.
LOSS = {"rtol": 1e-11, "atol": 1e-12}
GRADIENT = {"rtol": 1e-10, "atol": 1e-12}
# What the operators of a loss with constant columns find: the gradient of the rows.
ROWS = True, False, False, False
NOTHING = False, False, False, False


def problem(n, m, d, dtype=torch.float64, ids="pairs"):
    make = torch.Generator().manual_seed(n + m + d)
    query, key, columns = (
        torch.randn(size, d, generator=make, dtype=torch.float64) for size in (n, n, m)
    )
    row_ids = col_ids = None
    if ids == "pairs":
        row_ids, col_ids = torch.arange(n) % 5, torch.arange(m) % 7
    elif ids == "nothing left":
        row_ids, col_ids = (torch.zeros(size, dtype=torch.int64) for size in (n, m))
    rows = (3 * query).to(dtype), (2 * key).to(dtype), nnf.normalize(columns).to(dtype)
    return *rows, row_ids, col_ids


def frozen(query, key, columns, scale, row_ids, col_ids, normalize, normalize_key):
    return fields(
        query, columns, scale=scale, ids=(row_ids, col_ids), own=key,
        normalize=(normalize, False, normalize_key),
    )  # fmt: skip


def mean(p, needs=ROWS, module=ops):
    """Loss and gradient of the rows."""
    loss, _, dq, *_ = call(module, "contrast_mean", p, *needs)
    return loss, dq


def formula(query, key, columns, scale, row_ids, col_ids, normalize, normalize_key):
    q = nnf.normalize(query) if normalize else query
    k = nnf.normalize(key) if normalize_key else key
    s = scale * q @ columns.T
    if row_ids is not None:
        s = s.masked_fill(row_ids[:, None] == col_ids[None, :], -torch.inf)
    logits = torch.cat([scale * (q * k).sum(1, keepdim=True), s], 1)
    return nnf.cross_entropy(logits, torch.zeros(len(q), dtype=torch.int64))


@pytest.mark.parametrize("ids", [None, "pairs", "nothing left"])
@pytest.mark.parametrize("n, m, d", [(1, 1, 3), (1, 300, 8), (70, 90, 24), (130, 3001, 300)])
def test_equals_the_formula(n, m, d, ids):
    """Loss and gradient; rows that are used as they are included."""
    for normalize, normalize_key in ((True, True), (True, False), (False, False)):
        query, key, columns, *pairs = problem(n, m, d, ids=ids)
        query = query if normalize else nnf.normalize(query)
        key = key if normalize_key else nnf.normalize(key)
        options = columns, 9.0, *pairs, normalize, normalize_key
        loss, dq = mean(frozen(query, key, *options))
        query.requires_grad_()
        exact = formula(query, key, *options)
        (gradient,) = torch.autograd.grad(exact, query)
        torch.testing.assert_close(loss, exact.detach(), **LOSS)
        torch.testing.assert_close(dq, gradient, **GRADIENT)
        none = mean(frozen(query.detach(), key, *options), NOTHING)
        assert torch.equal(none[0], loss) and none[1].shape == (0, d)


@pytest.mark.parametrize("scale", [100.0, 700.0, 3000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_left_at_a_large_scale(dtype, scale):
    """The only positive lies far below the shift that all rows share."""
    rows = ([[1.0, 0, 0]] * 2, [[0.5, 0.75**0.5, 0]] * 2, [[0.6, 0.8, 0], [-1, 0, 0]])
    query, key, columns = (torch.tensor(x, dtype=dtype) for x in rows)
    ids = torch.tensor([0, 1]), torch.tensor([0, 0])  # the second row keeps its columns
    options = columns, scale, *ids, True, True
    loss, dq = mean(frozen(query, key, *options))
    query.requires_grad_()
    exact = formula(query.double(), key.double(), columns.double(), *options[1:])
    (gradient,) = torch.autograd.grad(exact, query)
    rounding = 4 * scale * torch.finfo(dtype).eps  # of a logit, relative in its exponential
    torch.testing.assert_close(loss.double(), exact.detach(), rtol=rounding, atol=0)
    assert (dq - gradient).norm() <= rounding * gradient.norm()
    assert (dq[0] == 0).all() and (dq[1] != 0).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_rows(dtype):
    query, key, columns, *pairs = problem(70, 900, 24, dtype)
    p = frozen(query, key, columns, 9.0, *pairs, True, True)
    ours, exact = mean(p), mean(to(p, torch.float64), module=reference)
    assert ours[0].dtype == ours[1].dtype == torch.float32
    for x, y in zip(ours, exact, strict=True):
        assert (x - y).norm() / y.norm() < 2 * torch.finfo(dtype).eps


@pytest.mark.any_set
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_opcheck(dtype):
    query, key, columns, *pairs = problem(9, 7, 5, dtype)
    for ids in (pairs, (None, None)):
        for flags, needs in (((True, True), ROWS), ((False,) * 2, ROWS), ((True, True), NOTHING)):
            p = frozen(query, key, columns, 2.0, *ids, *flags)
            torch.library.opcheck(ops.contrast_mean, (*p, *needs))


def test_converged_pairs_keep_their_gradient():
    """At a loss below the rounding of the logits, what the positive lacks of 1 is still right."""
    query = nnf.normalize(torch.randn(20, 16))
    key = nnf.normalize(query + 0.05 * torch.randn(20, 16))
    columns = nnf.normalize(torch.randn(300, 16) - 3 * query.mean(0))
    p = frozen(query, key, columns, 40.0, None, None, True, True)
    loss, dq = mean(p)
    exact, gradient = mean(to(p, torch.float64))
    assert exact < 1e-2
    # A logit near 40 is rounded by 40 x 2^-24; of sixteen terms, in both factors of a product,
    # by at most eighty times that.
    torch.testing.assert_close(loss.double(), exact, rtol=2e-4, atol=0)
    assert (dq - gradient).norm() / gradient.norm() < 2e-4


@pytest.mark.parametrize("normalize", [True, False])
def test_equals_the_mean_of_the_losses_per_row(normalize):
    """Under an upstream gradient that is not one; key and columns receive none."""
    query, key, columns, *pairs = problem(40, 50, 6)
    results = []
    for front in ("mean", "rows"):
        x = query.clone().requires_grad_()
        more = {"scale": 4.0, "ids": tuple(pairs)}
        if front == "mean":
            flags = {"normalize": normalize, "normalize_k": False}
            loss, _ = mean_loss(checked_problem(x, columns, own=key, **more, **flags))
        else:
            q, k = (F.unit_rows(x), F.unit_rows(key)) if normalize else (x, key)
            flags = {"unit": normalize, "normalize": False}
            loss = row_losses(checked_problem(q, columns, own=k, **more, **flags)).loss.mean()
        results.append((loss, *torch.autograd.grad(-3 * loss, x)))
    for x, y in zip(*results, strict=True):
        torch.testing.assert_close(x, y, **GRADIENT)


def test_a_zero_row_has_no_direction():
    query, key, columns, *_ = problem(20, 30, 6)
    query[3] = 0
    loss, dq = mean(frozen(query, key, columns, 5.0, None, None, True, True))
    assert loss.isfinite() and (dq[3] == 0).all() and (dq[4] != 0).any()


def test_a_row_that_is_not_a_number_stays_alone():
    query, key, columns, *_ = problem(20, 30, 6)
    query[3, 1] = torch.nan
    loss, dq = mean(frozen(query, key, columns, 5.0, None, None, True, True))
    others = torch.arange(20) != 3
    assert loss.isnan() and dq[3].isnan().all() and dq[others].isfinite().all()


def test_the_columns_may_change_before_the_backward():
    """MoCo pushes its keys while the gradient is on its way."""
    query, key, columns, *_ = problem(20, 30, 6)
    query.requires_grad_()
    expected = torch.autograd.grad(F.moco(query, key, columns), query)[0]
    loss = F.moco(query, key, columns)
    columns.zero_()
    assert torch.equal(torch.autograd.grad(loss, query)[0], expected)
