"""stand-in until the real one lands"""

import torch
from torch import nn


def queue_push_(queue, pointer, rows):
    torch.ops.fastcl.queue_push_(queue, pointer, rows)


class Queue(nn.Module):
    def __init__(self, size, width):
        super().__init__()
        self.register_buffer("rows", nn.functional.normalize(torch.randn(size, width), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    def push(self, rows):
        queue_push_(self.rows, self.pointer, rows.detach())
