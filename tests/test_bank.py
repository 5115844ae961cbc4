"""The bank against a loop over rows, its module, its noise, and what bad input gets."""

import pytest
import torch
import torch.nn.functional as nnf
from hypothesis import given, settings
from hypothesis import strategies as st

import fastcl
import fastcl.functional as F
from fastcl import reference
from fastcl._library import ops

pytestmark = pytest.mark.instruction_sets

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
KERNELS = pytest.mark.parametrize(
    "update", (reference.bank_update_, ops.bank_update_), ids=("reference", "compiled")
)


def _problem(n, b, d, seed=0, into=torch.float32, source=torch.float32):
    torch.manual_seed(seed)
    bank = nnf.normalize(torch.randn(n, d), dim=1).to(into)
    x = nnf.normalize(torch.randn(b, d), dim=1).to(source)
    return bank, torch.randint(n, (b,)), x


def _one_by_one(bank, index, x, momentum):
    """Row by row in float64, always from the bank before."""
    after = bank.double()
    for i, row in zip(index.tolist(), x.double(), strict=True):
        mixed = momentum * bank[i].double() + (1 - momentum) * row
        after[i] = mixed / mixed.norm().clamp(min=1e-12)
    return after


@KERNELS
@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 9), b=st.integers(1, 40), d=st.integers(2, 20), seed=st.integers(0, 999),
    momentum=st.sampled_from((0.0, 0.3, 0.5, 0.99, 1.0)),
)  # fmt: skip
def test_last_wins_and_rows_are_unit(update, n, b, d, seed, momentum):
    bank, index, x = _problem(n, b, d, seed)
    want, before = _one_by_one(bank, index, x, momentum), bank.clone()
    update(bank, index, x, momentum)
    # A sum near zero has few digits left, and its direction with it.
    mixed = (momentum * before[index] + (1 - momentum) * x).norm(dim=1)
    torch.testing.assert_close(bank.double(), want, rtol=0, atol=1e-6 / mixed.min().clamp(1e-9))
    untouched = torch.ones(n, dtype=torch.bool)
    untouched[index] = False
    assert torch.equal(bank[untouched], before[untouched])
    torch.testing.assert_close(bank.norm(dim=1), torch.ones(n))


@KERNELS
@pytest.mark.parametrize("into", DTYPES)
@pytest.mark.parametrize("source", DTYPES)
def test_every_pair_of_dtypes(update, into, source):
    bank, index, x = _problem(50, 33, 129, into=into, source=source)
    want = _one_by_one(bank, index, x, 0.5)
    update(bank, index, x, 0.5)
    work = torch.float64 if into == torch.float64 else torch.float32
    bound = torch.finfo(into).eps / 2 * want.abs() + 8 * torch.finfo(work).eps
    if into == torch.float16:
        bound = bound + 2.0**-25  # half of its smallest number
    assert ((bank.double() - want).abs() <= bound).all()


@KERNELS
def test_a_large_batch_of_duplicates(update):
    """5000 rows take several threads, which write to 100 rows of the bank."""
    bank, index, x = _problem(100, 5000, 16)
    want = _one_by_one(bank, index, x, 0.5)
    update(bank, index, x, 0.5)
    torch.testing.assert_close(bank.double(), want, rtol=0, atol=1e-5)


@KERNELS
def test_a_row_of_zeros_and_of_nan(update):
    bank, x = torch.zeros(3, 4), torch.zeros(2, 4)
    x[1] = torch.nan
    update(bank, torch.tensor([0, 2]), x, 0.5)
    assert torch.equal(bank[:2], torch.zeros(2, 4)) and bank[2].isnan().all()


def test_the_line_of_the_docstring():
    bank, index, x = _problem(9, 4, 5)
    index, x = torch.tensor([3, 0, 8, 2]), 2.5 * x
    want = bank.clone()
    want[index] = F.unit_rows(0.4 * bank[index] + 0.6 * F.unit_rows(x))
    F.bank_update_(bank, index, x, momentum=0.4)
    torch.testing.assert_close(bank, want)


def test_strided_tensors_and_gradients():
    base = torch.zeros(6, 10)
    x = torch.randn(4, 3, requires_grad=True)
    index = torch.arange(8)[::2]
    F.bank_update_(base[:, 2:5], index[:3], x[:3])
    assert base[:, :2].count_nonzero() == 0 and not base.requires_grad
    torch.testing.assert_close(base[index[:3], 2:5], nnf.normalize(x.detach()[:3], dim=1))
    bank, _, rows = _problem(5, 2, 3)
    F.bank_update_(bank, torch.tensor([1, 4]), rows.T.contiguous().T)
    torch.testing.assert_close(bank.norm(dim=1), torch.ones(5))


