"""What PyTorch asks of an operator: schema, fake kernel, full-graph compilation, autocast."""

import subprocess
import sys

import pytest
import torch
from cases import CASES, ONE_OF_EACH, run
from contrasts import fields

import fastcl
from fastcl._library import ops
from fastcl.contrast.node import row_losses
from fastcl.contrast.problem import problem

slow = pytest.mark.slow
ARANGE = torch.arange(9)


def contrast_problem(symmetric=False, own=False, ids=True, dtype=torch.float32, **options):
    q, k, positive = (torch.nn.functional.normalize(torch.randn(9, 5)).to(dtype) for _ in range(3))
    return fields(
        q, () if symmetric else k, scale=3.0, logit_scale=None if symmetric else torch.tensor(2.0),
        ids=(ARANGE, ARANGE) if ids else None, own=positive if own else None, **options,
    )  # fmt: skip


PROBLEMS = {
    "rows": {},
    "symmetric": {"symmetric": True},
    "both": {"both": True},
    "own": {"own": True},
    "symmetric with own": {"symmetric": True, "own": True},
    "queue": {"ids": False},
    "own beside a queue": {"own": True, "ids": False},
    "decoupled": {"positives_in": False},
    "of any length": {"unit": False},
    "unpaired": {"paired": False},
    "q divided": {"normalize": (True, False, False)},
    "k divided": {"normalize": (False, True, False)},
    "own divided": {"own": True, "normalize": (False, False, True)},
    "all divided": {"own": True, "normalize": True},
    "weights": {"both": True, "row_weight": ARANGE / 3.0, "col_weight": ARANGE / 5.0},
    "limit": {"own": True, "limit": ARANGE / 9.0},
    "guide": {"limit": ARANGE / 9.0, "guide": (torch.ones(9, 2), torch.randn(9, 2))},
    "bfloat16": {"dtype": torch.bfloat16},
    "float64": {"dtype": torch.float64},
}


def check_shapes(operator, arguments):
    """All that other flags can change where an operator passes opcheck."""
    checks = "test_schema", "test_faketensor"
    torch.library.opcheck(operator, arguments, test_utils=checks)


