"""Twins of FSDP2-sharded networks: every rank moves its own shards."""

import pytest
import torch
from gloo import spawn
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import fastcl
from fastcl import methods
from fastcl.compat import lightly

WIDTH, ROWS = 6, 4


def _network():
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH + 1))


def _whole(module):
    return [p.full_tensor() if hasattr(p, "full_tensor") else p for p in module.parameters()]


def _moved(network):
    """Weights that a step of training might leave."""
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.5)


def _momentum(rank):
    mesh = init_device_mesh("cpu", (2,))
    for dtype in (torch.float32, torch.bfloat16):
        online = _network().to(dtype)
        twin = fastcl.Momentum(online, momentum=0.75)
        want = [p.detach().clone() + 0.125 for p in online.parameters()]
        for module in (online, twin.module):
            fully_shard(module[0], mesh=mesh)
            fully_shard(module, mesh=mesh)
        x = torch.randn(ROWS, WIDTH).to(dtype)
        online(x).sum().backward()
        twin(x)  # gathers the weights; what moves is the shards
        _moved(online)
        twin.update()
        tolerance = {} if dtype == torch.float32 else {"rtol": 2**-7, "atol": 2**-7}
        torch.testing.assert_close(_whole(twin.module), want, **tolerance)
        twin(x)  # gathers them again
        torch.testing.assert_close(_whole(twin.module), want, **tolerance)


def _function_and_lightly(rank):
    mesh = init_device_mesh("cpu", (2,))
    for update in (
        fastcl.functional.momentum_update_,
        lambda t, o, m: lightly.update_momentum(o, t, m),
    ):
        online, target = _network(), _network()
        want = [p.detach().clone() + 0.125 for p in online.parameters()]
        for module in (online, target):
            fully_shard(module, mesh=mesh)
        _moved(online)
        update(target, online, 0.75)
        torch.testing.assert_close(_whole(target), want)


def _one_side_alone(rank):
    mesh = init_device_mesh("cpu", (2,))
    online, target = _network(), _network()
    fully_shard(online, mesh=mesh)
    with pytest.raises(ValueError, match=r"online\[0\] must be sharded as target\[0\].*whole"):
        fastcl.functional.momentum_update_(target, online, 0.5)
    with pytest.raises(ValueError, match="module must be whole"):
        fastcl.Momentum(online)


METHODS = {
    "moco": lambda net: methods.MoCo(net, width=WIDTH + 1, dim=4, queue_size=16, momentum=0.75),
    "moco_v3": lambda net: methods.MoCoV3(net, width=WIDTH + 1, hidden=8, dim=4, momentum=0.75),
    "byol": lambda net: methods.BYOL(net, width=WIDTH + 1, hidden=8, dim=4, momentum=0.75),
}


def _methods(rank):
    """Two steps of the sharded method move its twin as the rule says."""
    mesh = init_device_mesh("cpu", (2,))
    for name, make in METHODS.items():
        torch.manual_seed(0)
        method = make(_network())
        parts = [method.backbone, method.head, *method.target.module]
        for part in parts:
            fully_shard(part, mesh=mesh)
        fully_shard(method, mesh=mesh)
        optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
        online = nn.Sequential(method.backbone, method.head)
        for _ in range(2):
            method(*torch.randn(2, ROWS, WIDTH)).backward()
            optimizer.step()
            optimizer.zero_grad()
            before = [x.clone() for x in _whole(method.target)]
            method.update()
            want = [0.75 * t + 0.25 * o for t, o in zip(before, _whole(online), strict=True)]
            torch.testing.assert_close(_whole(method.target), want, msg=name)
            assert any(not torch.equal(a, b) for a, b in zip(before, want, strict=True))


@pytest.mark.parametrize("check", [_momentum, _function_and_lightly, _one_side_alone, _methods])
def test_two_ranks(check, tmp_path):
    spawn(check, 2, tmp_path)
