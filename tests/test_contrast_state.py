"""What a contrast saves, shares and refuses: columns that change before the backward, tensors that
are given twice, layouts, tangents, second derivatives, and nothing at all."""

import pytest
import torch
from contrasts import fields
from torch.autograd import forward_ad

import fastcl.functional as F
from fastcl import reference
from fastcl._library import ops
from fastcl._processor import processor
from fastcl.contrast.node import mean_loss, row_losses
from fastcl.contrast.problem import problem
from fastcl.contrast.sigmoid import sigmoid_sum

IDS = torch.arange(12) % 5


def made(*sizes, d=6):
    return [torch.randn(n, d, dtype=torch.float64) for n in sizes]


def mean(p):
    return mean_loss(p)[0]


def rows(p):
    return row_losses(p).loss.mean()


WAYS = {"mean": mean, "rows": rows}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@ways
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("learned", ["q", "scale", "q scale"])
def test_constant_columns_may_change_before_the_backward(way, own, learned):
    """MoCo pushes its keys while the gradient is on its way."""
    found = []
    for pushed in (False, True):
        torch.manual_seed(0)
        q, positive, queue = made(12, 12, 30)
        scale = torch.tensor(5.0, dtype=torch.float64, requires_grad="scale" in learned)
        q.requires_grad_("q" in learned)
        ids = torch.arange(12), torch.arange(30)
        loss = way(problem(q, queue, scale=scale, own=positive if own else None,
                           ids=ids if own else None))  # fmt: skip
        if pushed:
            F.queue_push_(queue, torch.tensor(3), made(5)[0])
            ids[1].zero_()
        inputs = [x for x in (q, scale) if x.requires_grad]
        found.append(torch.autograd.grad(loss, inputs))
    for x, y in zip(*found, strict=True):
        assert torch.equal(x, y)


def test_a_mean_reads_nothing_in_the_backward():
    """Rows, columns, own and ids may all change: its gradients were ready."""
    found = []
    for changed in (False, True):
        torch.manual_seed(0)
        q, k, own = made(12, 20, 12)
        ids = torch.arange(12), torch.arange(20)
        leaves = [x.clone().requires_grad_() for x in (q, k, own)]
        copies = [x * 1 for x in leaves]
        loss = mean(problem(copies[0], copies[1], scale=5.0, own=copies[2], ids=ids))
        if changed:
            for x in (*copies, *ids):
                x.detach().zero_()
        found.append(torch.autograd.grad(loss, leaves))
    for x, y in zip(*found, strict=True):
        assert torch.equal(x, y)


def test_a_change_of_what_the_backward_reads_is_an_error():
    q, k, own = made(12, 20, 12)
    for x in (q, k, own):
        x.requires_grad_()
    copy = k * 1
    loss = rows(problem(q, copy, scale=5.0, own=own))
    with torch.no_grad():
        copy.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# Dynamo takes no tensor twice in one node.
SHARED = {
    "own is k": lambda q, k, way: way(problem(q, k, scale=3.0, own=k)),
    "own is k beside ids": lambda q, k, way: way(problem(q, k, scale=3.0, own=k, ids=(IDS, IDS))),
    "own is q": lambda q, k, way: way(problem(q, k, scale=3.0, own=q)),
    "k is q": lambda q, k, way: way(problem(q, q, scale=3.0, ids=IDS)),
    "all are one": lambda q, k, way: way(problem((q, q), q, scale=3.0, own=torch.cat([q, q]))),
    "parts are one": lambda q, k, way: way(problem((q, q), scale=3.0, ids=IDS.repeat(2))),
    "a constant diagonal": lambda q, k, way: way(problem(q, k.detach(), scale=3.0, diagonal=True)),
}


@ways
@pytest.mark.parametrize("name", SHARED)
def test_a_tensor_given_twice(name, way, fresh_graphs):
    """Eager against copies of it, and compiled to one graph."""
    q, k = (x.requires_grad_() for x in made(12, 12))

    def run(q, k):
        return SHARED[name](q, k, way)

    expected = torch.autograd.grad(run(q, k), (q, k), allow_unused=True)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    ours = torch.autograd.grad(compiled(q, k), (q, k), allow_unused=True)
    for x, y in zip(ours, expected, strict=True):
        assert (x is None) == (y is None) or (x if y is None else y).abs().max() == 0
        if x is not None and y is not None:
            torch.testing.assert_close(x, y)
    learned = ours[1] is not None  # k is used, and not as a constant
    copies = [x.detach().clone().requires_grad_(i == 0 or learned) for i, x in enumerate((q, k))]
    assert torch.autograd.gradcheck(run, copies)


@ways
@pytest.mark.parametrize("learned", [(0,), (1,), (2,), (3,), (0, 3), (1, 2)])
def test_compiles_to_one_graph_whatever_learns(way, learned, fresh_graphs):
    inputs = [*made(12, 20, 12), torch.tensor(4.0, dtype=torch.float64)]
    inputs = [x.requires_grad_(i in learned) for i, x in enumerate(inputs)]

    def run(q, k, own, scale):
        return way(problem(q, k, scale=scale, own=own, ids=(IDS, torch.arange(20))))

    wanted = [inputs[i] for i in learned]
    expected = torch.autograd.grad(run(*inputs), wanted)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(*inputs), wanted), expected)


