"""The losses over prototypes of patches and crops in fastcl.compat beside their libraries."""

import copy

import pytest
import torch
from gloo import spawn
from hypothesis import given
from hypothesis import strategies as st
from peers import DTYPES, SHAPES, both, budgets, peer

SIZES = {k: v for k, v in SHAPES.items() if k != "n"}
# Images of 2 x 3 patches: some masked, one without any, one with all.
MASK = torch.tensor([[1, 0, 1, 0, 0, 1], [0] * 6, [1] * 6]).view(3, 2, 3).bool()


def called(loss, parts, *more, **options):
    """A function of the tensors, after which the center is as before."""

    def form(**x):
        kept = copy.deepcopy(loss.state_dict())
        dtype = next(iter(x.values())).dtype
        given = {k: v.to(dtype) for k, v in {**parts, **x}.items()}
        found = loss(*given.values(), *more, **options)
        loss.load_state_dict(kept)
        return found

    return form


def compare(losses, parts, trained, *more, small=1.0, **options):
    """After a first call, which moves the centers: states, values and gradients."""
    for loss in losses:
        loss(*(x.float() for x in parts.values()), *more, **options)
    torch.testing.assert_close(losses[0].state_dict(), losses[1].state_dict())
    forms = [called(loss, parts, *more, **options) for loss in losses]
    budgets(*forms, parts if trained else {"student": parts["student"]}, logit=4 / small)


def scores(n, d, dtype, *names):
    return {name: torch.randn(n, d, dtype=dtype) for name in names}


@given(t=st.floats(0.05, 2), small=st.floats(0.02, 1), own=st.booleans(), trained=st.booleans(),
       dtype=DTYPES, **SIZES)  # fmt: skip
def test_ibot(d, seed, t, small, own, trained, dtype):
    torch.manual_seed(seed)
    losses = [m.IBOTPatchLoss(d, small, t, center_momentum=0.7) for m in both("lightly")]
    parts = scores(int(MASK.sum()), d, dtype, "teacher", "student")
    options = {"teacher_temp": 2 * small} if own else {}
    compare(losses, parts, trained, MASK, small=small, **options)


@given(weight=st.sampled_from([0.0, 0.5, 1.0]), form=st.sampled_from("nbfm"), dtype=DTYPES, **SIZES)
def test_ibot_plus_plus(d, seed, weight, form, dtype):
    """Without a mask, with one of two dimensions, rows end to end, and a soft one."""
    torch.manual_seed(seed)
    losses = [m.IBOTPlusPlusPatchLoss(d, 0.5, 0.5) for m in both("lightly")]
    parts = scores(18, d, dtype, "teacher", "student")
    if form != "f":
        parts = {k: x.view(3, 6, d) for k, x in parts.items()}
    mask = {"n": None, "b": MASK, "f": MASK.flatten(1), "m": MASK * torch.rand(3, 2, 3)}[form]
    compare(losses, parts, True, mask, small=0.5, visible_loss_weight=weight)


@given(t=st.floats(0.05, 2), crops=st.integers(1, 3), epoch=st.integers(0, 4), dtype=DTYPES,
       **SHAPES)  # fmt: skip
def test_solo_dino(n, d, seed, t, crops, epoch, dtype):
    torch.manual_seed(seed)
    losses = [m.DINOLoss(d, 0.2, 0.4, 3, 5, t, crops, 0.7) for m in both("solo")]
    for loss in losses:
        loss.epoch = epoch
    parts = {"student": torch.randn(crops * n, d, dtype=dtype),
             "teacher": torch.randn(2 * n, d, dtype=dtype)}  # fmt: skip
    compare(losses, parts, False, small=0.2)
    assert torch.equal(*(torch.tensor(x.teacher_temp_schedule) for x in losses))


WIDE, BRAIN = torch.float32, torch.bfloat16


@pytest.mark.parametrize(
    "dtypes", [(BRAIN, BRAIN), (WIDE, BRAIN), (torch.float64, WIDE), (torch.float16,) * 2]
)
def test_the_dtype_of_the_result(dtypes):
    teacher, student = (x.to(t) for x, t in zip(torch.randn(2, 18, 16), dtypes, strict=True))
    found = []
    for module, other in zip(both("lightly"), both("solo"), strict=True):
        found.append([
            module.IBOTPatchLoss(16)(teacher[:9], student[:9], MASK),
            module.IBOTPlusPlusPatchLoss(16)(teacher, student, MASK),
            other.DINOLoss(16, 0.2, 0.4, 3, 5)(student, teacher),
        ])  # fmt: skip
    torch.testing.assert_close(*found, rtol=2e-2, atol=2e-2)


def test_views_of_several_dtypes():
    views = torch.randn(3, 8, 16)
    results = []
    for module in both("lightly"):
        student = [views[0].clone().requires_grad_(), views[1].bfloat16(), views[2].double()]
        loss = module.DINOLoss(16)([x.double() for x in views[:2]], student)
        results.append((loss, *torch.autograd.grad(loss, student[:1])))
    torch.testing.assert_close(*results)


def test_nothing_masked_leaves_the_center():
    loss, student = both("lightly")[0].IBOTPatchLoss(5), torch.randn(0, 5, requires_grad=True)
    value = loss(torch.randn(0, 5), student, torch.zeros(2, 3, 3, dtype=torch.bool))
    value.backward()
    assert (
        value == 0
        and value.dtype == torch.float32
        and torch.equal(loss.center.value, torch.zeros(1, 5))
    )


def test_errors():
    ours, theirs = both("lightly")
    x = torch.randn(3, 5)
    with pytest.raises(ValueError, match="a row for each of the 9 patches that mask marks, got 3"):
        ours.IBOTPatchLoss(5)(x, x, MASK)
    with pytest.raises(ValueError, match="same shape"):
        ours.IBOTPatchLoss(5)(x.repeat(3, 1), x, MASK)
    with pytest.raises(ValueError, match="student_temp must be finite and above 0, got 0"):
        ours.IBOTPatchLoss(5, student_temp=0.0)(x.repeat(3, 1), x.repeat(3, 1), MASK)
    for module in (ours, theirs):
        with pytest.raises(ValueError, match="Unknown mode 'max'"):
            module.IBOTPatchLoss(5, center_mode="max")
        loss = module.IBOTPlusPlusPatchLoss(5)
        for pair, mask, message in (
            ((x, x), None, "mask is required"), ((x[0], x[0]), MASK, "rank 2 or 3"),
            ((x.repeat(6, 1), x), MASK, "same shape"), ((x[:2], x[:2]), MASK, "not divisible"),
        ):  # fmt: skip
            with pytest.raises(ValueError, match=message):
                loss(*pair, mask)


def _check_center(rank: int) -> None:
    torch.manual_seed(rank)
    patches, crops, states = torch.randn(2, 9, 5), torch.randn(2, 4, 5), []
    for module, other in zip(both("lightly"), both("solo"), strict=True):
        losses = module.IBOTPatchLoss(5), other.DINOLoss(5, 1, 1, 1, 2)
        losses[0](*patches, MASK)
        losses[1](*crops)
        states.append([x.state_dict() for x in losses])
    torch.testing.assert_close(*states)


def test_the_center_of_two_ranks(tmp_path):
    peer("lightly.loss")
    peer("solo.losses")
    spawn(_check_center, 2, tmp_path)
