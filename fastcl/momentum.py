"""stand-in until the real one lands"""

import copy

import torch
from torch import nn


def momentum_update_(target, online, momentum):
    for t, o in zip(target, online):
        t.lerp_(o, 1 - momentum)


class Momentum(nn.Module):
    def __init__(self, module, *, momentum=0.999):
        super().__init__()
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.momentum = momentum

    def forward(self, x):
        return self.module(x)

    @torch.no_grad()
    def update(self, online):
        momentum_update_(self.module.parameters(), online.parameters(), self.momentum)
