"""Memory banks of the losses in fastcl.compat: whose they are, and when they are written."""

import copy

import pytest
import torch
import torch.nn.functional as F
from peers import both, peer, rows
from torch import nn

from fastcl.compat import _lightly_bank, lightly


def test_a_bank_is_not_written_without_gradient():
    loss = lightly.NTXentLoss(memory_bank_size=(7, 5))
    before = loss.memory_bank.bank.clone()
    a, b = (x.requires_grad_() for x in rows(3, 5, torch.float32, "a", "b").values())
    with torch.no_grad():
        loss(a, b)
    assert torch.equal(loss.memory_bank.bank, before) and int(loss.memory_bank.bank_ptr) == 0
    loss(a, b)
    assert int(loss.memory_bank.bank_ptr) == 3


class Scaled(lightly.MemoryBankModule):
    """Rows of any length, and twice the keys."""

    def forward(self, output, labels=None, update=False):
        output, bank = super().forward(output, labels, update)
        return 2 * output, None if bank is None else 30 * bank


@pytest.mark.parametrize("size", [(7, 5), 0])
def test_a_bank_of_ones_own_is_called(size):
    loss = lightly.NTXentLoss(0.2)
    loss.memory_bank = Scaled(size)
    bank = loss.memory_bank.bank.clone()
    a, b = (x.requires_grad_() for x in rows(4, 5, torch.float32, "a", "b").values())
    q, k = F.normalize(a, dim=1), 2 * F.normalize(b, dim=1)
    if size:
        s = torch.cat([(q * k).sum(1, keepdim=True), q @ (30 * bank).T], 1) / 0.2
        want = F.cross_entropy(s, torch.zeros(4, dtype=torch.long))
    else:
        off = ~torch.eye(4, dtype=torch.bool)
        halves = [torch.cat([x @ y.T, (x @ x.T)[off].view(4, 3)], 1) for x, y in ((q, k), (k, q))]
        want = F.cross_entropy(torch.cat(halves) / 0.2, torch.arange(4).repeat(2))
    value = loss(a, b)
    torch.testing.assert_close(value, want)
    gradients = [torch.autograd.grad(x, (a, b)) for x in (value, want)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["MemoryBankModule", "NNMemoryBankModule", "subclass"])
def test_the_librarys_banks(kind):
    """Value, gradients and the bank of the library, over several steps."""
    ours, theirs = both("lightly")
    home = peer("lightly.models.modules.memory_bank").MemoryBankModule

    class Own(home):
        def forward(self, output, labels=None, update=False):
            output, bank = super().forward(output, labels, update)
            return output, 3 * bank

    neighbours = peer("lightly.models.modules").NNMemoryBankModule
    cls = {"MemoryBankModule": home, "NNMemoryBankModule": neighbours, "subclass": Own}[kind]
    bank = cls((7, 5))
    losses = [module.NTXentLoss(0.2) for module in (ours, theirs)]
    for loss in losses:
        loss.memory_bank = copy.deepcopy(bank)
        if kind == "NNMemoryBankModule":  # returns the neighbours alone
            forward = loss.memory_bank.forward
            loss.memory_bank.forward = lambda x, update=False, f=forward: (f(x, update), None)
    for n in (3, 4, 7, 2):
        tensors, results = rows(n, 5, torch.float32, "a", "b").values(), []
        for loss in losses:
            a, b = (x.clone().requires_grad_() for x in tensors)
            value = loss(a, b)
            results.append((value.detach(), *torch.autograd.grad(value, (a, b), allow_unused=True)))
        torch.testing.assert_close(*results)
        torch.testing.assert_close(losses[0].memory_bank.bank, losses[1].memory_bank.bank)


@pytest.mark.parametrize("name", ["NTXentLoss", "SupConLoss"])
def test_a_cross_batch_memory_twice_before_the_backward(name):
    ours, theirs = both("pytorch_metric_learning")
    x = rows(8, 5, torch.float64, "x")["x"]
    labels, results = torch.arange(8) // 2, []
    for module in (ours, theirs):
        z = nn.Parameter(x.clone())
        memory = module.CrossBatchMemory(getattr(module, name)(), 5, 12)
        value = sum(memory(z * step, labels) for step in (1.0, 0.5, 2.0))
        value.backward()
        results.append((value.detach(), z.grad))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("chunk", [1, 400, 1 << 24])
def test_nearest_rows_of_a_bank(chunk, monkeypatch):
    """Those of the library, over parts of one row, of some and of all; rows of any length."""
    monkeypatch.setattr(_lightly_bank, "CHUNK", chunk)
    theirs, banks = peer("lightly.models.modules"), []
    for module in (lightly, theirs):
        torch.manual_seed(0)
        banks.append(module.NNMemoryBankModule((13, 5)))
    for n in (3, 4, 13, 2, 1):
        x = 10 * rows(n, 5, torch.float32, "x")["x"].requires_grad_()
        for update in (False, True):
            ours, original = (bank(x, update=update) for bank in banks)
            assert torch.equal(ours, original) and not ours.requires_grad
            assert torch.equal(banks[0].bank, banks[1].bank)
            assert int(banks[0].bank_ptr) == int(banks[1].bank_ptr)


def test_of_equal_rows_the_first_is_the_nearest(monkeypatch):
    monkeypatch.setattr(_lightly_bank, "CHUNK", 8 * 3 * 4)  # parts of three rows
    x = F.normalize(torch.randn(8, 4), dim=1)
    bank = torch.cat([-x, x, x])
    assert torch.equal(_lightly_bank.nearest(x, bank), 8 + torch.arange(8))
    # Rows that are all away from x have a nearest one too, and a bank of zeros has the first.
    assert _lightly_bank.nearest(x[:1], -x[:1] * torch.tensor([[3.0], [1.0]])).item() == 0
    assert not _lightly_bank.nearest(x, torch.zeros(9, 4)).any()


def test_nearest_rows_of_16_bits_and_of_no_bank():
    bank = lightly.NNMemoryBankModule((7, 5))
    near = bank.bank[[3, 1]].clone()
    x = near.bfloat16()
    assert torch.equal(bank(x, update=True), near)
    assert torch.equal(bank.bank[:2], x.float()) and int(bank.bank_ptr) == 2
    with pytest.raises(ValueError, match="size must be 1 or more for nearest neighbours, got 0"):
        lightly.NNMemoryBankModule(0)(x)
