"""fastcl.compat.lightly against the installed library: value, gradients, state, errors."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peers import DTYPES, SHAPES, TEMPERATURES, both, budgets, peer, rows


@pytest.mark.parametrize("name", ["NTXentLoss", "DCLLoss", "DCLWLoss"])
@given(t=TEMPERATURES, dtype=DTYPES, negative=st.booleans(), **SHAPES)
def test_lightly_views(name, n, d, seed, t, dtype, negative):
    ours, theirs = both("lightly")
    torch.manual_seed(seed)
    t = -t if negative else t
    losses = [getattr(m, name)(temperature=t) for m in (ours, theirs)]
    budgets(*losses, rows(n, d, dtype, "out0", "out1"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lightly_in_16_bits(dtype):
    ours, theirs = both("lightly")
    for name in ("NTXentLoss", "DCLLoss"):
        budgets(getattr(ours, name)(), getattr(theirs, name)(), rows(8, 5, dtype, "out0", "out1"))


@given(d=st.integers(1, 9), seed=st.integers(0, 2**31 - 1), dtype=DTYPES)
def test_lightly_cosine_and_weights(d, seed, dtype):
    ours, theirs = both("lightly")
    torch.manual_seed(seed)
    losses = [m.NegativeCosineSimilarity() for m in (ours, theirs)]
    budgets(*losses, rows(6, d, dtype, "x0", "x1"))
    weights = peer("lightly.loss.dcl_loss").negative_mises_fisher_weights
    pair = list(rows(6, d, dtype, "a", "b").values())
    torch.testing.assert_close(ours.negative_mises_fisher_weights(*pair, 0.7), weights(*pair, 0.7))


@pytest.mark.parametrize("size", [(7, 4), 0])
@pytest.mark.parametrize("first", [True, False])
def test_lightly_memory_bank(size, first):
    ours, theirs = both("lightly")[0], peer("lightly.models.modules.memory_bank")
    banks = []
    for module in (ours, theirs):
        torch.manual_seed(0)
        banks.append(module.MemoryBankModule(size, feature_dim_first=first))
    for n in (3, 4, 2, 9):
        x, labels = torch.randn(n, 4), torch.arange(n)
        for update in (False, True):
            results = [bank(x, labels, update=update) for bank in banks]
            assert (results[0][1] is None) == (results[1][1] is None)
            torch.testing.assert_close(results[0][0], results[1][0])
            if results[0][1] is not None:
                torch.testing.assert_close(results[0][1], results[1][1])


def test_lightly_weights_and_single_pair():
    ours, theirs = both("lightly")

    def weight(a, b):
        return ((a - b) ** 2).sum(1)

    tensors = rows(6, 4, torch.float64, "out0", "out1")
    budgets(ours.DCLLoss(weight_fn=weight), theirs.DCLLoss(weight_fn=weight), tensors)
    single = rows(1, 4, torch.float64, "out0", "out1")
    for name, value in (("NTXentLoss", 0.0), ("DCLLoss", -torch.inf)):
        for module in (ours, theirs):
            assert getattr(module, name)()(**single).item() == value


@given(t=TEMPERATURES, size=st.integers(1, 20), seed=st.integers(0, 2**31 - 1))
def test_lightly_bank(t, size, seed):
    """The same random bank, read before it is written, the tail of a batch dropped."""
    ours, theirs = both("lightly")
    losses = []
    for module in (ours, theirs):
        torch.manual_seed(seed)
        losses.append(module.NTXentLoss(t, memory_bank_size=(size, 5)))
        assert losses[-1].state_dict() == {}
    for n in (3, 4, 7, 2):
        tensors = rows(n, 5, torch.float32, "out0", "out1")
        results = []
        for loss in losses:
            inputs = [x.clone().requires_grad_() for x in tensors.values()]
            value = loss(*inputs)
            value.backward()
            results.append((value.detach(), *(x.grad for x in inputs)))
            loss(*tensors.values())  # without gradient nothing is enqueued
        torch.testing.assert_close(*results)
        banks = [loss.memory_bank for loss in losses]
        torch.testing.assert_close(banks[0].bank, banks[1].bank)
        assert torch.equal(banks[0].bank_ptr, banks[1].bank_ptr)


@given(seed=st.integers(0, 2**31 - 1), iterations=st.integers(0, 4), queue=st.booleans())
def test_lightly_swav(seed, iterations, queue):
    ours, theirs = both("lightly")
    torch.manual_seed(seed)
    crops = rows(6, 5, torch.float64, "a", "b", "c")
    older = [torch.randn(4, 5, dtype=torch.float64) for _ in "ab"] if queue else None
    losses = [m.SwaVLoss(0.3, iterations, 0.5) for m in (ours, theirs)]
    budgets(*(lambda a, b, c, f=f: f([a, b], [c], older) for f in losses), crops)
    assert losses[0]([crops["a"], crops["b"]], []).shape == (1,)


def test_lightly_errors_and_momentum():
    ours, theirs = both("lightly")
    for module in (ours, theirs):
        with pytest.raises(ValueError, match="Illegal temperature"):
            module.NTXentLoss(temperature=0)
        for size in (-1, (1, 2, 3), (-1, 4)):
            with pytest.raises(ValueError, match="Illegal memory bank size"):
                module.NTXentLoss(memory_bank_size=size)
    with pytest.warns(UserWarning, match="does not specify the feature dimension"):
        loss = ours.NTXentLoss(memory_bank_size=7)
    loss(*(x.requires_grad_() for x in rows(3, 4, torch.float32, "a", "b").values()))
    assert loss.memory_bank.bank.shape == (7, 4) and int(loss.memory_bank.bank_ptr) == 3
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    slow = [copy.deepcopy(model) for _ in "12"]
    for p in model.parameters():
        torch.nn.init.normal_(p)
    ours.update_momentum(model, slow[0], 0.9)
    peer("lightly.models.utils").update_momentum(model, slow[1], 0.9)
    for a, b in zip(slow[0].parameters(), slow[1].parameters(), strict=True):
        torch.testing.assert_close(a, b)