def test_a_backward_over_old_rows_fails():
    bank = fastcl.Bank(4, 3)
    q = torch.randn(2, 3, requires_grad=True)
    loss = (q @ bank.rows.T).sum()
    bank.update(torch.tensor([0, 1]), torch.randn(2, 3))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_nce_does_not_need_the_old_rows():
    """Its gradient is finished in the forward, so the bank may move before the backward."""
    bank, x = fastcl.Bank(9, 3), torch.randn(2, 3, requires_grad=True)
    index = F.noise_indices(torch.tensor([4, 7]), 9, 5)
    loss = F.nce(x, bank.rows, index, normalizer=3.0)
    (want,) = torch.autograd.grad(loss, x, retain_graph=True)
    bank.update(index[:, 0], x)
    (got,) = torch.autograd.grad(loss, x)
    assert torch.equal(got, want)


A = torch.randn(4, 3)
BAD = [
    (dict(bank=A[0]), ValueError, "bank must have 2 dimensions"),
    (dict(bank=A.long()), TypeError, "bank must be float16.*int64"),
    (dict(bank=A.clone().requires_grad_()), ValueError, "bank must not require a gradient"),
    (dict(bank=torch.zeros(4, 2)), ValueError, "bank must have the width of x, 3, got 2"),
    (dict(index=torch.zeros(2)), TypeError, "index must be int64, got torch.float32"),
    (dict(index=torch.tensor([0])), ValueError, r"index must have shape \[2\], got \[1\]"),
    (
        dict(index=torch.tensor([0, 4])),
        ValueError,
        "must be rows of bank, from 0 to 3, got 4",
    ),
    (dict(index=torch.tensor([-1, 0])), ValueError, "from 0 to 3, got -1"),
    (dict(x=torch.zeros(0, 3)), ValueError, "x must not be empty"),
    (dict(x=torch.zeros(2, 3, device="meta")), ValueError, "bank must be on the device of x, meta"),
    (dict(momentum=1.5), ValueError, "momentum must be from 0 to 1, got 1.5"),
    (dict(momentum=float("nan")), ValueError, "momentum must be finite, got nan"),
    (dict(momentum="half"), TypeError, "momentum must be a number, got str"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input_changes_nothing(change, error, message):
    arguments = dict(bank=torch.randn(4, 3), index=torch.tensor([0, 2]), x=torch.randn(2, 3))
    arguments |= change
    before = arguments["bank"].detach().clone()
    with pytest.raises(error, match=message):
        F.bank_update_(**arguments)
    assert torch.equal(arguments["bank"], before)


def test_bad_module():
    for arguments, error in (((0, 3), ValueError), ((4, 0), ValueError), ((2.0, 3), TypeError)):
        with pytest.raises(error):
            fastcl.Bank(*arguments)
    for options, error, message in (
        (dict(fill="empty"), ValueError, "fill must be one of random, uniform, got 'empty'"),
        (dict(dtype=torch.int64), TypeError, "dtype must be floating point"),
        (dict(momentum=-0.1), ValueError, "momentum must be from 0 to 1, got -0.1"),
    ):
        with pytest.raises(error, match=message):
            fastcl.Bank(4, 3, **options)


def test_fills_are_reproducible_and_leave_the_generator():
    state = torch.get_rng_state()
    unit, uniform = fastcl.Bank(500, 8), fastcl.Bank(500, 8, fill="uniform")
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(unit.rows.norm(dim=1), torch.ones(500))
    bound = 1 / (8 / 3) ** 0.5
    assert uniform.rows.abs().max() <= bound and uniform.rows.abs().max() > 0.99 * bound
    assert torch.equal(fastcl.Bank(500, 8).rows, unit.rows)
    half = fastcl.Bank(500, 8, dtype=torch.bfloat16)
    assert torch.equal(half.rows, unit.rows.bfloat16()) and "500, 8, momentum=0.5" in repr(half)


def test_saved_and_loaded_in_place():
    bank, twin = fastcl.Bank(7, 2), fastcl.Bank(7, 2, fill="uniform")
    where = bank.rows.data_ptr()
    bank.update(torch.tensor([1, 1, 5]), torch.randn(3, 2))
    twin.load_state_dict(bank.state_dict())
    assert torch.equal(bank.rows, twin.rows) and bank.rows.data_ptr() == where
    assert torch.equal(bank(torch.tensor([[5, 1]])), bank.rows[torch.tensor([[5, 1]])])


@pytest.mark.any_set
def test_opcheck():
    for dtype in (torch.float32, torch.bfloat16):
        bank, index, x = _problem(5, 7, 3, into=dtype)
        torch.library.opcheck(ops.bank_update_.default, (bank, index, x, 0.5))


def test_compiles_as_one_graph():
    bank = fastcl.Bank(5, 2)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(index, x):
        bank.update(index, x)
        return bank(index)

    rows = step(torch.tensor([0, 3]), torch.ones(2, 2))
    assert torch.equal(rows, bank.rows[[0, 3]])
    assert (rows > 0).any()
