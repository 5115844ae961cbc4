"""The error budget: how wrong a loss and its gradients may be."""

import torch
from case import rounded, run
from remembered import remembered


def assert_within_budget(ours, plain, exact, dtype, what):
    """A kernel may be twice as wrong as plain PyTorch in its dtype, plus a little.

    The bound is on the largest error of a tensor: an element of plain PyTorch may be exact by luck.
    """
    eps = torch.finfo(dtype).eps
    error = (ours - exact).abs()
    bound = 2 * (plain - exact).abs().max() + 4 * eps * (1 + exact.abs())
    assert torch.isfinite(ours).all(), f"{what} is not finite"
    assert (error <= bound).all(), f"{what}: error {error.max():.2e}, bound {bound.min():.2e}"


def _as_wrong_as_in_float32(case, tensors, kwargs, exact, exact_grads):
    """Plain PyTorch in float64, of which the judge is as wrong: by its error in float32 times the
    ratio of their roundings."""
    ratio = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
    tensors = rounded(tensors, torch.float32)
    judge, judge_grads = run(case.plain, tensors, case.constants, kwargs, torch.float64)
    plain, plain_grads = run(case.plain, tensors, case.constants, kwargs, torch.float32)
    grads = {k: x + ratio * (plain_grads[k] - judge_grads[k]) for k, x in exact_grads.items()}
    return exact + ratio * (plain - judge), grads


def judged(case, tensors, kwargs, dtype):
    """Plain PyTorch in dtype and in float64, value and gradients each, of rounded tensors."""
    return remembered(_judged, tensors, kwargs, dtype, of=(case,))


def _judged(case, tensors, kwargs, dtype):
    exact = run(case.plain, tensors, case.constants, kwargs, torch.float64)
    if dtype == torch.float64:
        return _as_wrong_as_in_float32(case, tensors, kwargs, *exact), exact
    return run(case.plain, tensors, case.constants, kwargs, dtype), exact


def assert_case_within_budget(case, tensors, kwargs, dtype, ours, grads):
    """A value and its gradients, of rounded tensors."""
    (plain, plain_grads), (exact, exact_grads) = judged(case, tensors, kwargs, dtype)
    assert grads.keys() == exact_grads.keys()
    assert_within_budget(ours, plain, exact, dtype, "loss")
    for name, grad in grads.items():
        assert_within_budget(grad, plain_grads[name], exact_grads[name], dtype, f"d{name}")
