"""Every loss of the table against float64 within the error budget, and its derivative."""

import pytest
import torch
from budget import assert_case_within_budget
from cases import CASES, ROWS, TEMPERATURES, WIDTHS, rounded, run

import fastcl

pytestmark = pytest.mark.instruction_sets


def check(case, n, d, temperature, dtype):
    tensors, kwargs = case.arguments(max(n, case.smallest), d, temperature)
    tensors = rounded(tensors, dtype)
    ours = run(case.function, tensors, case.constants, kwargs, dtype)
    assert_case_within_budget(case, tensors, kwargs, dtype, *ours)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_budget_over_rows(case, dtype):
    for n in ROWS if dtype in (torch.float32, torch.float64) else ROWS[:5]:
        check(case, n, 32, 0.1, dtype)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_budget_over_widths(case):
    for d in WIDTHS:
        check(case, 65, d, 0.1, torch.float32)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_budget_over_temperatures(case, temperature):
    check(case, 65, 48, temperature, torch.float32)


@pytest.mark.parametrize("temperature", [0.01, 0.005])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_budget_of_converged_pairs(case, temperature):
    """Near convergence lse and positive agree to many digits; their difference must be right."""
    tensors, kwargs = case.arguments(65, 48, temperature)
    first, *others = tensors
    for name in others:
        if tensors[name].shape == tensors[first].shape and name not in ("negatives", "hard"):
            tensors[name] = tensors[first] + 0.05 * torch.randn_like(tensors[name])
    tensors = rounded(tensors, torch.float32)
    ours = run(case.function, tensors, case.constants, kwargs, torch.float32)
    assert_case_within_budget(case, tensors, kwargs, torch.float32, *ours)


@pytest.mark.any_set
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_gradcheck(case):
    if not case.derivative:
        pytest.skip("its gradient is not the derivative of its value, by definition")
    tensors, kwargs = case.arguments(4, 3, 0.5)
    names = list(tensors)
    floating = [k for k in names if tensors[k].is_floating_point() and k not in case.constants]
    for k in floating:
        tensors[k].requires_grad_()

    def function(*values):
        return case.function(**{**tensors, **dict(zip(floating, values, strict=True))}, **kwargs)

    assert torch.autograd.gradcheck(function, [tensors[k] for k in floating])


def test_gradient_of_every_row():
    """reduction="none" with random upstream gradients, and a loss used twice."""
    query, key = (torch.randn(33, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    upstream = torch.randn(33, dtype=torch.float64)
    loss = fastcl.functional.info_nce(query, key, reduction="none")
    ((loss * upstream).sum() + 3 * loss.mean()).backward()
    ours = query.grad.clone(), key.grad.clone()
    query.grad = key.grad = None
    q, k = (torch.nn.functional.normalize(x, dim=1) for x in (query, key))
    plain = torch.nn.functional.cross_entropy(q @ k.T / 0.1, torch.arange(33), reduction="none")
    ((plain * upstream).sum() + 3 * plain.mean()).backward()
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(ours, (query.grad, key.grad))


def test_paired_negatives_near_convergence():
    """Logits of 100 and 87: the loss is what plain PyTorch has, not what a logit is rounded by."""
    query = torch.eye(3, requires_grad=True)
    negatives = 0.87 * torch.eye(3) + (1 - 0.87**2) ** 0.5 * torch.eye(3).roll(1, 0)
    loss = fastcl.functional.info_nce(
        query, torch.eye(3), negatives[:, None], negative_mode="paired", temperature=0.01
    )
    loss.backward()
    share = torch.tensor(-13.0).exp()  # 19 steps of float32 at one
    torch.testing.assert_close(loss.detach(), share, rtol=0.06, atol=0)
    aside = 100 * share * (1 - 0.87**2) ** 0.5 / 3
    torch.testing.assert_close(query.grad.max(), aside, rtol=0.06, atol=0)


@pytest.mark.any_set
def test_a_mode_is_asked_for_by_its_letters():
    """A string made when it runs, as one read from a file, is another object than the literal."""
    query, key, negatives = torch.randn(3, 4, 8).unbind()
    paired = {"negatives": negatives[:, None].expand(4, 5, 8), "temperature": 0.5}
    made = "".join(["pair", "ed"])
    found = fastcl.functional.info_nce(query, key, **paired, negative_mode=made)
    assert torch.equal(
        found, fastcl.functional.info_nce(query, key, **paired, negative_mode="paired")
    )


def test_expanded_gradient():
    """loss.sum() delivers a gradient of stride 0, which a raw pointer must not read through."""
    query, key = torch.randn(2, 65, 8, dtype=torch.float64).unbind()
    query.requires_grad_()
    fastcl.functional.info_nce(query, key, reduction="none").sum().backward()
    summed = query.grad.clone()
    query.grad = None
    loss = fastcl.functional.info_nce(query, key, reduction="none")
    loss.backward(torch.ones(65, dtype=torch.float64))
    assert torch.equal(summed, query.grad)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_views(case):
    """Transposed, strided and offset views give what their copies give."""
    tensors, kwargs = case.arguments(33, 16, 0.1)
    views = {}
    for name, x in tensors.items():
        views[name] = x
        if x.dim() >= 2:
            n, m = x.shape[-2:]
            poison = torch.nan if x.is_floating_point() else -(2**40)
            wide = x.new_full((*x.shape[:-2], m + 3, 2 * n + 1), poison)
            wide[..., 2:-1, 1::2] = x.mT
            views[name] = wide[..., 2:-1, 1::2].mT
    ours, expected = case.function(**views, **kwargs), case.function(**tensors, **kwargs)
    torch.testing.assert_close(ours, expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_same_bits_twice(case):
    tensors, kwargs = case.arguments(150, 32, 0.07)
    first = run(case.function, tensors, case.constants, kwargs, torch.float32)
    second = run(case.function, tensors, case.constants, kwargs, torch.float32)
    assert torch.equal(first[0], second[0])
    for name, grad in first[1].items():
        assert torch.equal(grad, second[1][name])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_poisoned_row_gives_nan(case, value):
    """Never a wrong finite number."""
    tensors, kwargs = case.arguments(40, 8, 0.1)
    next(iter(tensors.values()))[3, 2] = value
    assert case.function(**tensors, **kwargs).isnan()


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_zero_rows_are_finite(case):
    tensors, kwargs = case.arguments(40, 8, 0.1)
    next(iter(tensors.values()))[3] = 0
    loss, grads = run(case.function, tensors, case.constants, kwargs, torch.float32)
    assert loss.isfinite()
    assert all(grad.isfinite().all() for grad in grads.values())


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_inputs_are_left_alone(case):
    tensors, kwargs = case.arguments(20, 8, 0.1)
    before = {name: x.clone() for name, x in tensors.items()}
    run(case.function, tensors, case.constants, kwargs, torch.float64)
    assert all(torch.equal(x, before[name]) for name, x in tensors.items())
