"""The operator under nce against its dense formula, and its constant."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fastcl.functional as F
from fastcl import reference
from fastcl._library import ops

pytestmark = pytest.mark.instruction_sets

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _problem(b, k, d, n=50, dtype=torch.float32, bank_dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, bank = (torch.randn(rows, d, generator=generator) for rows in (b, n))
    index = torch.randint(n, (b, 1 + k), generator=generator)
    x, bank = (torch.nn.functional.normalize(y, dim=1) for y in (x, bank))
    return x.to(dtype), bank.to(bank_dtype), index


def _extras(n, dtype):
    """log_normalizer and offset."""
    return torch.tensor(1.5, dtype=dtype), torch.linspace(-2, 2, n).to(dtype)


@pytest.mark.parametrize("extras", [False, True])
@pytest.mark.parametrize("bank_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_operator(dtype, bank_dtype, extras):
    work = reference.accumulate_dtype(dtype)
    for b, k, d in ((1, 1, 1), (7, 33, 17), (65, 20, 128), (3, 1000, 64)):
        x, bank, index = _problem(b, k, d, dtype=dtype, bank_dtype=bank_dtype)
        more = _extras(50, work) if extras else (None, None)
        wide = [None if y is None else y.double() for y in more]
        ours = ops.nce(x, bank, index, 14.0, -2.0, *more, True)
        exact = reference.nce(x.double(), bank.double(), index, 14.0, -2.0, *wide, True)
        for got, want in zip(ours, exact, strict=True):
            assert got.dtype == work
            # A few roundings of logits of 14 and of a sum of k of them.
            bound = 32 * torch.finfo(work).eps * (1 + want.abs().max())
            assert (got.double() - want).abs().max() <= bound
        loss, nothing = ops.nce(x, bank, index, 14.0, -2.0, *more, False)
        assert torch.equal(loss, ours[0]) and nothing.shape == (0, d)


@given(
    b=st.integers(1, 9), k=st.integers(1, 30), d=st.integers(1, 20), seed=st.integers(0, 999),
    temperature=st.floats(0.05, 2), z=st.floats(0.1, 1e4),
)  # fmt: skip
def test_the_line_of_the_docstring(b, k, d, seed, temperature, z):
    x, bank, index = _problem(b, k, d, seed=seed)
    x, bank = x.double(), bank.double()
    s = torch.einsum("bd,bkd->bk", F.unit_rows(x), bank[index]) / temperature
    p, c = s.exp() / z, k / len(bank)
    want = -(
        torch.log(p[:, 0] / (p[:, 0] + c + 1e-7)) + torch.log(c / (p[:, 1:] + c + 1e-7)).sum(1)
    ).mean()
    for normalizer in (z, torch.tensor(z, dtype=torch.float64)):
        loss = F.nce(x, bank, index, temperature=temperature, normalizer=normalizer)
        torch.testing.assert_close(loss, want, rtol=1e-9, atol=1e-9)
    # Uniform noise by name is uniform noise.
    noise = torch.full((len(bank),), 1 / len(bank)).double()
    loss = F.nce(x, bank, index, temperature=temperature, normalizer=z, noise=noise)
    torch.testing.assert_close(loss, want, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("temperature", [0.01, 0.005])
def test_probabilities_of_any_size(temperature):
    """exp(200) is no float32 number, and a logit of -400 has no probability."""
    x, bank, index = _problem(9, 20, 16)
    bank[index[:, 0]] = x
    x.requires_grad_()
    for z in (1e-30, 1.0, 1e30):
        loss = F.nce(x, bank, index, temperature=temperature, normalizer=z)
        (grad,) = torch.autograd.grad(loss, x)
        assert loss.isfinite() and grad.isfinite().all()


def test_normalizer():
    x, bank, _ = _problem(30, 1, 16)
    want = (x.double() @ bank.double().T / 0.07).exp().sum(1).mean()
    z = F.nce_normalizer(3 * x, bank)
    torch.testing.assert_close(z.double(), want, rtol=1e-5, atol=0)
    # What the first batch's noise estimates is this number.
    index = F.noise_indices(torch.arange(30), 50, 20_000)
    sampled = (torch.einsum("bd,bkd->bk", x, bank[index[:, 1:]]) / 0.07).exp().mean() * 50
    torch.testing.assert_close(z, sampled, rtol=0.02, atol=0)


def test_same_bits_twice():
    x, bank, index = _problem(300, 65, 64)
    first, second = (ops.nce(x, bank, index, 14.0, 0.0, None, None, True) for _ in "12")
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_double_backward_is_refused():
    x, bank, index = _problem(3, 4, 5)
    loss = F.nce(x.requires_grad_(), bank, index, normalizer=1.0)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, x, create_graph=True)


@pytest.mark.any_set
@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck(dtype):
    x, bank, index = _problem(3, 4, 5, dtype=dtype)
    log_normalizer, offset = _extras(50, reference.accumulate_dtype(dtype))
    torch.library.opcheck(ops.nce, (x, bank, index, 14.0, 0.5, log_normalizer, offset, True))
    torch.library.opcheck(ops.nce, (x, bank, index, 14.0, 0.5, None, None, False))


X, BANK, INDEX = _problem(4, 5, 3)


def _nce(**changes):
    arguments = {"x": X, "bank": BANK, "index": INDEX, "normalizer": 2.0, **changes}
    return lambda: F.nce(**arguments)


BAD = {
    "x": (_nce(x=X[0]), ValueError, "x must have 2 dimensions"),
    "width": (_nce(bank=BANK[:, :2]), ValueError, "bank must have the width of x, 3, got 2"),
    "gradient": (_nce(bank=BANK.clone().requires_grad_()), ValueError, "bank must not require"),
    "no noise": (_nce(index=INDEX[:, :1]), ValueError, r"shape \[4, 1 \+ K\].*got \[4, 1\]"),
    "rows": (_nce(index=INDEX[:2]), ValueError, r"index must have shape \[4, 6\], got \[2, 6\]"),
    "dtype": (_nce(index=INDEX.int()), TypeError, "index must be int64, got torch.int32"),
    "range": (_nce(index=INDEX + 45), ValueError, "index must be rows of bank, from 0 to 49"),
    "list": (_nce(index=[1]), TypeError, "index must be a tensor, got list"),
    "normalizer": (_nce(normalizer=0.0), ValueError, "normalizer must be .*above 0, got 0.0"),
    "normalizers": (_nce(normalizer=torch.ones(2)), ValueError, "normalizer must have one element"),
    "temperature": (_nce(temperature=-1.0), ValueError, "temperature must be finite and above 0"),
    "noise": (_nce(noise=torch.ones(3)), ValueError, r"noise must have shape \[50\], got \[3\]"),
    "inst_disc": (
        lambda: F.inst_disc(X, BANK, INDEX[:, 0] + 50), ValueError, "target must be rows of bank"
    ),
    "cmc": (
        lambda: F.cmc(X, X, BANK, BANK[1:], INDEX, normalizer_l=1.0, normalizer_ab=1.0),
        ValueError, "bank_ab must have as many rows as bank_l, 50, got 49",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.any_set
def test_no_large_buffer(monkeypatch):
    """A batch whose gathered rows would be 64 GB runs."""
    if not torch._C._dispatch_has_kernel_for_dispatch_key("fastcl::nce", "CPU"):
        pytest.skip("no compiled part: the reference forms [b, K, d]")
    bank = torch.nn.functional.normalize(torch.randn(4, 4096), dim=1)
    index = torch.randint(4, (1, 1 << 22))
    loss, dx = ops.nce(bank[:1], bank, index, 1.0, -math.log(4.0), None, None, True)
    assert loss.isfinite().all() and dx.isfinite().all()
