"""Cross-entropy with soft targets: the operator, and its gradient through scalers and graphs."""

import plain
import pytest
import torch
from budget import assert_within_budget
from hypothesis import given
from hypothesis import strategies as st
from processors import built

from fastcl import reference
from fastcl._library import ops
from fastcl.functional.soft_cross_entropy import soft_cross_entropy

pytestmark = pytest.mark.instruction_sets

SIZES = st.integers(1, 70)
SEEDS = st.integers(0, 2**31 - 1)
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _problem(n, m, seed, dtype=torch.float64, wide=False):
    """Scores, and targets whose rows weigh 0 to 2, in the dtype or what it accumulates in."""
    generator = torch.Generator().manual_seed(seed)
    scores, target = torch.randn(2, n, m, generator=generator, dtype=torch.float64)
    target = target.softmax(1) * torch.linspace(0, 2, n, dtype=torch.float64)[:, None]
    return scores.to(dtype), target.to(reference.accumulate_dtype(dtype) if wide else dtype)


def _run(function, scores, *arguments, **options):
    scores = scores.detach().clone().requires_grad_()
    loss = function(scores, *arguments, **options)
    loss.backward()
    return loss.detach(), scores.grad


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wide", [False, True])
@given(n=SIZES, m=SIZES, seed=SEEDS, scale=st.floats(-300, 300).filter(bool))
def test_operator(dtype, wide, n, m, seed, scale):
    """Value and gradient within the error budget, whatever the dtype of the targets."""
    scores, target = _problem(n, m, seed, dtype, wide)
    ours = ops.soft_cross_entropy(scores, target, scale, 0.5, True)
    exact = reference.soft_cross_entropy(scores.double(), target.double(), scale, 0.5, True)
    other = reference.soft_cross_entropy(scores, target, scale, 0.5, True)
    assert ours[0].dtype == reference.accumulate_dtype(dtype) and ours[1].dtype == dtype
    for i, what in enumerate(("loss", "gradient")):
        budget = ours[0].dtype if i == 0 else dtype
        # Each of n rows rounds its logits, and the loss adds them up.
        share = n if i == 0 else 1
        assert_within_budget(
            ours[i].double() / share, other[i].double() / share, exact[i] / share, budget, what
        )
    alone = ops.soft_cross_entropy(scores, target, scale, 0.5, False)
    assert torch.equal(alone[0], ours[0]) and alone[1].shape == (0, m)


@given(n=SIZES, m=SIZES, seed=SEEDS)
def test_laws(n, m, seed):
    scores, target = _problem(n, m, seed)
    loss, grad = _run(soft_cross_entropy, scores, target, scale=3.0)
    # Probabilities sum to one: a row's gradient sums to nothing, and no shift of a row counts.
    torch.testing.assert_close(grad.sum(1), torch.zeros(n).double())
    shifted = _run(soft_cross_entropy, scores + 100, target, scale=3.0)
    # Logits of 300 round by 300 * 2^-53 = 3e-14, twice, and so do the terms of both sums.
    torch.testing.assert_close(shifted, (loss, grad), rtol=1e-11, atol=1e-12)
    # Linear in the targets.
    other = _problem(n, m, seed + 1)[1]
    both = soft_cross_entropy(scores, target + other, scale=3.0)
    torch.testing.assert_close(both, loss + soft_cross_entropy(scores, other, scale=3.0))
    torch.testing.assert_close(
        _run(soft_cross_entropy, scores, target, scale=3.0, weight=-0.25),
        (-0.25 * loss, -0.25 * grad),
    )
    # Equal scores: log m times the weight of the rows.
    flat = soft_cross_entropy(torch.full_like(scores, 7), target, scale=3.0)
    torch.testing.assert_close(flat, target.sum(1).mean() * torch.tensor(m).double().log())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e3, 1e6, -1e6])
def test_nothing_overflows(dtype, scale):
    scores, target = _problem(37, 21, 0, dtype)
    loss, grad = _run(soft_cross_entropy, scores, target, scale=scale)
    assert loss.isfinite() and grad.isfinite().all()
    exact = plain.soft_cross_entropy(scores.double(), target.double(), temperature=1 / scale)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_without_weight(dtype):
    scores, target = _problem(5, 9, 0, dtype)
    target[2] = 0
    _, grad = _run(soft_cross_entropy, scores, target, scale=10.0)
    assert (grad[2] == 0).all() and (grad[3] != 0).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("m", [1, 7, 16, 33])
def test_poison(dtype, value, m):
    """Also where it is the last of a row; minus infinity under a weight is no finite loss."""
    for where in (0, m - 1):
        scores, target = _problem(3, m, 0, dtype)
        scores[1, where] = value
        loss = soft_cross_entropy(scores, target, scale=2.0)
        assert not loss.isfinite() and (loss.isnan() or value == -torch.inf)


def test_upstream_gradients():
    """Scaled, used twice, and with the graph kept: the saved gradient is not spent."""
    scores, target = _problem(9, 5, 0)
    scores.requires_grad_()
    loss = soft_cross_entropy(scores, target, scale=2.0)
    want = torch.autograd.grad(
        plain.soft_cross_entropy(scores, target, temperature=0.5), scores
    )[0]  # fmt: skip
    for factor in (1.0, 3.0):
        (grad,) = torch.autograd.grad(factor * loss, scores, retain_graph=True)
        torch.testing.assert_close(grad, factor * want)
    (grad,) = torch.autograd.grad(5 * loss + loss * loss, scores)
    torch.testing.assert_close(grad, (5 + 2 * loss.detach()) * want)
    with pytest.raises(RuntimeError, match="no second derivative"):
        again = soft_cross_entropy(scores, target, scale=2.0)
        torch.autograd.grad(again, scores, create_graph=True)


def test_float16_under_a_loss_scaler():
    """Gradients of a mean over many rows are below what float16 holds; the scaler raises them."""
    scores, target = _problem(256, 300, 0, torch.float16)
    scores.requires_grad_()
    raised = 2.0**16
    (raised * soft_cross_entropy(scores, target, scale=1.0)).backward()
    exact = scores.detach().double().requires_grad_()
    plain.soft_cross_entropy(exact, target.double(), temperature=1.0).backward()
    error = (scores.grad.double() / raised - exact.grad).norm() / exact.grad.norm()
    assert error < 1e-3
    late = exact.grad.half().double() - exact.grad  # negative control: rounded before
    assert late.norm() / exact.grad.norm() > 2 * error


def test_neither_scores_nor_targets_are_kept():
    scores, target = _problem(9, 5, 0)
    loss = soft_cross_entropy(scores.requires_grad_(), target, scale=2.0)
    (saved,) = loss.grad_fn.saved_tensors
    assert saved.shape == scores.shape and saved.data_ptr() not in (
        scores.data_ptr(), target.data_ptr()
    )  # fmt: skip


@built
def test_same_bits_with_any_number_of_threads():
    (scores, target), threads = _problem(300, 500, 0, torch.float32), torch.get_num_threads()
    results = []
    try:
        for count in (1, 1, 3):
            torch.set_num_threads(count)
            results.append(ops.soft_cross_entropy(scores, target, 3.0, 1.0, True))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.any_set
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("need_scores", [False, True])
def test_opcheck(dtype, wide, need_scores):
    arguments = (*_problem(9, 5, 0, dtype, wide), 20.0, 0.5, need_scores)
    torch.library.opcheck(ops.soft_cross_entropy, arguments)
