"""nce, sinkhorn, soft_cross_entropy and bank_update_ in Triton against their references."""

import device
import pytest
import torch
from torch.nn.functional import normalize

from fastcl import reference
from fastcl.kernels import bank, nce, sinkhorn, soft_cross_entropy

# The quick ones have rows and banks of both sizes.
QUICK = {(torch.float32, torch.bfloat16), (torch.float16, torch.float32)}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
PAIRS = [
    pytest.param(a, b, marks=[] if (a, b) in QUICK else [pytest.mark.slow])
    for a in DTYPES
    for b in DTYPES
]
EPS = torch.finfo(torch.float32).eps


@pytest.fixture(autouse=True)
def arithmetic(monkeypatch):
    device.repair_arithmetic(monkeypatch)


def _rows(n, d, seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(n, d, generator=generator), dim=1).to(dtype)


def _nce_problem(b, k, d, n, dtype=torch.float32, bank_dtype=torch.float32):
    index = torch.randint(n, (b, 1 + k), generator=torch.Generator().manual_seed(3))
    return _rows(b, d, 0, dtype), _rows(n, d, 1, bank_dtype), index


def _close(ours, exact, factor=32):
    assert ours.dtype == torch.float32
    bound = factor * EPS * (1 + exact.abs().max())
    assert (ours.double() - exact).abs().max() <= bound


@pytest.mark.parametrize("dtype, bank_dtype", PAIRS)
def test_nce(monkeypatch, dtype, bank_dtype):
    monkeypatch.setattr(nce, "TILE", 128)
    monkeypatch.setattr(nce, "PART", 16)
    for b, k, d in ((1, 1, 1), (3, 37, 17), (2, 20, 128), (5, 8, 300)):
        x, rows, index = _nce_problem(b, k, d, 13, dtype, bank_dtype)
        for extras in ((None, None), (torch.tensor(1.5), torch.linspace(-2, 2, 13))):
            wide = [None if y is None else y.double() for y in extras]
            exact = reference.nce(x.double(), rows.double(), index, 14.3, -2.0, *wide, True)
            ours = nce.nce(x, rows, index, 14.3, -2.0, *extras, True)
            for got, want in zip(ours, exact, strict=True):
                _close(got, want)
            loss, nothing = nce.nce(x, rows, index, 14.3, -2.0, *extras, False)
            assert torch.equal(loss, ours[0]) and nothing.shape == (0, d)


def test_many_terms_far_below_rounding(monkeypatch):
    """A thousand noise rows of logit -18 are a loss, although 1 + exp(-18) is 1."""
    monkeypatch.setattr(nce, "TILE", 512)
    x, rows, index = _nce_problem(1, 1000, 4, 9)
    exact = reference.nce(x.double(), rows.double(), index, 1e-3, -18.0, None, None, False)[0]
    ours = nce.nce(x, rows, index, 1e-3, -18.0, None, None, False)[0]
    positive = torch.nn.functional.softplus(torch.tensor(18.0).double())
    assert (exact - positive).abs() > 1e-5
    _close(ours, exact, 4)


@pytest.mark.parametrize("wrong", [-1, 9, 2**40])
def test_nce_of_a_row_that_is_not_there(wrong):
    x, rows, index = _nce_problem(3, 5, 4, 9)
    index[1, 2] = wrong
    loss, dx = nce.nce(x, rows, index, 14.0, 0.0, None, None, True)
    assert loss.isnan().tolist() == [False, True, False]
    assert dx.isnan().any(1).tolist() == [False, True, False]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_nce_of_poisoned_rows(value):
    x, rows, index = _nce_problem(3, 5, 4, 9)
    x[1, 2] = value
    loss, _ = nce.nce(x, rows, index, 14.0, 0.0, None, None, True)
    assert loss.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("dtype, x_dtype", PAIRS)
def test_bank_update(monkeypatch, dtype, x_dtype):
    monkeypatch.setattr(bank, "SCAN", 8)
    for n, b, d, momentum in ((1, 1, 1, 0.5), (7, 30, 17, 0.5), (50, 9, 129, 0.99), (4, 8, 5, 0)):
        rows, x = _rows(n, d, 0, dtype), _rows(b, d, 1, x_dtype)
        index = torch.randint(n, (b,), generator=torch.Generator().manual_seed(2))
        ours, exact = rows.clone(), rows.double()
        bank.bank_update_(ours, index, x, momentum)
        reference.bank_update_(exact, index, x.double(), momentum)
        bound = torch.finfo(dtype).eps / 2 * exact.abs() + 8 * EPS
        bound = bound + (2.0**-25 if dtype == torch.float16 else 0)
        assert ((ours.double() - exact).abs() <= bound).all()


