"""The momentum update as users have it: its module, graphs, and what bad input gets."""

import copy
import pickle

import pytest
import torch
from torch import nn

from fastcl._library import ops
from fastcl.momentum import Momentum, momentum_update_


def _equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


BAD = [
    (dict(momentum=1.5), ValueError, "momentum must be from 0 to 1, got 1.5"),
    (dict(momentum=float("nan")), ValueError, "momentum must be from 0 to 1, got nan"),
    (dict(momentum="0.9"), TypeError, "momentum must be a number or a tensor, got str"),
    (dict(momentum=torch.ones(2)), ValueError, "momentum must have one element"),
    (dict(momentum=torch.tensor(1)), TypeError, "momentum must be floating point"),
    (dict(online=[torch.ones(3)]), ValueError, "as many tensors as target, 2, got 1"),
    (dict(online=[torch.ones(3), torch.ones(3)]), ValueError, r"shape of target\[1\], \[2\]"),
    (dict(online=[torch.ones(3), 7]), TypeError, r"online\[1\] must be a tensor, got int"),
    (dict(online=torch.ones(2, 3)), TypeError, "online must be a list of tensors or a module"),
    (
        dict(online=[torch.ones(3), torch.ones(2, dtype=torch.int32)]),
        TypeError,
        "got torch.float32",
    ),
    (dict(online=[torch.ones(3), torch.ones(2, device="meta")]), ValueError, "device of target"),
    (dict(seed=3), TypeError, "seed must be a tensor, got int"),
    (dict(seed=torch.zeros(())), TypeError, "seed must be int64"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input_changes_nothing(change, error, message):
    target = [torch.zeros(3), torch.zeros(2)]
    arguments = dict(target=target, online=[torch.ones(3), torch.ones(2)], momentum=0.5) | change
    with pytest.raises(error, match=message):
        momentum_update_(**arguments)
    assert _equal(target, [torch.zeros(3), torch.zeros(2)])


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))


@pytest.mark.parametrize("rule", ("own", "copy", "average"))
def test_module(rule):
    online = _network()
    slow = Momentum(online, momentum=0.75, buffers=rule)
    old = copy.deepcopy(online)
    assert not any(p.requires_grad for p in slow.parameters())
    assert set(slow.state_dict()) == {"seed"} | {f"module.{k}" for k in online.state_dict()}
    with torch.no_grad():
        for p in online.parameters():
            p.add_(1)
    online(torch.randn(4, 2, 8, 8))
    slow.update()
    for new, before, now in zip(
        slow.module.parameters(), old.parameters(), online.parameters(), strict=True
    ):
        torch.testing.assert_close(new, torch.lerp(before, now, 0.25))
    weight = {"own": 0.0, "copy": 1.0, "average": 0.25}[rule]
    mean = slow.module[1].running_mean
    torch.testing.assert_close(
        mean, torch.lerp(old[1].running_mean, online[1].running_mean, weight)
    )
    assert int(slow.module[1].num_batches_tracked) == (0 if rule == "own" else 1)
    slow.update(momentum=0.0)
    assert _equal(slow.module.parameters(), online.parameters())
    out = slow(torch.randn(4, 2, 8, 8))
    assert not out.requires_grad and int(slow.module[1].num_batches_tracked) in (1, 2)


def test_module_states():
    online = _network().bfloat16()
    slow = Momentum(online)
    slow.update()
    assert int(slow.seed) == 1
    twin = Momentum(_network().bfloat16())
    twin.load_state_dict(slow.state_dict())
    for each in (slow, twin):
        each.update(online, torch.tensor(0.9, dtype=torch.float64))
    assert _equal(slow.module.parameters(), twin.module.parameters())
    pickle.loads(pickle.dumps(slow)).update()
    both = copy.deepcopy(nn.ModuleDict({"online": online, "slow": slow}))
    assert both["slow"]._online[0] is both["online"]  # the copy follows the copy
    with pytest.raises(ValueError, match="buffers must be one of own, copy, average, got 'ema'"):
        Momentum(online, buffers="ema")
    with pytest.raises(ValueError, match="momentum must be from 0 to 1"):
        Momentum(online, momentum=2.0)
    with pytest.raises(TypeError, match="module must be a torch.nn.Module"):
        Momentum([1])
    with pytest.raises(ValueError, match="as many tensors"):
        slow.update(nn.Linear(2, 2))


def test_a_backward_over_old_values_fails():
    t, x = torch.ones(3), torch.ones(3, requires_grad=True)
    y = (t * x).sum()
    momentum_update_([t], [torch.zeros(3)], 0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_opcheck():
    online = [torch.randn(3), torch.randn(5)]
    for into, seed in ((torch.float32, None), (torch.bfloat16, torch.tensor(5))):
        target = [torch.randn_like(x, dtype=into) for x in online]
        for tensor in (None, torch.tensor(0.5)):
            arguments = (target, online, 0.9, tensor, seed)
            torch.library.opcheck(ops.momentum_update_.default, arguments)


def test_compiles_as_one_graph():
    online = _network()
    slow, want = Momentum(online), copy.deepcopy(online)
    with torch.no_grad():
        for p in online.parameters():
            p.add_(1)
    step = torch.compile(lambda m: slow.update(momentum=m), fullgraph=True, backend="aot_eager")
    step(torch.tensor(0.5))
    momentum_update_(want, online, 0.5)
    assert _equal(slow.module.parameters(), want.parameters())
