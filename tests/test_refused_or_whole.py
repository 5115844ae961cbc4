"""What autograd and tensor layouts can ask for: the right answer, or an error that says why not."""

import inspect

import pytest
import torch
from cases import CASES
from torch.autograd import forward_ad

import fastcl.functional as F
from fastcl.contrast.node import mean_loss, row_losses
from fastcl.contrast.problem import problem


def _leaves(case, n=6, d=4):
    tensors, kwargs = case.arguments(n, d, 0.1)
    learned = {k for k, x in tensors.items() if x.is_floating_point()} - set(case.constants)
    return {k: x.requires_grad_(k in learned) for k, x in tensors.items()}, learned, kwargs


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_forward_mode_is_refused_or_right(case, recorded):
    """Barlow Twins and VICReg are plain PyTorch, and have a tangent."""
    tensors, learned, kwargs = _leaves(case)
    with forward_ad.dual_level():
        for name in learned:
            x = tensors[name].detach().requires_grad_(recorded)
            tensors[name] = forward_ad.make_dual(x, torch.ones_like(x))
        if case.name in ("barlow_twins", "vicreg"):
            assert forward_ad.unpack_dual(case.function(**tensors, **kwargs)).tangent is not None
            return
        with pytest.raises(RuntimeError, match="forward"):
            case.function(**tensors, **kwargs)


def test_a_level_without_tangents_changes_nothing():
    z = torch.randn(4, 3)
    with forward_ad.dual_level():
        assert F.nt_xent(z, z).isfinite()


ROWWISE = [c for c in CASES if "reduction" in inspect.signature(c.function).parameters]


@pytest.mark.parametrize("case", ROWWISE, ids=lambda c: c.name)
def test_losses_per_row_may_be_written(case):
    found = []
    for in_place in (False, True):
        tensors, learned, kwargs = _leaves(case)
        torch.manual_seed(0)
        loss = case.function(**tensors, **kwargs | {"reduction": "none"})
        loss = loss.mul_(3) if in_place else loss * 3
        loss.sum().backward()
        found.append([tensors[name].grad for name in sorted(learned)])
        torch.manual_seed(0)
    assert all(g is not None for g in found[0])


@pytest.mark.parametrize("both", [False, True])
def test_outputs_of_the_contrast_are_their_own(both):
    q, k = torch.randn(2, 5, 3, dtype=torch.float64)
    ids = torch.arange(5)

    def call(which, both, normalize):
        p = {"scale": 2.0, "ids": ids, "both": both, "normalize": normalize}
        return lambda q, k: getattr(row_losses(problem(q, k, **p)), which)

    calls = [call("loss", both, normalize) for normalize in (False, True)]
    calls += [call("col_loss", True, normalize) for normalize in (False, True)]
    calls += [call("positive", both, normalize) for normalize in (False, True)]
    for call in calls:
        grads = []
        for write in (False, True):
            a, b = (x.clone().requires_grad_() for x in (q, k))
            loss = call(a, b)
            assert loss._base is None
            (loss.mul_(3) if write else loss * 3).sum().backward()
            grads.append((a.grad, b.grad))
        torch.testing.assert_close(grads[1], grads[0])


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("needed", ["scale", "first", "second", "k", "none but k and scale"])
def test_rows_in_parts_of_which_some_learn(needed, mean):
    """Against the rows in one piece, where all learn."""
    parts, k = torch.randn(2, 4, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    row_ids, col_ids = torch.arange(8) % 5, torch.arange(5)

    def run(learning, whole):
        tensors = {
            "first": parts[0],
            "second": parts[1],
            "k": k,
            "scale": torch.tensor(2.0).double(),
        }
        tensors = {n: x.clone().requires_grad_(whole or n in learning) for n, x in tensors.items()}
        rows = [tensors["first"], tensors["second"]]
        rows = [torch.cat(rows)] if whole else rows
        more = {"scale": tensors["scale"], "ids": (row_ids, col_ids)}
        if mean:
            mean_loss(problem(rows, tensors["k"], **more, both=True))[0].backward()
        else:
            found = row_losses(problem(rows, tensors["k"], **more, both=True))
            (found.loss.sum() + found.col_loss.sum()).backward()
        return {name: x.grad for name, x in tensors.items()}

    learning = [name for name in ("first", "second", "k", "scale") if name in needed.split()]
    want, got = run((), True), run(learning, False)
    for name in learning:
        torch.testing.assert_close(got[name], want[name])
    assert [name for name, grad in got.items() if grad is not None] == learning


LAYOUTS = {
    "sparse": torch.Tensor.to_sparse,
    "csr": torch.Tensor.to_sparse_csr,
    "nested": lambda x: torch.nested.nested_tensor(list(x), layout=torch.jagged),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_other_layouts_are_named(case, layout):
    tensors, learned, kwargs = _leaves(case)
    for name in sorted(learned):
        if tensors[name].dim() != 2:
            continue
        changed = tensors | {name: layout(tensors[name].detach())}
        with pytest.raises(TypeError, match=r"must be a dense tensor, got one of layout torch\."):
            case.function(**changed, **kwargs)
