"""What a rank holds at its peak, forward and backward, by the number of ranks."""

import weakref
from types import SimpleNamespace

import pytest
import torch
from distributed_cases import LOSSES, batch, of_rank
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from fastcl.distributed import _plan


class LoneRank:
    """The first of many ranks, without the others: zeros come from them, in tensors of the shapes
    that they would have. Its memory is right, its values are not."""

    def __init__(self, size):
        self.size, self.rank = size, 0

    def share(self, numbers, device):
        return [list(numbers)] * self.size

    def sum(self, x):
        return x.detach().clone()

    def gather(self, x, counts):
        return x.new_zeros(sum(counts), *x.shape[1:])

    def scatter_sum(self, x, counts):
        return x.new_zeros(counts[0], *x.shape[1:])

    def transpose(self, x, counts):
        return x.new_zeros(self.size, counts[0], *x.shape[1:])

    def exchange(self, sends, receives):
        for x, _ in receives:
            x.zero_()
        held = [x for x, _ in sends]  # until they have left
        return SimpleNamespace(wait=held.clear)


class Held(TorchDispatchMode):
    """The largest number of bytes that new tensors held at a time."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.storages = WeakIdKeyDictionary()

    def __torch_dispatch__(self, function, types, arguments=(), kwargs=None):
        out = function(*arguments, **(kwargs or {}))
        for x in tree_leaves(out):
            storage = x.untyped_storage() if isinstance(x, torch.Tensor) else None
            if storage is not None and storage not in self.storages:
                self.storages[storage] = True
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._release, storage.nbytes())
        return out

    def _release(self, size):
        self.now -= size


@pytest.mark.parametrize("name", ["clip", "siglip", "nt_xent"])
def test_peak_of_a_rank(name, monkeypatch):
    """Round the ring that of 9 ranks for 33 too; gathered, it grows with all columns."""
    monkeypatch.setattr(_plan, "Ranks", lambda group: group)
    loss = next(x for x in LOSSES if x.name == name)

    def peak(size, mode):
        parts = batch(loss, [16] * size)
        with Held() as held:
            of_rank(loss, parts, 0, {"group": LoneRank(size), "mode": mode})
        return held.peak

    assert peak(33, "ring") == peak(9, "ring")
    assert peak(33, "gather") > 2 * peak(9, "gather")  # negative control
