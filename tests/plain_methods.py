"""Whole methods in plain PyTorch, in the order of the papers' algorithm boxes."""

import copy

import plain
import torch
from torch import nn


class SimCLR:
    """Chen et al. 2020, algorithm 1."""

    def __init__(self, network: nn.Module, temperature: float) -> None:
        self.network, self.temperature = network, temperature

    def loss(self, view1, view2):
        z1, z2 = self.network(torch.cat([view1, view2])).chunk(2)
        return plain.nt_xent(z1, z2, temperature=self.temperature)


class MoCo:
    """He et al. 2020, algorithm 1, with the queue as a list of rows, oldest first."""

    def __init__(self, network: nn.Module, queue, momentum: float, temperature: float) -> None:
        self.network, self.target = network, copy.deepcopy(network)
        self.queue = list(queue)
        self.size, self.momentum, self.temperature = len(queue), momentum, temperature

    def loss(self, view1, view2):
        q = self.network(view1)
        with torch.no_grad():
            for t, o in zip(self.target.parameters(), self.network.parameters(), strict=True):
                t.copy_(self.momentum * t + (1 - self.momentum) * o)
            k = self.target(view2)
        loss = plain.moco(q, k, torch.stack(self.queue), temperature=self.temperature)
        self.queue = (self.queue + list(plain.unit(k)))[-self.size :]
        return loss
