"""DistributedDataParallel with a static graph: reentrant checkpoints do not change gradients, and
the cached step, which takes several backwards per step, refuses it."""

import pytest
import torch
from gloo import spawn
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import fastcl
from fastcl import distributed as D
from fastcl import functional as F


class _Network(nn.Module):
    def __init__(self, saves):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.last = nn.Linear(5, 8).double(), nn.Linear(8, 4).double()
        self.saves = saves

    def _end(self, x):
        return self.last(x.relu())

    def forward(self, x):
        x = self.first(x)
        return checkpoint(self._end, x, use_reentrant=True) if self.saves else self._end(x)


def _gradients(rank, loss, saves, static):
    network = _Network(saves)
    wrapped = DistributedDataParallel(network, static_graph=static)
    for step in range(2):
        network.zero_grad()
        torch.manual_seed(10 * step + rank)
        loss(*(wrapped(x) for x in torch.randn(2, 3, 5, dtype=torch.float64))).backward()
    return [p.grad for p in network.parameters()]


def _checkpoints(rank):
    for loss in (F.nt_xent, F.info_nce, D.nt_xent, D.info_nce):
        want = _gradients(rank, loss, False, False)
        torch.testing.assert_close(_gradients(rank, loss, True, True), want)


def _cached(rank):
    wrapped = DistributedDataParallel(_Network(False), static_graph=True)
    x = torch.randn(4, 5, dtype=torch.float64)
    for encoder in (wrapped, lambda x: wrapped(x)):
        with pytest.raises(ValueError, match="static_graph"):
            fastcl.cached_step([encoder] * 2, [x, x], F.nt_xent, chunk_size=2)


@pytest.mark.parametrize("check", [_checkpoints, _cached])
def test_two_ranks(check, tmp_path):
    spawn(check, 2, tmp_path)