def test_bank_update_drops_what_is_not_there():
    rows, x = _rows(5, 3, 0), _rows(4, 3, 1)
    ours, want = rows.clone(), rows.clone()
    bank.bank_update_(ours, torch.tensor([2, -1, 5, 2]), x, 0.5)
    reference.bank_update_(want, torch.tensor([2]), x[3:], 0.5)
    torch.testing.assert_close(ours, want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n, m", [(1, 1), (5, 3), (40, 33), (70, 17), (3, 130)])
def test_sinkhorn_passes(monkeypatch, n, m, dtype):
    monkeypatch.setattr(sinkhorn, "ROWS", 4)
    monkeypatch.setattr(sinkhorn, "COLUMNS", 16)
    monkeypatch.setattr(sinkhorn, "STRIP", 32)
    generator = torch.Generator().manual_seed(0)
    scores = (2 * torch.rand(n, m, generator=generator) - 1).to(dtype)
    potential = 10 * torch.randn(m, generator=generator)
    for name, arguments in (
        ("sinkhorn_columns", ()),
        ("sinkhorn_masses", (potential,)),
        ("sinkhorn_assign", (potential,)),
    ):
        ours = getattr(sinkhorn, name)(scores, 20.0, *arguments)
        exact = getattr(reference, name)(scores.double(), 20.0, *(x.double() for x in arguments))
        _close(ours, exact, 64)


def _whole(module, scores, scale, iterations=4):
    """sinkhorn on the passes of a module."""
    potential = -module.sinkhorn_columns(scores, scale)
    for _ in range(iterations - 1):
        potential = potential - module.sinkhorn_masses(scores, scale, potential).log()
    return module.sinkhorn_assign(scores, scale, potential)


@pytest.mark.parametrize("scale", [20.0, 1e3, 1e6])
def test_sinkhorn_overflows_nowhere(scale):
    scores = torch.linspace(-1, 1, 37 * 11).view(37, 11).sin()
    scores[0], scores[:, 1] = 1, -1
    q = _whole(sinkhorn, scores, scale)
    assert q.isfinite().all()
    torch.testing.assert_close(q.sum(1), torch.ones(37), rtol=1e-5, atol=1e-5)
    if scale == 20:
        torch.testing.assert_close(q.double(), _whole(reference, scores.double(), scale),
                                   rtol=1e-4, atol=1e-5)  # fmt: skip


def test_sinkhorn_of_closed_and_of_poisoned_prototypes():
    scores = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    scores[0, 1] = scores[3, 2] = -torch.inf
    torch.testing.assert_close(_whole(sinkhorn, scores, 3.0), _whole(reference, scores, 3.0))
    scores[2, 2] = torch.nan
    assert _whole(sinkhorn, scores, 3.0).isnan().all()


def _soft_problem(n, m, dtype=torch.float32, target_dtype=torch.float32):
    scores, target = torch.randn(2, n, m, generator=torch.Generator().manual_seed(1))
    target = target.softmax(1) * torch.linspace(0, 2, n)[:, None]
    return scores.to(dtype), target.to(target_dtype)


@pytest.mark.parametrize("dtype, target_dtype", PAIRS)
@pytest.mark.parametrize("scale", [0.5, -3.0, 300.0])
def test_soft_cross_entropy(monkeypatch, dtype, target_dtype, scale):
    monkeypatch.setattr(soft_cross_entropy, "WIDTH", 16)
    for n, m in ((1, 1), (3, 16), (5, 40), (2, 33)):
        scores, target = _soft_problem(n, m, dtype, target_dtype)
        loss, grad = soft_cross_entropy.soft_cross_entropy(scores, target, scale, 0.5, True)
        exact = reference.soft_cross_entropy(scores.double(), target.double(), scale, 0.5, True)
        assert loss.dtype == torch.float32 and grad.dtype == dtype
        assert abs(loss / exact[0] - 1) < 32 * EPS if exact[0] else loss.abs() < EPS
        largest = abs(scale) * scores.double().abs().max()  # a logit, which float32 rounds
        bound = torch.finfo(dtype).eps * exact[1].abs() + 8 * EPS * (1 + largest)
        assert ((grad.double() - exact[1]).abs() <= bound).all()
        alone = soft_cross_entropy.soft_cross_entropy(scores, target, scale, 0.5, False)
        assert torch.equal(alone[0], loss) and alone[1].shape == (0, m)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", [0, 36])
def test_soft_cross_entropy_of_poisoned_rows(monkeypatch, value, where):
    monkeypatch.setattr(soft_cross_entropy, "WIDTH", 16)
    scores, target = _soft_problem(4, 37)
    scores[2, where] = value
    loss, grad = soft_cross_entropy.soft_cross_entropy(scores, target, 2.0, 1.0, True)
    assert loss.isnan() and grad.isnan().any(1).tolist() == [False, False, True, False]
