"""The contrast of raw rows: equal to unit rows and their contrast, without storing unit rows."""

import pytest
import torch
from contrasts import call, fields
from forked import printed
from processors import built

import fastcl.functional as F
from fastcl import reference
from fastcl._library import ops
from fastcl.contrast.node import row_losses
from fastcl.contrast.problem import problem as checked_problem

FORMS = ("views", "both", "rows")
PARTS = ((5,), (300,), (130, 7, 200), (1, 1))  # one tile, several, parts within a tile, single rows


def problem(form, parts, d, dtype=torch.float64):
    """Parts of q, of k (none for views), ids of both and the losses' gradients."""
    make = torch.Generator().manual_seed(len(parts) + d)
    q = [3 * torch.randn(n, d, generator=make, dtype=torch.float64) for n in parts]
    n = sum(parts)
    k = [] if form == "views" else [torch.randn(n + 3, d, generator=make, dtype=torch.float64)]
    ids = torch.arange(n) % max(n // 2, 1)
    cols = ids if form == "views" else torch.arange(n + 3) % max(n // 2, 1)
    grads = [torch.randn(size, generator=make, dtype=torch.float64) for size in (n, n + 3)]
    accumulate = torch.float64 if dtype == torch.float64 else torch.float32
    grads = [g.to(accumulate) for g in grads]
    to = [x.to(dtype) for x in q], [x.to(dtype) for x in k]
    return *to, ids, cols, grads[0], grads[1] if form == "both" else None


def run(module, form, parts, d, dtype=torch.float64, positives_in=True):
    q, k, ids, cols, grad, grad_col = problem(form, parts, d, dtype)
    p = fields(
        q, k, scale=2.0, logit_scale=torch.tensor(5.0, dtype=torch.float64), ids=(ids, cols),
        both=form == "both", positives_in=positives_in, normalize=True,
    )  # fmt: skip
    rows, columns, rank, weighted = call(module, "contrast_forward", p, None, True, True)
    return rows, columns, rank, weighted, *call(
        module, "contrast_backward", p, rows, columns, weighted, grad, None, grad_col, None,
        True, bool(k), False, True,
    )  # fmt: skip


@built
@pytest.mark.parametrize("d", [1, 24, 300])
@pytest.mark.parametrize("parts", PARTS, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_kernel_equals_the_reference(form, parts, d):
    for x, y in zip(run(ops, form, parts, d), run(reference, form, parts, d), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("form", FORMS)
def test_opcheck(form, dtype):
    q, k, ids, cols, grad, grad_col = problem(form, (9, 4), 5, dtype)
    p = fields(
        q, k, scale=2.0, logit_scale=torch.tensor(1.5), ids=(ids, cols), both=form == "both",
        normalize=True,
    )  # fmt: skip
    torch.library.opcheck(ops.contrast_forward, (*p, None, True, True))
    rows, columns, _, weighted = ops.contrast_forward(*p, None, True, True)
    second = (*p, rows, columns, weighted, grad, None, grad_col, None, True, True, False, True)
    torch.library.opcheck(ops.contrast_backward, second)


@pytest.mark.parametrize("form", FORMS)
def test_equals_the_contrast_of_unit_rows(form):
    """Value and every gradient, that of the scale included, through autograd."""
    q, k, ids, cols, *_ = problem(form, (40, 31), 8)
    scale = torch.tensor(4.0, dtype=torch.float64)
    results = []
    for raw in (True, False):
        inputs = [x.clone().requires_grad_() for x in (*q, *k, scale)]
        views, columns, s = inputs[:2], inputs[2] if k else None, inputs[-1]
        both = form == "both"
        if not raw:
            views, columns = F.unit_rows(*views), F.unit_rows(columns) if k else None
        more = {"scale": s, "ids": (ids, cols), "both": both, "normalize": raw}
        out = row_losses(checked_problem(views, columns, **more))
        loss, count, col_loss = out.loss, out.count, out.col_loss
        (loss.square().sum() + (col_loss.square().sum() if both else 0)).backward()
        results.append((loss, count, *(x.grad for x in inputs)))
    for x, y in zip(*results, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-11, atol=1e-12)


def test_a_zero_row_has_no_direction():
    """Finite losses everywhere and no gradient for it, as for unit_rows."""
    z = torch.randn(2, 20, 6)
    z[0, 3] = 0
    z.requires_grad_()
    loss = F.nt_xent(z[0], z[1])
    loss.backward()
    assert loss.isfinite() and z.grad.isfinite().all()
    assert (z.grad[0, 3] == 0).all() and (z.grad[1] != 0).any()


def test_not_a_number_stays_so():
    z = torch.randn(2, 20, 6)
    z[1, 2, 0] = torch.nan
    assert F.nt_xent(z[0], z[1]).isnan()
    assert F.clip(z[0], z[1], 10.0).isnan()


WITHOUT_COPIES = "nt_xent(*z)", "clip(*z, 10.0)", "info_nce(*z)", "siglip(*z, 10.0, -10.0)"
PROGRAM = """
import resource, torch
from fastcl.functional import *
torch.set_num_threads(2)
def step(n):
    z = [torch.randn(n, 512, requires_grad=True) for _ in "12"]
    outputs = torch.ones(2 * n, 512)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    del outputs
    {loss}.backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
step(300)
print(step(4096))
"""


@pytest.fixture(scope="module")
def used():
    """MB of a step above its rows and gradients."""
    return printed({loss: PROGRAM.format(loss=loss) for loss in WITHOUT_COPIES})


@built
@pytest.mark.parametrize("loss", WITHOUT_COPIES)
def test_no_copy_of_the_rows(used, loss):
    """16 MB of rows and as much of gradients: a unit copy of either would show, and so would one
    of gradients that were ready in the forward."""
    assert float(used[loss]) < 8


@built
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("positives_in", [True, False])
@pytest.mark.parametrize("n, m, d", [(1, 1, 3), (70, 90, 24), (300, 290, 300)])
def test_sigmoid_kernel_equals_the_reference(n, m, d, positives_in, normalize):
    make = torch.Generator().manual_seed(n)
    q, k = (2 * torch.randn(size, d, generator=make, dtype=torch.float64) for size in (n, m))
    if not normalize:
        q, k = (torch.nn.functional.normalize(x) for x in (q, k))
    p = fields(
        q, k, scale=3.0, logit_scale=torch.tensor(2.0), positives_in=positives_in,
        ids=(torch.arange(n) // 2, torch.arange(m) // 2), normalize=normalize,
    )  # fmt: skip
    biases = -1.0, torch.tensor(0.5)
    for needs in ((True, True), (True, False), (False, True), (False, False)):
        arguments = *biases, *needs
        ours, expected = (call(x, "sigmoid_contrast", p, *arguments) for x in (ops, reference))
        for x, y in zip(ours, expected, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)
        torch.library.opcheck(ops.sigmoid_contrast, (*p, *arguments))
