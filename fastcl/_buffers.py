"""Memory of batches that nobody holds any more, for the next ones."""

import weakref
from collections import deque

import numpy as np
import torch
from torch import Tensor

from ._library import ops

KEPT, SIZES = 8, 8  # pieces of a size that wait, and sizes, of which a ninth clears all


class Buffers:
    """Memory that is lent and comes back once no tensor of it lives: of fresh memory the system
    clears every page first. Empty where it is copied or sent to another process. From any thread:
    every step on the pieces that wait is one of the interpreter's.

    Args:
        pinned: Whether a GPU copies from it.
    """

    def __init__(self, pinned: bool = False) -> None:
        self.pinned = pinned
        self.free: dict[int, deque[np.ndarray]] = {}  # by their size

    def __reduce__(self) -> tuple[type, tuple[bool]]:
        return Buffers, (self.pinned,)

    def like(self, x: Tensor) -> Tensor:
        """As `x` is laid out, not filled."""
        memory, free = self._taken(x.nbytes)
        lent = memory[:]  # PyTorch holds it as long as any tensor of it lives
        weakref.finalize(lent, free.append, memory).atexit = False
        storage = torch.from_numpy(lent).untyped_storage()
        # Not a view of the bytes: what was made without gradients could not be changed with them.
        empty = torch.empty(0, dtype=x.dtype, device="cpu")
        return empty.set_(storage, 0, x.shape, x.stride())

    def _taken(self, size: int) -> tuple[np.ndarray, deque[np.ndarray]]:
        if size not in self.free and len(self.free) == SIZES:
            self.free = {}
        free = self.free.setdefault(size, deque(maxlen=KEPT))
        try:
            return free.pop(), free
        except IndexError:
            memory = torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=self.pinned)
            if not self.pinned:
                ops.large_pages_(memory)
            return memory.numpy(), free
