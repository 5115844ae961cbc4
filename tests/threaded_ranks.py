"""Ranks as threads of one process: what `fastcl._ranks.Ranks` does, without a backend.

A message is copied when its receiver waits, and its sender waits until then: a buffer that is
reused too early, a message without a partner and a wrong order all show.
"""

import queue
import threading

import torch

TIMEOUT = 120.0  # seconds; only reached where a message has no partner


class World:
    def __init__(self, size):
        self.size = size
        self.slots = [None] * size
        self.barrier = threading.Barrier(size)
        # All of them now: made on demand, two ranks that come at once would each make one.
        self.mail = {(a, b): queue.Queue() for a in range(size) for b in range(size)}


class Moving:
    def __init__(self, sent, incoming):
        self.sent, self.incoming = sent, incoming

    def wait(self):
        for buffer, mailbox in self.incoming:
            x, delivered = mailbox.get(timeout=TIMEOUT)
            assert x.shape == buffer.shape and x.dtype == buffer.dtype
            buffer.copy_(x)
            delivered.set()
        for delivered in self.sent:
            if not delivered.wait(TIMEOUT):
                raise TimeoutError("nobody received")


class ThreadedRanks:
    def __init__(self, world, rank):
        self.world, self.size, self.rank = world, world.size, rank

    def _all(self, x):
        self.world.slots[self.rank] = x
        self.world.barrier.wait(TIMEOUT)
        everything = list(self.world.slots)
        self.world.barrier.wait(TIMEOUT)
        return everything

    def share(self, numbers, device):
        return self._all(list(numbers))

    def sum(self, x):
        return sum(self._all(x.detach()))

    def gather(self, x, counts):
        parts = self._all(x.detach())
        assert [part.shape[0] for part in parts] == counts
        return torch.cat(parts)

    def scatter_sum(self, x, counts):
        return sum(self._all(x)).split(counts)[self.rank]

    def transpose(self, x, counts):
        return torch.stack([y.split(counts)[self.rank] for y in self._all(x)])

    def exchange(self, sends, receives):
        sent = []
        for x, to in sends:
            sent.append(threading.Event())
            self.world.mail[self.rank, to].put((x, sent[-1]))
        return Moving(sent, [(x, self.world.mail[source, self.rank]) for x, source in receives])


def run(size, function):
    """The results of function(ranks) on every rank."""
    world, results, errors = World(size), [None] * size, []

    def one(rank):
        try:
            results[rank] = function(ThreadedRanks(world, rank))
        except Exception as error:
            errors.append(error)
            world.barrier.abort()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    real = [e for e in errors if not isinstance(e, threading.BrokenBarrierError)]
    if errors:
        raise (real or errors)[0]
    return results