@ways
def test_strided_and_expanded_inputs(way):
    """As copies of them; also an upstream gradient of stride 0."""
    wide = torch.randn(6, 12, dtype=torch.float64)
    line = torch.randn(1, 6, dtype=torch.float64)
    layouts = wide.T, line.expand(20, 6), torch.randn(12, 12, dtype=torch.float64)[:, ::2]
    results = []
    for copied in (False, True):
        q, k, own = (x.detach().requires_grad_() for x in layouts)
        given = [x * 1 if copied else x for x in (q, k, own)]
        given = [x.contiguous() if copied else x for x in given]
        loss = way(problem(given[0], given[1], scale=3.0, own=given[2]))
        results.append((loss, *torch.autograd.grad(loss, (q, k, own))))
    for x, y in zip(*results, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-13)


@ways
@pytest.mark.parametrize("which", ["q", "k", "own", "scale"])
def test_tangents_and_second_derivatives_are_refused(way, which):
    q, k, own = made(12, 20, 12)
    given = {"q": q, "k": k, "own": own, "scale": torch.tensor(3.0, dtype=torch.float64)}
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(given[which], torch.ones_like(given[which]))
        with pytest.raises(RuntimeError, match="no forward-mode derivative"):
            way(problem(**{**given, which: dual}))
    x = given[which].requires_grad_()
    loss = way(problem(**given))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, x, create_graph=True)


@ways
@pytest.mark.parametrize("form", ["columns", "both", "symmetric", "own", "symmetric own"])
def test_gradcheck(form, way):
    q, k, own = (x.requires_grad_() for x in made(12, 7, 12))
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    alone = "symmetric" in form
    ids = IDS if alone else (IDS, torch.arange(7) % 5)

    def run(q, k, own, scale):
        more = {"own": own if "own" in form else None, "both": form == "both", "ids": ids}
        return way(problem(q, None if alone else k, scale=scale, **more))

    assert torch.autograd.gradcheck(run, (q, k, own, scale))


@pytest.mark.parametrize("n, m", [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("d", [4, 0])
@pytest.mark.parametrize("form", ["columns", "both", "symmetric", "own", "ids"])
@pytest.mark.skipif(processor() is None, reason="needs the compiled part")
def test_no_rows_or_no_columns_straight_into_the_operators(form, n, m, d):
    q, k = torch.randn(n, d), () if form == "symmetric" else torch.randn(m, d)
    if form == "symmetric" and n * d > 0:
        return
    ids = (torch.arange(n), torch.arange(m)) if form == "ids" else None
    own = torch.randn(n, d) if form == "own" else None
    kept = torch.zeros(4, n), torch.zeros(4, m), torch.zeros(0, d)
    for normalize in (False, True):
        p = fields(q, k, ids=ids, own=own, both=form == "both", normalize=normalize)
        needs = True, form != "symmetric", own is not None, True
        calls = [
            lambda p=p: ops.contrast_forward(*p, torch.randn(n), True, False),
            lambda p=p, needs=needs: ops.contrast_mean(*p, *needs),
            lambda p=p: ops.contrast_mean(*p, False, False, False, False),
            lambda p=p, needs=needs: ops.contrast_backward(
                *p, *kept, torch.zeros(n), None, None, None, *needs
            ),
        ]
        if form in ("columns", "ids"):
            calls.append(lambda p=p: ops.sigmoid_contrast(*p, 0.5, None, True, True))
        for call in calls:
            with pytest.raises(RuntimeError, match="the contrast needs (rows|columns)"):
                call()


def test_a_finished_gradient_needs_no_columns():
    q, own = torch.randn(5, 4), torch.randn(5, 4)
    p = fields(q, torch.randn(9, 4), scale=2.0, own=own, normalize=True)
    rows, cols, _, weighted = ops.contrast_forward(*p, None, True, False)
    rest = rows, cols, weighted, torch.randn(5), torch.randn(5), None, None, True, False, True, True
    bare = p._replace(k=[torch.empty(0, 4)])
    for x, y in zip(ops.contrast_backward(*bare, *rest), ops.contrast_backward(*p, *rest),
                    strict=True):  # fmt: skip
        assert torch.equal(x, y)
    for x, y in zip(ops.contrast_backward(*bare, *rest), reference.contrast_backward(p, *rest),
                    strict=True):  # fmt: skip
        torch.testing.assert_close(x, y)


def test_the_sigmoid_refuses_what_it_does_not_know():
    q, k = torch.randn(5, 4), torch.randn(7, 4)
    if processor() is not None:
        with pytest.raises(RuntimeError, match="needs columns"):
            ops.sigmoid_contrast(*fields(q), 0.0, None, True, False)
        with pytest.raises(RuntimeError, match="knows no positive"):
            ops.sigmoid_contrast(*fields(q, k, own=q), 0.0, None, True, False)
    assert sigmoid_sum(problem(q, k, scale=1.0)).isfinite()
