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


@given(
    high=st.integers(1, 3), low=st.integers(0, 3), queue=st.sampled_from([0, 1, 9]),
    iterations=st.integers(-1, 4), epsilon=st.floats(0.2, 2.0), t=TEMPERATURES,
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]), **SHAPES,
)  # fmt: skip
def test_lightly_swav(high, low, queue, iterations, epsilon, t, dtype, n, d, seed):
    """Any crops, of 16 bits too, with a queue and without."""
    if high + low < 2:
        low = 1
    ours, theirs = both("lightly")
    torch.manual_seed(seed)
    crops = rows(n, d, dtype, *(f"crop{i}" for i in range(high + low)))
    older = [torch.randn(queue, d).to(dtype) for _ in range(high)] if queue else None

    def on(loss):
        def function(**inputs):
            views, narrow = list(inputs.values()), next(iter(inputs.values())).dtype
            rest = None if older is None else [x.to(narrow) for x in older]
            return loss(views[:high], views[high:], rest)

        return function

    losses = [m.SwaVLoss(t, iterations, epsilon) for m in (ours, theirs)]
    budgets(*map(on, losses), crops)


def test_lightly_swav_corners():
    """What the original does with what it was not made for."""
    ours, theirs = both("lightly")
    crops = list(rows(6, 5, torch.float32, "a", "b").values())
    for module in (ours, theirs):
        loss = module.SwaVLoss()
        assert loss(crops, []).shape == (1,)
        assert loss(crops[:1], []).isnan().all()  # no other crop: 0 / 0
        assert loss([x[:0] for x in crops], []).isnan().all()  # the mean over no sample
        with pytest.raises(IndexError):
            loss([], crops)
        with pytest.raises(IndexError):
            loss(crops, [], [crops[0]])
        with pytest.raises(RuntimeError):
            loss(crops, [crops[0][:4]])  # samples of the crops differ


@given(t=TEMPERATURES, negative=st.booleans(), trained=st.booleans(), dtype=DTYPES, **SHAPES)
def test_lightly_swav_part(t, negative, trained, dtype, n, d, seed):
    """subloss, with a gradient for the assignment where it wants one, which fastcl leaves to
    PyTorch; and in a subclass that replaces it."""
    ours, theirs = both("lightly")
    torch.manual_seed(seed)
    z = rows(n, d, dtype, "z")
    q = {"q": torch.randn(n, d, dtype=dtype).softmax(1)}
    tensors = {**z, **(q if trained else {})}

    def on(module):
        loss = module.SwaVLoss(-t if negative else t)
        return lambda z, q=q["q"]: loss.subloss(z, q.to(z.dtype))

    budgets(on(ours), on(theirs), tensors)
    crops, values = list(rows(n, d, dtype, "a", "b", "c").values()), []
    for module in (ours, theirs):

        class Squared(module.SwaVLoss):
            def subloss(self, z, q):
                return ((z - q) ** 2).mean()

        values.append(Squared(sinkhorn_epsilon=0.5)(crops[:1], crops[1:]))
    torch.testing.assert_close(*values)


@given(iterations=st.integers(-1, 4), epsilon=st.floats(0.2, 2.0), dtype=DTYPES, **SHAPES)
def test_lightly_sinkhorn(iterations, epsilon, dtype, n, d, seed):
    ours, theirs = both("lightly")[0], peer("lightly.loss.swav_loss")
    torch.manual_seed(seed)
    out = rows(n, d, dtype, "out")["out"].requires_grad_()
    values = [m.sinkhorn(out, iterations, epsilon) for m in (ours, theirs)]
    assert not values[0].requires_grad
    torch.testing.assert_close(*values)


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
