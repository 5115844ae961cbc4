"""The mean contrast of rows with each other: one pass over the pairs, its gradient kept ready."""

import pytest
import torch
from contrasts import assert_equals_the_reference, call, fields, to
from processors import built, pair_products, running

import fastcl.functional as F
from fastcl import reference
from fastcl._library import ops
from fastcl.contrast.node import mean_loss, row_losses
from fastcl.contrast.problem import problem as checked_problem

pytestmark = pytest.mark.instruction_sets
slow = pytest.mark.slow

# One tile; parts within a tile; single rows; a triangle of several tiles that is kept; one that
# is not.
PARTS = ((5,), (130, 7, 200), (1, 1), (500, 500), (1900,))


# Float64 carries 2^-53: what two orders of adding hundreds of terms near one may differ by, ten
# times over; a gradient near zero by what its terms lose.
FLOAT64 = {"rtol": 1e-11, "atol": 1e-12}
ROWS = True, False, False, False


def problem(parts, d, dtype=torch.float64, paired=True):
    make = torch.Generator().manual_seed(sum(parts) + d)
    rows = [3 * torch.randn(n, d, generator=make, dtype=torch.float64) for n in parts]
    n = sum(parts)
    ids = torch.arange(n) % max(n // 3, 1)
    if not paired:  # every other row is alone
        ids = torch.where(torch.arange(n) % 2 == 0, torch.arange(n) + n, ids)
    return [x.to(dtype) for x in rows], ids


@built
@pytest.mark.parametrize("need", [True, False])
@pytest.mark.parametrize(
    "parts, d",
    [
        # Of the one that takes most of the time, one width tells what several would.
        pytest.param(parts, d, marks=[slow] if sum(parts) > 1000 and d != 24 else [])
        for parts in PARTS for d in (1, 24, 130)
    ],
)  # fmt: skip
def test_kernel_equals_the_reference(parts, d, need):
    for paired in (True, False):
        rows, ids = problem(parts, d, paired=paired)
        for positives_in in (True, False):
            if sum(parts) == 2 and not positives_in:
                continue  # a pair without a negative has no loss
            for scale, normalize in ((7.0, True), (3000.0, True), (7.0, False)):
                x = rows if normalize else [torch.nn.functional.normalize(r) for r in rows]
                flags = {"normalize": normalize, "paired": paired, "positives_in": positives_in}
                p = fields(x, scale=scale, ids=ids, **flags)
                assert_equals_the_reference(p, need, False, False, need)


@built
@pair_products
@pytest.mark.parametrize("parts, d", [((70, 20), 24), ((257, 300), 514), ((2000,), 12)])
def test_bfloat16_rows(parts, d, products):
    """Widened, and through products of pairs, which round the gradient's weights to bfloat16: by
    2^-9 of each at most, of a gradient that loses what points along its row afterwards."""
    rows, ids = problem(parts, d, torch.bfloat16)
    p = fields(rows, scale=9.0, ids=ids, normalize=True)
    with running(products=products):
        ours = call(ops, "contrast_mean", p, *ROWS)
    expected = call(reference, "contrast_mean", to(p, torch.float64), *ROWS)
    for i in (0, 2):
        error = (ours[i] - expected[i]).norm() / expected[i].norm()
        assert error < (2e-6 if products == "widened" else 2**-8), (i, error)


@built
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("parts", [(90,), (500, 400), (2000,)], ids=str)
def test_same_bits_with_any_number_of_threads(parts, dtype):
    rows, ids = problem(parts, 24, dtype)
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        p = fields(rows, scale=9.0, ids=ids, normalize=True)
        results.append(call(ops, "contrast_mean", p, True, False, False, True))
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


@pytest.mark.any_set
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("normalize", [True, False])
def test_opcheck(normalize, dtype):
    rows, ids = problem((9, 4), 5, dtype)
    for paired, need in ((True, True), (False, False)):
        p = fields(rows, scale=2.0, ids=ids, normalize=normalize, paired=paired)
        torch.library.opcheck(ops.contrast_mean, (*p, need, False, False, need))
        torch.library.opcheck(ops.contrast_mean, (*p, need, need, False, False))


@pytest.mark.parametrize("positives_in", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("paired", [True, False])
def test_equals_the_mean_of_the_contrast(normalize, positives_in, paired):
    """Value, constant losses and gradients, under an upstream gradient that is not one."""
    rows, ids = problem((40, 31), 8, paired=paired)
    rows = rows if normalize else [torch.nn.functional.normalize(x) for x in rows]
    results = []
    for front in ("mean", "rows"):
        views = [x.clone().requires_grad_() for x in rows]
        more = {"scale": 4.0, "ids": ids, "positives_in": positives_in}
        if front == "mean":
            flags = {"normalize": normalize, "paired": paired}
            mean, losses = mean_loss(checked_problem(views, **more, **flags))
            assert not losses.requires_grad
        else:
            unit = F.unit_rows(*views) if normalize else torch.cat(views)
            found = row_losses(checked_problem(unit, **more, normalize=False))
            losses = found.loss
            losses = losses if paired else torch.where(found.count > 0, losses, 0)
            mean = losses.mean()
        results.append((mean, losses.detach(), *torch.autograd.grad(-3 * mean, views)))
    for x, y in zip(*results, strict=True):
        torch.testing.assert_close(x, y, **FLOAT64)


def test_rows_without_a_positive_count_as_zero():
    rows, _ = problem((12,), 6)
    view = rows[0].requires_grad_()
    mean, _ = mean_loss(checked_problem(view, scale=4.0, ids=torch.arange(12), paired=False))
    (grad,) = torch.autograd.grad(mean, view)
    assert mean == 0 and (grad == 0).all()


def test_a_row_that_is_not_a_number_stays_so():
    for n in (20, 2000):  # kept, and in two passes
        rows, ids = problem((n,), 6)
        rows[0][2, 0] = torch.nan
        p = fields(rows, scale=5.0, ids=ids, normalize=True)
        loss, _, dz, *_ = call(ops, "contrast_mean", p, *ROWS)
        assert loss.isnan() and dz.isnan().all()
