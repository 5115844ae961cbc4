"""What the general contrast and the losses beside it promise of any call."""

import pytest
import torch
from case import run
from positive_cases import POSITIVES
from torch.autograd import forward_ad

import fastcl.functional as F
from fastcl.contrast.node import mean_loss
from fastcl.contrast.problem import problem

EVERY = pytest.mark.parametrize("case", POSITIVES, ids=lambda c: c.name)
N = 6


@pytest.fixture
def any_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@EVERY
def test_same_bits_with_any_number_of_threads(case, any_threads):
    tensors, kwargs = case.arguments(520, 24, 0.1)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(run(case.function, tensors, case.constants, kwargs, torch.float32))
    for loss, grads in found[1:]:
        assert torch.equal(loss, found[0][0])
        assert all(torch.equal(grad, found[0][1][name]) for name, grad in grads.items())


@EVERY
def test_no_tangent_is_lost(case):
    """Of one tensor alone, be it a weight: refused, or that of the plain loss."""
    tensors, kwargs = case.arguments(N, 4, 0.3)
    for name, x in tensors.items():
        if not x.is_floating_point() or name in case.constants:
            continue
        with forward_ad.dual_level():
            dual = {**tensors, name: forward_ad.make_dual(x, torch.ones_like(x))}
            with pytest.raises(RuntimeError, match="forward"):
                case.function(**dual, **kwargs)


@EVERY
def test_a_second_derivative_is_refused(case):
    tensors, kwargs = case.arguments(N, 4, 0.3)
    first = next(iter(tensors.values())).requires_grad_()
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(case.function(**tensors, **kwargs), first, create_graph=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_and_shapes_of_results(dtype):
    """Those of the rows, whatever options are in; gradients are those of their tensors."""
    q, k, wide = torch.randn(N, 4).to(dtype), torch.randn(N, 4).to(dtype), torch.float64
    labels = torch.arange(N)[:, None] // 2
    for options in (
        {}, {"temperature": torch.tensor([0.3], dtype=wide)},
        {"row_weight": torch.ones(N).to(wide)},
        {"temperature": torch.rand(N).to(wide) + 0.1},
        {"temperature": torch.rand(N).to(wide) + 0.1, "targets": (torch.ones(N, 2),) * 2,
         "positives": "sum"}, {"column_bias": torch.ones(N).to(wide)},
        {"targets": (torch.ones(N, 2).to(wide),) * 2}, {"targets": (torch.ones(N, 2).long(),) * 2},
        {"labels": (labels, labels), "level_weights": torch.ones(1).to(wide)},
        {"labels": (labels, labels), "positives": "sum"}, {"label_smoothing": 0.1},
        {"margin": 0.1, "temperature": torch.tensor([0.3], dtype=wide)},
    ):  # fmt: skip
        learned = {
            name: x.requires_grad_() for name, x in options.items()
            if isinstance(x, torch.Tensor) and x.is_floating_point()
        }  # fmt: skip
        for reduction in ("mean", "sum", "none"):
            loss = F.contrast(q.requires_grad_(), k, **options, reduction=reduction)
            assert loss.dtype == (wide if dtype == wide else torch.float32), options
            assert loss.shape == ((N,) if reduction == "none" else ()), options
            loss.sum().backward()
            assert all(x.grad.shape == x.shape for x in learned.values())
            assert q.grad.dtype == dtype
    scale = torch.tensor([0.3], dtype=wide)
    for loss in (
        F.mil_nce(q, k[:, None], temperature=scale), F.retrieval(q, k, temperature=scale),
        F.retrieval(q, k, k[:, None], temperature=scale),
        F.matryoshka(q, k, widths=[2, 4], temperature=scale),
    ):  # fmt: skip
        assert loss.dtype == (wide if dtype == wide else torch.float32) and loss.shape == ()


def test_a_row_of_weight_zero_may_have_no_column():
    """Its loss is minus infinity: all columns have its id, and no positive is in the sum."""
    q, k = (x.requires_grad_() for x in torch.randn(2, N, 4, dtype=torch.float64))
    ids = torch.tensor([0, 1, 1, 1, 1, 1]), torch.zeros(N, dtype=torch.int64)
    options = {"scale": 5.0, "ids": ids, "positives_in": False}
    weight = torch.ones(N)
    assert mean_loss(problem(q, k, **options, row_weight=weight))[0].isinf()
    weight[0] = 0
    loss, _ = mean_loss(problem(q, k, **options, row_weight=weight))
    rest, _ = mean_loss(problem(q[1:], k, **{**options, "ids": (ids[0][1:], ids[1])}))
    torch.testing.assert_close(loss, rest * 5 / 6)
    grads = [torch.autograd.grad(x, (q, k)) for x in (loss, rest * 5 / 6)]
    torch.testing.assert_close(*grads)
