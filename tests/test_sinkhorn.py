"""Laws of the assignment: its sums, its symmetries, its range, and what bad input gets."""

import plain
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fastcl.functional as F
from fastcl import reference
from fastcl._library import ops

pytestmark = pytest.mark.instruction_sets

SIZES = st.integers(1, 40)
SEEDS = st.integers(0, 2**31 - 1)
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _scores(n, m, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.rand(n, m, generator=generator, dtype=torch.float64) - 1).to(dtype)


@given(n=SIZES, m=SIZES, seed=SEEDS)
def test_sums(n, m, seed):
    """Rows sum to one always, columns to their share once it has converged."""
    scores = _scores(n, m, seed)
    q = F.sinkhorn(scores, epsilon=0.5, iterations=100)
    torch.testing.assert_close(q.sum(1), torch.ones(n).double())
    torch.testing.assert_close(q.sum(0), torch.full((m,), n / m).double(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(F.sinkhorn(scores, iterations=1).sum(1), torch.ones(n).double())


@given(n=SIZES, m=SIZES, seed=SEEDS)
def test_permutations_and_shifts(n, m, seed):
    scores = _scores(n, m, seed)
    q = F.sinkhorn(scores)
    rows, cols = torch.randperm(n), torch.randperm(m)
    torch.testing.assert_close(F.sinkhorn(scores[rows][:, cols]), q[rows][:, cols])
    # A number added to a column, or to all scores, is taken out by the first scaling.
    shift = _scores(1, m, seed + 1)
    torch.testing.assert_close(F.sinkhorn(scores + shift + 7), q, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("epsilon", [1.0, 0.05, 0.01, 1e-3, 1e-6])
@pytest.mark.parametrize("size", [1.0, 1000.0])
def test_nothing_overflows(dtype, epsilon, size):
    scores = size * _scores(37, 11, 0, dtype)
    scores[0] = size  # a row and a column of extremes
    scores[:, 1] = -size
    q = F.sinkhorn(scores, epsilon=epsilon, iterations=5)
    assert q.isfinite().all() and q.dtype == (dtype if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(q.sum(1), torch.ones(37).to(q), rtol=1e-5, atol=1e-5)


def test_the_usual_form_overflows():
    """Negative control: with exponentials of float32 scores this would be NaN."""
    scores = _scores(8, 5, 0, torch.float32) * 10
    q = (scores / 0.05).exp()
    assert not (q / q.sum(0)).isfinite().all()
    assert F.sinkhorn(scores).isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n, m", [(1, 1), (1, 7), (7, 1), (63, 65), (200, 300), (2000, 17)])
def test_budget(n, m, dtype):
    """At most twice as wrong as plain PyTorch in float32, and a little."""
    scores, work = _scores(n, m, 3, dtype), torch.promote_types(dtype, torch.float32)
    options = {"epsilon": 0.05, "iterations": 4}
    exact = plain.sinkhorn(scores.double(), **options)
    error = (F.sinkhorn(scores, **options).double() - exact).abs().max()
    other = (plain.sinkhorn(scores.to(work), **options).double() - exact).abs().max()
    # Exponents of 20 are rounded before they are exponentials.
    assert error <= 2 * other + 4 * torch.finfo(work).eps * (1 + 20)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n, m", [(1, 1), (5, 3), (64, 64), (65, 129), (3, 1030), (2000, 17)])
def test_passes_against_the_reference(n, m, dtype):
    scores = _scores(n, m, 5, dtype)
    work = reference.accumulate_dtype(dtype)
    potential = _scores(1, m, 6, work)[0] * 10
    eps = 64 * torch.finfo(work).eps
    for name, arguments in (
        ("sinkhorn_columns", ()),
        ("sinkhorn_masses", (potential,)),
        ("sinkhorn_assign", (potential,)),
    ):
        ours = getattr(ops, name)(scores, 20.0, *arguments)
        exact = getattr(reference, name)(scores.double(), 20.0, *(x.double() for x in arguments))
        assert ours.dtype == work
        torch.testing.assert_close(ours.double(), exact, rtol=eps, atol=eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n, m", [(1, 1), (5, 3), (64, 64), (65, 129), (3, 1030), (2000, 17)])
def test_all_rounds_at_once(n, m, dtype):
    """With older rows that take part, more and fewer than there are, and without."""
    scores, work = _scores(n, m, 5, dtype), reference.accumulate_dtype(dtype)
    for older in (None, _scores(7, m, 6, dtype), _scores(600, m, 7, dtype)):
        for iterations in (1, 2, 3):
            ours = ops.sinkhorn(scores, older, 20.0, iterations)
            wide = None if older is None else older.double()
            exact = reference.sinkhorn(scores.double(), wide, 20.0, iterations)
            eps = 64 * torch.finfo(work).eps
            assert ours.dtype == work
            torch.testing.assert_close(ours.double(), exact, rtol=eps, atol=eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("apart", [1, 30, 49, 51, 80, 90, 200, 610, 630, 720, 1e4])
def test_columns_and_rows_far_apart(dtype, apart):
    """Before and after exponentials underflow: what is added to a column is taken out again, and
    what is added to a row too once rows are scaled."""
    eps = 64 * torch.finfo(dtype).eps * (1 + apart)  # of a logit of this size
    scores = _scores(40, 30, 3, dtype).mul(3).round() / 4  # sums with apart are exact
    want = reference.sinkhorn(scores.double(), None, 2.0, 3)
    for column in (0, 29):
        for sign in (1, -1):
            moved = scores.clone()
            moved[:, column] += sign * round(apart) / 2
            ours = ops.sinkhorn(moved, None, 2.0, 3)
            torch.testing.assert_close(ours.double(), want, rtol=eps, atol=eps)
    for sign in (1, -1):
        moved = scores.clone()
        moved[7] += sign * round(apart) / 2
        exact = reference.sinkhorn(moved.double(), None, 2.0, 3)
        ours = ops.sinkhorn(moved, None, 2.0, 3)
        torch.testing.assert_close(ours.double(), exact, rtol=eps, atol=eps)


def test_nan_spreads_and_no_gradient():
    scores = _scores(6, 4, 0).requires_grad_()
    q = F.sinkhorn(scores)
    assert not q.requires_grad
    for value in (torch.nan, torch.inf):
        poisoned = scores.detach().clone()
        poisoned[3, 2] = value
        assert F.sinkhorn(poisoned).isnan().any()


def test_prototypes_closed_to_some_samples():
    """A score of minus infinity is an assignment of zero."""
    scores = _scores(7, 5, 0)
    scores[0, 1] = scores[3, 2] = scores[6, 4] = -torch.inf
    q = F.sinkhorn(scores)
    torch.testing.assert_close(q, plain.sinkhorn(scores, epsilon=0.05, iterations=3))
    assert (q == 0).sum() == 3


def test_same_bits_with_any_number_of_threads():
    scores, threads = _scores(500, 300, 0, torch.float32), torch.get_num_threads()
    results = []
    try:
        for count in (1, 1, 3):
            torch.set_num_threads(count)
            results.append(F.sinkhorn(scores))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_older_scores_take_part_in_the_assignment_alone():
    views, queue = [_scores(6, 5, s) for s in (1, 2)], [_scores(9, 5, s) for s in (3, 4)]
    loss = F.swav(views, queue=queue)
    want = 0
    for a, v in ((0, 1), (1, 0)):
        q = F.sinkhorn(torch.cat([queue[a], views[a]]))[9:]
        want = want + torch.nn.functional.cross_entropy(views[v] / 0.1, q) / 2
    torch.testing.assert_close(loss, want)
    assert not torch.allclose(loss, F.swav(views))


@pytest.mark.any_set
@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck(dtype):
    scores = _scores(9, 5, 0, dtype)
    potential = torch.randn(5, dtype=reference.accumulate_dtype(dtype))
    torch.library.opcheck(ops.sinkhorn, (scores, None, 20.0, 3))
    torch.library.opcheck(ops.sinkhorn, (scores, scores[:4], 20.0, 1))
    torch.library.opcheck(ops.sinkhorn_columns, (scores, 20.0))
    torch.library.opcheck(ops.sinkhorn_masses, (scores, 20.0, potential))
    torch.library.opcheck(ops.sinkhorn_assign, (scores, 20.0, potential))


S = _scores(4, 3, 0)
BAD = {
    "vector": (lambda: F.sinkhorn(S[0]), ValueError, "scores must have 2 dimensions"),
    "integers": (lambda: F.sinkhorn(S.long()), TypeError, "scores must be float16.*int64"),
    "epsilon": (lambda: F.sinkhorn(S, epsilon=0), ValueError, "epsilon must be .*above 0, got 0"),
    "iterations": (lambda: F.sinkhorn(S, iterations=0), ValueError, "iterations must be 1 or more"),
    "one view": (lambda: F.swav([S]), ValueError, "scores must hold 2 views at least, got 1"),
    "assign": (lambda: F.swav([S, S], assign=3), ValueError, "assign must be 2 at most.* got 3"),
    "none": (lambda: F.swav([S, S], assign=0), ValueError, "assign must be 1 or more, got 0"),
    "rows": (lambda: F.swav([S, S[:2]]), ValueError, r"scores\[1\] must have as many rows"),
    "queue": (lambda: F.swav([S, S], queue=[S]), ValueError, "queue must hold 2 tensors.* got 1"),
    "width": (lambda: F.swav([S, S], queue=[S, S[:, :2]]), ValueError, r"queue\[1\] .* 3, got 2"),
    "student": (lambda: F.dino([S], [S]), ValueError, "student must hold 2 views at least, got 1"),
    "no teacher": (lambda: F.dino([S, S], []), ValueError, "teacher must hold 1 to 2 .* got 0"),
    "teachers": (lambda: F.dino([S, S], [S] * 3), ValueError, "teacher must hold 1 to 2.* got 3"),
    "student rows": (
        lambda: F.dino([S, S[:2]], [S]), ValueError, r"student\[1\] must have as many rows"
    ),
    "teacher dtype": (
        lambda: F.dino([S, S], [S.float()]), TypeError, r"teacher\[0\] must have the dtype"
    ),
    "center": (
        lambda: F.dino([S, S], [S], center=S[0, :2]), ValueError, r"center must have shape \[3\]"
    ),
    "center of balanced ones": (
        lambda: F.dino([S, S], [S], center=S[0], assignment="sinkhorn"), ValueError,
        "center must be None with assignment 'sinkhorn'"
    ),
    "assignment": (
        lambda: F.dino([S, S], [S], assignment="max"), ValueError, "assignment must be one of"
    ),
    "teacher temperature": (
        lambda: F.dino([S, S], [S], teacher_temperature=0.0), ValueError,
        "teacher_temperature must be finite and above 0, got 0.0"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()
