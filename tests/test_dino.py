"""DINO's loss beside another library's, its laws, and the memory that it takes."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peers import DTYPES, TEMPERATURES, budgets, peer
from processors import built

import fastcl.functional as F
from fastcl import losses

# Of float64: the same sums in another order, of at most 9 prototypes.
CLOSE = {"rtol": 1e-12, "atol": 1e-12}
SIZES = {"n": st.integers(1, 6), "m": st.integers(2, 9), "seed": st.integers(0, 999)}


def _scores(count, n, m, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return list(torch.rand(count, n, m, generator=generator, dtype=dtype).mul(2).sub(1))


def _loss(module, center, teacher, order, **student):
    """With the center and in the dtype that are given: what it does to the center is left out."""
    dtype = next(iter(student.values())).dtype
    module.center = center.to(dtype, copy=True)
    views = list(student.values()), [x.to(dtype) for x in teacher]
    return module(*views[::order], teacher_temp=0.0625).reshape(())


class Ours(losses.DINOLoss):
    def forward(self, student, teacher, teacher_temp):
        return super().forward(student, teacher, teacher_temp)


@given(t=TEMPERATURES, small=st.integers(0, 2), dtype=DTYPES, **SIZES)
def test_lightly(t, small, n, m, seed, dtype):
    """Value, gradients and center of a step that starts with a center that has moved."""
    theirs, ours = peer("lightly.loss.dino_loss").DINOLoss(m, student_temp=t), Ours(m, t)
    student, teacher = (_scores(count, n, m, seed, dtype) for count in (2 + small, 2))
    student = {f"view{v}": x for v, x in enumerate(student)}
    center = _scores(1, m, 1, seed, dtype)[0].reshape(-1)
    mine = partial(_loss, ours, center, teacher, 1)
    their = partial(_loss, theirs, center.view_as(theirs.center), teacher, -1)
    budgets(mine, their, student)
    mine(**student), their(**student)
    torch.testing.assert_close(ours.center, theirs.center.reshape(-1))


@given(**SIZES)
def test_one_step_of_a_shifted_center_changes_nothing(n, m, seed):
    """A center with the same number everywhere takes nothing off a softmax."""
    student, teacher = _scores(3, n, m, seed), _scores(2, n, m, seed + 1)
    even = torch.full((m,), 0.7, dtype=torch.float64)
    torch.testing.assert_close(
        F.dino(student, teacher, center=even), F.dino(student, teacher), **CLOSE
    )


@given(**SIZES)
def test_a_sure_teacher_is_cross_entropy_with_its_choice(n, m, seed):
    student, teacher = _scores(2, n, m, seed), _scores(1, n, m, seed + 1)
    best = teacher[0].argmax(1)
    sure = [50 * torch.nn.functional.one_hot(best, m).double()]
    want = torch.nn.functional.cross_entropy(student[1] / 0.1, best)
    torch.testing.assert_close(F.dino(student, sure), want, **CLOSE)


@given(shift=st.integers(1, 5), **SIZES)
def test_samples_and_prototypes_have_no_order(n, m, seed, shift):
    student, teacher = _scores(3, n, m, seed), _scores(2, n, m, seed + 1)
    center = torch.rand(m, dtype=torch.float64)
    want = F.dino(student, teacher, center=center)
    for dim in (0, 1):
        moved = [[x.roll(shift, dim) for x in views] for views in (student, teacher)]
        found = F.dino(*moved, center=center.roll(shift * dim, 0))
        torch.testing.assert_close(found, want, **CLOSE)


@given(**SIZES)
def test_a_temperature_with_a_gradient(n, m, seed):
    student, teacher = _scores(3, n, m, seed), _scores(2, n, m, seed + 1)
    t = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: F.dino(student, teacher, temperature=t), t)
    torch.testing.assert_close(F.dino(student, teacher, temperature=t).detach(),
                               F.dino(student, teacher, temperature=0.3))  # fmt: skip


@built
@pytest.mark.parametrize("assignment", ["center", "sinkhorn"])
def test_memory_beside_the_gradients_is_a_matrix_per_teacher_view(assignment):
    """The highest resident size of a process above scores and gradients, in matrices [n, m]; with
    small crops, for which the two targets are added up."""
    program = f"""
import resource, sys, torch
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import fastcl.functional as F
torch.set_num_threads(2)
def step(n, m):
    student = [torch.randn(n, m).requires_grad_() for _ in range(4)]
    teacher = [torch.randn(n, m) for _ in range(2)]
    grads = [torch.ones(n, m) for _ in student]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    del grads
    F.dino(student, teacher, assignment={assignment!r}).backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / (4 * n * m)
step(4, 65536)
print(step(64, 65536))
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    matrices = float(result.stdout)
    assert matrices < 2.5, f"{matrices:.2f} matrices above scores and gradients"
