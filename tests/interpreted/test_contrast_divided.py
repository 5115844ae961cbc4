"""Rows that are not unit, in parts, against the reference in float64."""

import pytest
import torch
from problems import Budget, wider

from fastcl import reference
from fastcl.contrast.problem import Problem

slow = pytest.mark.slow
FORMS = "views", "both", "rows alone", "own", "constant key", "constant columns"
OWN = FORMS[3:]


def problem(form, dtype, divided=(True, True, True), **changes):
    """And what upstream gradients of its losses and mean positives there are."""
    random = torch.Generator().manual_seed(0)
    parts = tuple((3 * torch.randn(n, 24, generator=random)).to(dtype) for n in (11, 6))
    k = torch.randn(20, 24, generator=random).to(dtype)
    own = torch.randn(17, 24, generator=random).to(dtype) if form in OWN else None
    k, own = (own, own) if form == "constant key" else (k, own)
    ids, cols = torch.arange(17) % 9, torch.arange(17 if form == "views" else len(k)) % 9
    p = Problem(
        parts, () if form == "views" else (k,), own, torch.tensor(2.0), ids, cols, *[None] * 5, 5.0,
        form == "both", True, all(divided), *divided, True,
    )  # fmt: skip
    grads = [torch.rand(len(x), generator=random) + 0.1 for x in (ids, cols)]
    return p._replace(**changes), grads[0], grads[1] if p.both else None


def needs(p, form):
    """All gradients that the form is for."""
    constant = form in ("rows alone", "constant key", "constant columns")
    return True, not constant and form != "views", form == "own", True


def compare(names, results, eps, upper=()):
    budget = Budget()
    for name, *three in zip(names, *results, strict=True):
        budget.add(name, *three, eps, floor=1.0 if name in upper else 0.0)
    budget.check()


def forms(quick):
    return [pytest.param(x, marks=[] if x in quick else [slow]) for x in FORMS]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", forms(("views", "rows alone", "own")))
def test_backward(kernels, form, dtype):
    p, grad, grad_col = problem(form, dtype)
    needed, beside = needs(p, form), grad.flip(0) if form in OWN else None
    results = []
    for module, x in ((kernels, p), (reference, p), (reference, wider(p))):
        to = torch.float32 if x is p else torch.float64
        upstream = [None if g is None else g.to(to) for g in (grad, beside, grad_col, None)]
        rows, cols, _, weighted = reference.contrast_forward(x, None, *needed[:2])
        results.append(module.contrast_backward(x, rows, cols, weighted, *upstream, *needed))
    compare(("dq", "dk", "d_own", "slope"), results, torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", forms(("both", "own", "constant key")))
def test_mean(kernels, form, dtype):
    p, *_ = problem(form, dtype)
    results = []
    for module, x in ((kernels, p), (reference, p), (reference, wider(p))):
        loss, *others = module.contrast_mean(x, *needs(p, form))
        results.append((loss[None], *others))
    names = "mean", "loss", "dq", "dk", "d_own", "slope"
    compare(names, results, torch.finfo(dtype).eps, ("mean", "loss"))


@pytest.mark.slow
@pytest.mark.parametrize("divided", [(True, False, False), (False, True, True), (False,) * 3])
@pytest.mark.parametrize("form", ["both", "own", "constant key"])
def test_some_rows_as_they_are(kernels, form, divided):
    p, *_ = problem(form, torch.float32, divided, scale=0.5)
    results = []
    for module, x in ((kernels, p), (reference, p), (reference, wider(p))):
        loss, *others = module.contrast_mean(x, *needs(p, form))
        results.append((loss[None], *others))
    names = "mean", "loss", "dq", "dk", "d_own", "slope"
    compare(names, results, torch.finfo(torch.float32).eps, ("mean", "loss"))


@pytest.mark.parametrize("form", ["rows alone", "constant columns"])
def test_rows_without_a_positive_count_as_zero(kernels, form):
    p, *_ = problem(form, torch.float32, paired=False)
    p = p._replace(col_ids=p.col_ids.where(p.col_ids > 3, 99))
    results = []
    for module, x in ((kernels, p), (reference, p), (reference, wider(p))):
        loss, *others = module.contrast_mean(x, *needs(p, form))
        results.append((loss[None], *others))
    assert (results[0][1] == 0).any() == (form == "rows alone")
    names = "mean", "loss", "dq", "dk", "d_own", "slope"
    compare(names, results, torch.finfo(torch.float32).eps, ("mean", "loss"))


def test_no_positive_at_all(kernels):
    """Of rows that count as zero the gradient is zero, also where one pass would finish it."""
    p, *_ = problem("rows alone", torch.float32, row_ids=None, col_ids=None, paired=False)
    loss, losses, dq, *_ = kernels.contrast_mean(p, True, False, False, False)
    assert loss == 0 and (losses == 0).all() and (dq == 0).all() and dq.shape == (17, 24)


def test_a_key_that_is_its_column_is_divided_once(kernels, monkeypatch):
    """Where the two lie in one memory, and only there."""
    calls = []
    plain = kernels.unit_rows_forward

    def counted(parts):
        calls.append(parts)
        return plain(parts)

    monkeypatch.setattr(kernels, "unit_rows_forward", counted)
    p, *_ = problem("constant key", torch.float32)
    for own, times in ((p.own, 2), (p.own.detach(), 2), (p.own.clone(), 3), (p.own[:-1], 3)):
        calls.clear()
        kernels.prepared(p._replace(own=own))
        assert len(calls) == times
    assert torch.equal(kernels.prepared(p).own, plain((p.own,))[0])


def test_no_upstream_gradient(kernels):
    for form in ("both", "own", "constant columns"):
        p, *_ = problem(form, torch.float32)
        rows, cols, _, weighted = reference.contrast_forward(p, None, *needs(p, form)[:2])
        found = kernels.contrast_backward(p, rows, cols, weighted, *[None] * 4, *needs(p, form))
        assert all((x == 0).all() for x in found)
        assert [len(x) for x in found] == [
            n if needed else 0 for n, needed in zip((17, 20, 17, 1), needs(p, form), strict=True)
        ]