@pytest.mark.parametrize("options", PROBLEMS.values(), ids=PROBLEMS)
def test_opcheck_contrast(options):
    p = contrast_problem(**options)
    pivot = torch.randn(9).to(torch.float64 if p.q[0].dtype == torch.float64 else torch.float32)
    torch.library.opcheck(ops.contrast_forward, (*p, pivot, True, False))
    for needs in ((True, True), (False, False)):
        check_shapes(ops.contrast_forward, (*p, pivot, *needs))
    rows, cols, _, weighted = ops.contrast_forward(*p, pivot, True, False)
    rest = torch.randn(9).to(rows), None
    rest += (torch.randn(9).to(rows), torch.randn(9).to(rows)) if p.both else (None, None)
    own = p.own is not None
    for kept in (weighted, weighted[:0]):
        if len(kept) == 0 or not p.symmetric:
            needs = True, len(kept) == 0, own, True
            torch.library.opcheck(ops.contrast_backward, (*p, rows, cols, kept, *rest, *needs))
    needs = False, True, own, False
    check_shapes(ops.contrast_backward, (*p, rows, cols, weighted[:0], *rest, *needs))
    torch.library.opcheck(ops.contrast_mean, (*p, True, True, own, True))
    for needs in ((True, False, False, False), (False, False, own, False)):
        check_shapes(ops.contrast_mean, (*p, *needs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_opcheck_other_operators(dtype):
    q, k = (torch.randn(9, 5, dtype=dtype) for _ in range(2))
    biases = 0.5, torch.tensor(-1.0)
    for normalize in (False, True, (True, False, False), (False, True, False)):
        for ids, needs in ((ARANGE, (True, True)), (None, (False, False)), (ARANGE, (False, True))):
            p = fields(q, k, scale=2.0, logit_scale=torch.tensor(1.5), ids=ids, normalize=normalize)
            torch.library.opcheck(ops.sigmoid_contrast, (*p, *biases, *needs))
    for scale, needs in ((torch.tensor(1.5), (True, True, True)), (None, (False, True, False))):
        arguments = q, k, scale, 2.0, [2, 5], [0.5, 1.0], *needs
        torch.library.opcheck(ops.nested_contrast_mean, arguments)
    tokens = torch.randn(3, 2, 6, 5, dtype=dtype)
    query, document, hard = tokens[:2, 0].clone(), tokens[:, 1].clone(), tokens[:2]
    masks = [torch.rand(x.shape[:-1]) < 0.9 for x in (query, document, hard)]
    options = scale, 2.0, True
    torch.library.opcheck(ops.max_sim_mean, (query, document, hard, *masks, *options, *[True] * 4))
    needs = True, False, False, False
    torch.library.opcheck(ops.max_sim_mean, (query, document, *[None] * 4, *options, *needs))
    torch.library.opcheck(ops.unit_rows_forward, ([q, k[:4]],))
    lengths = ops.unit_rows_forward([q, k[:4]])[1]
    grad = torch.randn(13, 5, dtype=dtype)
    torch.library.opcheck(ops.unit_rows_backward, (grad, [q, k[:4]], lengths))


def check_compiled(case, backend):
    tensors, kwargs = case.arguments(20, 8, 0.1)
    compiled = torch.compile(case.function, fullgraph=True, backend=backend)
    loss, grads = run(compiled, tensors, case.constants, kwargs, torch.float32)
    expected, expected_grads = run(case.function, tensors, case.constants, kwargs, torch.float32)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grads, expected_grads, rtol=1e-4, atol=1e-6)


@slow
@pytest.mark.parametrize("case", ONE_OF_EACH, ids=lambda c: c.name)
def test_compiles_to_one_graph_without_gradient(case):
    """Validation: no input requires a gradient, and autograd records nothing."""
    tensors, kwargs = case.arguments(20, 8, 0.1)
    compiled = torch.compile(case.function, fullgraph=True, backend="eager")
    with torch.no_grad():
        expected = case.function(**tensors, **kwargs)
        torch.testing.assert_close(compiled(**tensors, **kwargs), expected)
    torch._dynamo.reset()
    torch.testing.assert_close(compiled(**tensors, **kwargs), expected)


# What options add to a graph is rarely telling.
@pytest.mark.parametrize("case", [
    pytest.param(case, id=case.name, marks=[] if case in ONE_OF_EACH else slow) for case in CASES
])  # fmt: skip
def test_compiles_to_one_graph(case, fresh_graphs):
    check_compiled(case, "aot_eager")


# Every operator of ours once, with its options: generated code asserts the sizes and strides that
# the fake kernels promise. Each takes some 10 s.
GENERATED = (
    "nt_xent", "info_nce_unpaired", "moco", "clip", "siglip", "nce", "swav", "matryoshka",
    "max_sim_masked",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", GENERATED)
def test_generated_code(name, fresh_graphs):
    check_compiled(next(case for case in CASES if case.name == name), "inductor")


def test_a_changed_hyper_parameter_is_one_graph_too(fresh_graphs):
    """The second value of a float is a symbol to the compiler."""
    q, k = torch.randn(2, 6, 4)
    q.requires_grad_()
    compiled = torch.compile(fastcl.functional.info_nce, fullgraph=True, backend="aot_eager")
    for temperature in (0.5, 0.7, 2.0):
        expected = fastcl.functional.info_nce(q, k, temperature=temperature)
        torch.testing.assert_close(compiled(q, k, temperature=temperature), expected)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_autocast_leaves_the_rows_their_dtype(case):
    """The arithmetic is chosen by the rows; autocast neither lowers nor raises it."""
    tensors, kwargs = case.arguments(20, 8, 0.1)
    expected = run(case.function, tensors, case.constants, kwargs, torch.float32)

    def under_autocast(**arguments):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return case.function(**arguments)

    ours = run(under_autocast, tensors, case.constants, kwargs, torch.float32)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)


def test_rank_counts_negatives_above_the_pivot():
    q = torch.eye(4)
    k = torch.tensor([[0.5, 0, 0, 0], [0.9, 0.1, 0, 0], [0, 0.2, 1, 0], [0.6, 0, 0, 1]])
    pivot = (q * k).sum(1)
    p = problem(q, k, scale=1.0, ids=torch.arange(4), unit=False, normalize=False)
    assert row_losses(p, pivot).rank.tolist() == [2, 1, 0, 0]
    assert row_losses(p).rank.shape == (0,)


def test_scale_of_any_shape_receives_its_gradient():
    for shape in ((), (1,)):
        scale = torch.full(shape, 5.0, requires_grad=True)
        p = problem(torch.eye(3), torch.eye(3), scale=scale, ids=torch.arange(3))
        row_losses(p).loss.sum().backward()
        assert scale.grad.shape == shape
        assert scale.grad.isfinite().all()


def test_double_backward_is_refused():
    q = torch.randn(3, 2, requires_grad=True)
    loss = fastcl.functional.info_nce(q, torch.randn(3, 2))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, q, create_graph=True)


def test_works_with_nothing_built():
    """A pure-Python install runs on the reference."""
    script = """
import pathlib
exists = pathlib.Path.exists
pathlib.Path.exists = lambda p, **k: p.name != "fastcl_ops.so" and exists(p, **k)
import torch, fastcl
assert not torch._C._dispatch_has_kernel_for_dispatch_key("fastcl::contrast_forward", "CPU")
z = torch.randn(2, 8, 4, requires_grad=True)
fastcl.functional.nt_xent(*z).backward()
queue = fastcl.Queue(8, 4)
queue.push(torch.randn(3, 4))
assert int(queue.pointer) == 3 and z.grad.isfinite().all()
print("fine")
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.strip() == "fine", result.stderr
