"""Every field of a problem against the formula in plain PyTorch: value and all gradients."""

import pytest
import torch
import torch.nn.functional as nnf
from contrasts import call, fields, to
from processors import built, pair_products, running

from fastcl import reference
from fastcl._library import ops
from fastcl.contrast.node import mean_loss, row_losses
from fastcl.contrast.problem import problem
from fastcl.contrast.sigmoid import sigmoid_sum

pytestmark = pytest.mark.instruction_sets

# Float64 carries 2^-53, logits are 20 at most: ten times what two orders of adding hundreds of
# terms may differ by; a gradient near zero by what its terms lose.
FLOAT64 = {"rtol": 1e-10, "atol": 1e-12}
FORMS = ("columns", "both", "symmetric")
DIVIDED = [(a, b, c) for a in (False, True) for b in (False, True) for c in (False, True)]


def made(form, own, n=40, m=33, d=6, lone=False):
    """Parts of q, k or None, own or None, ids of both. lone: rows without a positive."""
    make = torch.Generator().manual_seed(n + d)
    a, b, k, own_rows = (
        torch.randn(size, d, generator=make, dtype=torch.float64)
        for size in (n // 2, n - n // 2, m, n)
    )
    rows = torch.arange(n) % (n // 3)
    cols = rows if form == "symmetric" else torch.arange(m) % (n // 3)
    if lone:
        rows = torch.where(torch.arange(n) % 3 == 0, n + torch.arange(n), rows)
        cols = rows if form == "symmetric" else cols
    return (a, b), None if form == "symmetric" else k, own_rows if own else None, (rows, cols)


def plain(parts, k, own, ids, scale, form, positives_in=True, divided=(True,) * 3, paired=True):
    """The losses of the rows, and those of the columns where both; ids may be None."""
    q = torch.cat(parts)
    q = nnf.normalize(q) if divided[0] else q
    k = q if k is None else nnf.normalize(k) if divided[1] else k
    s = scale * q @ k.T
    itself = torch.eye(len(q), dtype=torch.bool) if form == "symmetric" else torch.zeros(1).bool()
    same = torch.zeros(1).bool() if ids is None else (ids[0][:, None] == ids[1]) & ~itself
    s = s.masked_fill(itself, -torch.inf)
    if own is not None:
        o = nnf.normalize(own) if divided[2] else own
        positive = scale * (q * o).sum(1, keepdim=True)
        return (torch.cat([positive, s.masked_fill(same, -torch.inf)], 1).logsumexp(1)
                - positive[:, 0],)  # fmt: skip

    def losses(s, same):
        inside = s if positives_in else s.masked_fill(same, -torch.inf)
        count = same.sum(1)
        found = inside.logsumexp(1) - torch.where(same, s, 0).sum(1) / count.clamp(min=1)
        return found if paired else torch.where(count > 0, found, 0)

    return (losses(s, same), losses(s.T, same.T)) if form == "both" else (losses(s, same),)


def gradients(found, form, tensors):
    """The mean, and its gradients under an upstream gradient that is not one."""
    mean = sum(x.mean() for x in found) / len(found)
    return mean, *torch.autograd.grad(-3 * mean, tensors, allow_unused=True)


def compared(form, own, learned, ids="given", n=40, m=33, d=6, scale=7.0, **options):
    """mean_loss and row_losses against plain PyTorch; learned: names of what has a gradient."""
    lone = not options.get("paired", True)
    parts, k, own, pairs = made(form, own, n, m, d, lone)
    options = {"positives_in": True, "divided": (True,) * 3, "paired": True, **options}
    divided = options["divided"]
    pairs = pairs if ids == "given" else None
    results = []
    for way in ("plain", "mean", "rows"):
        tensors = {"first": parts[0], "second": parts[1], "k": k, "own": own,
                   "scale": torch.tensor([scale], dtype=torch.float64)}  # fmt: skip
        tensors = {
            name: x if x is None else x.clone().requires_grad_(name in learned)
            for name, x in tensors.items()
        }
        needed = [tensors[name] for name in learned if tensors[name] is not None]
        rows, k_, own_, s = (tensors["first"], tensors["second"]), *list(tensors.values())[2:]
        if way == "plain":
            found = plain(rows, k_, own_, pairs, s, form, **options)
            results.append((found[0], *gradients(found, form, needed)))
            continue
        p = problem(
            rows, k_, scale=s, ids=pairs, own=own_, both=form == "both",
            positives_in=options["positives_in"], unit=all(divided), normalize=divided[0],
            normalize_k=divided[1], normalize_own=divided[2], paired=options["paired"],
        )  # fmt: skip
        if way == "mean":
            mean, losses = mean_loss(p)
            assert not losses.requires_grad
            grads = torch.autograd.grad(-3 * mean, needed, allow_unused=True)
            results.append((losses, mean, *grads))
            continue
        out = row_losses(p)
        found = (out.loss, out.col_loss) if p.both else (out.loss,)
        if not p.paired:
            found = [
                torch.where(count > 0, x, 0)
                for x, count in zip(found, (out.count, out.col_count), strict=False)
            ]
        results.append((found[0], *gradients(found, form, needed)))
    for ours in results[1:]:
        for x, y in zip(ours, results[0], strict=True):
            torch.testing.assert_close(x.detach(), y.detach(), **FLOAT64)


ALL = ("first", "second", "k", "own", "scale")


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_each_of_q_k_and_own_divided_alone(form, own):
    if form == "both" and own:
        return
    for divided in DIVIDED:
        compared(form, own, ALL, divided=divided, scale=2.0)


# Everything, each alone, and pairs that take other ways: constant columns, a lone scale.
LEARNED = [
    ALL, ("first",), ("second",), ("k",), ("own",), ("scale",), ("first", "second"),
    ("second", "own"), ("k", "own"), ("own", "scale"), ("k", "scale"), ("first", "second", "k"),
]  # fmt: skip


@pytest.mark.parametrize("learned", LEARNED, ids=" ".join)
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_whatever_learns(form, own, learned):
    given = {"columns": ALL, "both": ALL, "symmetric": ("first", "second", "own", "scale")}[form]
    if (form == "both" and own) or not any(x in given and (own or x != "own") for x in learned):
        return
    for ids in ("given", None) if own else ("given",):
        compared(form, own, learned, ids=ids)


# Rows and columns of one tile; a triangle that is kept and one that is not (more than about 1,450
# rows in float64); several chunks; columns for which a chunk would be too thin.
@pytest.mark.parametrize(
    "form, n, m, d",
    [("symmetric", 40, 0, 6), ("symmetric", 500, 0, 12), ("symmetric", 1900, 0, 4),
     ("columns", 600, 3001, 12), ("columns", 120, 20000, 4), ("columns", 300, 5, 300)],
)  # fmt: skip
@pytest.mark.parametrize("learned", [ALL, ("own",), ("first", "second", "own", "scale")],
                         ids=" ".join)  # fmt: skip
def test_own_by_every_way_of_the_mean(form, n, m, d, learned):
    for ids in ("given", None):
        if form == "symmetric" and ids is None:
            continue
        compared(form, True, learned, ids=ids, n=n, m=m, d=d)


@pytest.mark.parametrize("positives_in", [True, False])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("form", ["columns", "symmetric"])
def test_rows_without_a_positive_count_as_zero(form, own, positives_in):
    """Also beside columns; with own every row has a positive."""
    compared(form, own, ALL, paired=False, positives_in=positives_in)


@pytest.mark.parametrize("n, m", [(300, 290), (1100, 3001), (120, 20000)])
def test_unpaired_rows_beside_columns_in_every_way(n, m):
    compared("columns", False, ALL, n=n, m=m, d=4, paired=False)
    compared("columns", False, ("first", "second", "scale"), n=n, m=m, d=4, paired=False)


def test_no_row_has_a_positive():
    """Then the mean is zero, and so is every gradient."""
    (a, b), k, _, (rows, cols) = made("columns", False)
    inputs = [x.requires_grad_() for x in (a, b, k, torch.tensor(3.0, dtype=torch.float64))]
    p = problem((a, b), k, scale=inputs[-1], ids=(rows + 1000, cols), paired=False)
    mean, losses = mean_loss(p)
    assert mean == 0 and (losses == 0).all()
    assert all((g == 0).all() for g in torch.autograd.grad(mean, inputs))


@pytest.mark.parametrize("form", FORMS)
def test_a_learned_scale_with_several_positives(form):
    """Of one element in any shape and dtype; it multiplies the scale of the raw problem."""
    for shape, dtype in (((), torch.float64), ((1,), torch.float32), ((1, 1), torch.float64)):
        parts, k, _, ids = made(form, False)
        found = []
        for ours in (True, False):
            s = torch.full(shape, 5.0, dtype=dtype, requires_grad=True)
            if ours:
                loss = mean_loss(problem(parts, k, scale=s, ids=ids, both=form == "both"))[0]
            else:
                losses = plain(parts, k, None, ids, s.double().reshape(()), form)
                loss = sum(x.mean() for x in losses) / len(losses)
            (grad,) = torch.autograd.grad(loss, s)
            assert grad.shape == shape and grad.dtype == dtype
            found.append(grad)
        torch.testing.assert_close(*found, rtol=1e-6 if dtype == torch.float32 else 1e-10, atol=0)


@pytest.mark.parametrize("ids", ["given", None])
def test_the_sigmoid_divides_each_of_q_and_k_alone(ids):
    (a, b), k, _, pairs = made("columns", False)
    for divided in DIVIDED[::2]:
        results = []
        for ours in (True, False):
            inputs = [x.clone().requires_grad_() for x in (a, b, k)]
            inputs += [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (2.0, -1)]
            first, second, y, scale, bias = inputs
            x = torch.cat([first, second])
            if ours:
                flags = {"normalize": divided[0], "normalize_k": divided[1], "unit": False}
                given = pairs if ids else None
                total = sigmoid_sum(
                    problem((first, second), y, scale=scale, ids=given, **flags), bias
                )
            else:
                x, y = (
                    nnf.normalize(z) if to_one else z
                    for z, to_one in zip((x, y), divided, strict=False)
                )
                t = scale * x @ y.T + bias
                same = pairs[0][:, None] == pairs[1] if ids else torch.zeros(1).bool()
                total = -nnf.logsigmoid(torch.where(same, t, -t)).sum()
            results.append((total, *torch.autograd.grad(total, inputs)))
        for x, y in zip(*results, strict=True):
            torch.testing.assert_close(x, y, **FLOAT64)


@built
@pair_products
@pytest.mark.parametrize("divided", DIVIDED, ids=str)
@pytest.mark.parametrize("form", ["columns", "symmetric"])
def test_bfloat16_rows_each_divided_alone(form, divided, products):
    """Products of pairs round the gradient's weights to bfloat16, by 2^-9 of each at most."""
    parts, k, own, ids = made(form, True, 90, 70, 24)
    parts, (k, own) = (
        [nnf.normalize(x) for x in parts],
        (x if x is None else nnf.normalize(x) for x in (k, own)),
    )
    p = fields(parts, () if k is None else k, scale=9.0, ids=ids, own=own, normalize=divided)
    p = to(p, torch.bfloat16)
    needs = True, k is not None, True, True
    with running(products=products):
        ours = call(ops, "contrast_mean", p, *needs)
    expected = call(reference, "contrast_mean", to(p, torch.float64), *needs)
    for i in (0, 1, 2, 3, 4):
        if expected[i].numel():
            error = (ours[i] - expected[i]).norm() / expected[i].norm()
            assert error < (2e-6 if products == "widened" else 2**-8), (i, error)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("form", ["columns", "symmetric"])
def test_a_row_of_own_that_is_not_finite_stays_alone(form, bad):
    parts, k, own, ids = made(form, True)
    own[3, 1] = bad
    p = problem(parts, k, scale=5.0, ids=ids, own=own, normalize=True)
    loss, losses, dq, dk, d_own, _ = call(ops, "contrast_mean", p, True, k is not None, True, True)
    others = torch.arange(len(own)) != 3
    assert loss.isnan() and losses[3].isnan() and losses[others].isfinite().all()
    assert dq[3].isnan().all() and d_own[3].isnan().all() and d_own[others].isfinite().all()
    if form == "columns":
        assert dq[others].isfinite().all()
