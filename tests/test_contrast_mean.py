"""The mean contrast: loss and gradients of one pass, against its reference and its per-row twin."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as nnf
from contrasts import assert_equals_the_reference, call, fields, to
from processors import built, pair_products, running

import fastcl.functional as F
from fastcl import reference
from fastcl._library import ops
from fastcl.contrast import node
from fastcl.contrast.problem import Problem
from fastcl.contrast.problem import problem as checked_problem

pytestmark = pytest.mark.instruction_sets

# Single rows and columns; one tile; parts of tiles; several chunks of rows, the last one shorter
# (at 3,001 columns a chunk holds 520 rows); columns for which a chunk would be too thin.
SIZES = [(1, 1, 3), (1, 300, 8), (300, 1, 8), (70, 90, 24), (257, 700, 513), (1100, 3001, 12)]
THIN = (120, 20000, 4)


def problem(n, m, d, dtype=torch.float64, ids="pairs"):
    make = torch.Generator().manual_seed(n + m)
    q, k = (nnf.normalize(torch.randn(size, d, generator=make).double()) for size in (n, m))
    rows = cols = None
    if ids == "pairs":  # equal ids within rows and columns, and rows without a positive
        rows, cols = torch.arange(n) % max(n // 3, 1) + 1, torch.arange(m) % max(n // 3, 1)
    own = nnf.normalize(torch.randn(n, d, generator=make).double())
    return q.to(dtype), k.to(dtype), rows, cols, own.to(dtype)


# Most of the time goes into large problems: what is not a matter of shapes, every two of them once.
LARGE = 10**6

# Fixed shift; running maximum; logits that no fixed shift holds; raw rows.
KINDS = [(7.0, True, False), (7.0, False, False), (3000.0, True, False), (7.0, True, True)]


def fields_of(q, k, rows, cols, own, kind, **more):
    scale, unit, normalize = kind
    x, y, z = (2 * q, 3 * k, own if own is None else own / 2) if normalize else (q, k, own)
    return fields(
        x, y, scale=scale, logit_scale=torch.tensor(1.5), ids=(rows, cols), own=z, unit=unit,
        normalize=normalize, **more,
    )  # fmt: skip


@built
@pytest.mark.parametrize("need", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("n, m, d", [*SIZES, THIN])
def test_kernel_equals_the_reference(n, m, d, need):
    for i, ids in enumerate(("pairs", None)):
        q, k, rows, cols, own = problem(n, m, d, ids=ids)
        for j, more in enumerate((None, own)):
            needs = *need, more is not None and need[0], need[0]
            for kind in KINDS if n * m < LARGE else KINDS[i ^ j :: 2]:
                assert_equals_the_reference(fields_of(q, k, rows, cols, more, kind), *needs)


@built
@pytest.mark.parametrize("need", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("n, m, d", [*SIZES, (250, 250, 130)])
def test_both_directions_equal_the_reference(n, m, d, need):
    """All rows in one chunk, and more than one chunk holds: then in two passes."""
    for ids in ("pairs", None):
        q, k, rows, cols, _ = problem(n, m, d, ids=ids)
        for kind in KINDS:
            p = fields_of(q, k, rows, cols, None, kind, both=True)
            assert_equals_the_reference(p, *need, False, need[0])


@built
@pair_products
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("n, m, d", [(70, 90, 24), (257, 700, 514), (600, 3001, 12)])
def test_bfloat16_rows(n, m, d, normalize, products):
    """Widened, and through products of pairs, which round the gradient's weights to bfloat16: by
    2^-9 of each at most, of a gradient that loses what points along its row afterwards."""
    q, k, rows, cols, _ = problem(n, m, d, torch.bfloat16)
    needs = True, True, False, False
    for both in (False, True):
        p = fields(q, k, scale=9.0, ids=(rows, cols), both=both, normalize=normalize)
        with running(products=products):
            ours = call(ops, "contrast_mean", p, *needs)
        expected = call(reference, "contrast_mean", to(p, torch.float64), *needs)
        for i in (0, 2, 3):
            error = (ours[i] - expected[i]).norm() / expected[i].norm()
            assert error < (2e-6 if products == "widened" else 2**-8), (both, i, error)


@built
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits_with_any_number_of_threads(dtype):
    q, k, rows, cols, own = problem(1100, 3001, 12, dtype)
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        one_way = fields(q, k, scale=9.0, ids=(rows, cols), own=own, normalize=True)
        few = fields(
            q[:300], k[:260], scale=9.0, ids=(rows[:300], cols[:260]), both=True, normalize=True
        )
        found = call(ops, "contrast_mean", one_way, *[True] * 4)
        results.append([*found, *call(ops, "contrast_mean", few, True, True, False, True)])
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


@pytest.mark.any_set
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("normalize", [True, False])
def test_opcheck(normalize, dtype):
    q, k, rows, cols, own = problem(9, 7, 5, dtype)
    kind = 2.0, True, normalize
    for more, both, needs in (
        (None, False, (True, True, False, False)), (None, False, (True, True, False, True)),
        (own, False, (False,) * 4), (own, False, (True,) * 4),
        (own, False, (False, False, True, False)),
        (None, True, (True, True, False, False)),
    ):  # fmt: skip
        p = fields_of(q, k, rows, cols, more, kind, both=both)
        torch.library.opcheck(ops.contrast_mean, (*p, *needs))


@pytest.mark.parametrize("wanted", ["q", "k", "own", "q k", "q own", "q k own", "q k both"])
def test_equals_the_mean_of_the_contrast(wanted):
    """Value and gradients, under an upstream gradient that is not one."""
    results = []
    for front in ("mean", "rows"):
        q, k, rows, cols, own = problem(40, 50, 6)
        inputs = {"q": q, "k": k, "own": own}
        both = "both" in wanted
        needed = [x.requires_grad_() for name, x in inputs.items() if name in wanted.split()]
        more = {"scale": 4.0, "ids": (rows, cols), "own": own if "own" in wanted else None}
        p = checked_problem(q, k, **more, both=both, normalize=False)
        if front == "mean":
            loss, _ = node.mean_loss(p)
        else:
            found = node.row_losses(p)
            loss = found.loss.mean()
            loss = (loss + found.col_loss.mean()) / 2 if both else loss
        results.append((loss, *torch.autograd.grad(-3 * loss, needed)))
    for x, y in zip(*results, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-11, atol=1e-12)


def test_a_learned_scale_receives_its_gradient():
    for normalize in (True, False):
        results = []
        for front in ("mean", "rows"):
            q, k, rows, cols, _ = problem(40, 50, 6)
            scale = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
            more = {"scale": scale, "ids": (rows, cols)}
            if front == "mean":
                loss, _ = node.mean_loss(checked_problem(q, k, normalize=normalize, **more))
            else:
                p = checked_problem(q, k, normalize=False, **more)
                loss = node.row_losses(p).loss.mean()
            results.append(torch.autograd.grad(loss, scale)[0])
        torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)


LOSSES = {
    "info_nce": lambda q, k: F.info_nce(q, k),
    "info_nce_sum": lambda q, k: F.info_nce(q, k, reduction="sum"),
    "info_nce_negatives": lambda q, k: F.info_nce(q, q.detach().flip(0), k),
    "nt_xent": lambda q, k: F.nt_xent(q, k),
    "moco": lambda q, k: F.moco(q, q.detach().flip(0), k.detach()),
    "clip": lambda q, k: F.clip(q, k, 5.0),
    "siglip": lambda q, k: F.siglip(q, k, 5.0, -5.0),
    "rows": lambda q, k: node.row_losses(
        checked_problem(q, k.detach(), scale=5.0, own=q / 2, unit=False, normalize=False)
    ).loss.mean(),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_kept_graph_gives_its_gradient_again(loss):
    """Gradients that are ready in the forward are handed over at the last backward only: what a
    caller does to the first result must not reach the second."""
    q, k = (torch.randn(30, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    value = loss(q, k)
    first = torch.autograd.grad(value, (q, k), retain_graph=True, allow_unused=True)
    expected = [None if x is None else x.clone() for x in first]
    for x in first:
        if x is not None:
            x.mul_(7)
    second = torch.autograd.grad(value, (q, k), retain_graph=True, allow_unused=True)
    value.backward(retain_graph=True)
    value.backward()
    for x, again, row in zip(expected, second, (q, k), strict=True):
        if x is not None:
            assert torch.equal(again, x)
            assert torch.equal(row.grad, 2 * x)
    with pytest.raises(RuntimeError, match="a second time"):
        value.backward()


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_a_finished_gradient_is_not_copied(factor, monkeypatch):
    """The tensor that the operator made is the gradient."""
    made = []

    def operator(*arguments):
        options = len(Problem._fields)
        out = reference.contrast_mean(Problem(*arguments[:options]), *arguments[options:])
        made.extend(x.data_ptr() for x in out[2:4])  # a second reference would ask for a copy
        return out

    monkeypatch.setattr(
        node, "ops", SimpleNamespace(contrast_mean=SimpleNamespace(default=operator))
    )
    q, k = (torch.randn(30, 8, requires_grad=True) for _ in range(2))
    (factor * F.info_nce(q, k)).backward()
    assert [q.grad.data_ptr(), k.grad.data_ptr()] == made
