"""Which images a batch is made of: a function of seed and epoch alone."""

from collections.abc import Iterator

import numpy as np

from .. import _check


def permutation(n: int, seed: int, epoch: int) -> np.ndarray:  # int64 [n]
    """0 to n - 1 in the order of an epoch, equal on every machine and rank: drawn by Philox, a
    generator that counts, under the key (seed, epoch)."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(n)


class Order:
    """The images of every step of every epoch, for one rank of several.

    All ranks cut the same permutation: batch k is its entries from k * batch on, of which each rank
    takes an equal run. So ranks are disjoint, and one epoch holds every image at most once. What is
    left behind the last whole batch, less than one, is left out of this epoch and falls on other
    images in the next one; with `tail` it is a shorter last batch, whose parts on the ranks differ
    by one image at most, and every image is there exactly once.

    Args:
        n: Images.
        batch: Images of a step over all ranks; a multiple of `ranks` without `tail`.
        seed: Of the permutations; None keeps the images in their order.
        rank: Whose images.
        ranks: How many there are.
        tail: Whether the images behind the last whole batch are a batch too.

    Raises:
        ValueError: A number out of range, or a batch that the ranks cannot share.
    """

    def __init__(
        self, n: int, batch: int, *, seed: int | None, rank: int = 0, ranks: int = 1,
        tail: bool = False,
    ) -> None:  # fmt: skip
        for name, value in (("n", n), ("batch", batch), ("ranks", ranks)):
            _check.count(name, value)
        if not 0 <= rank < ranks:
            raise ValueError(f"rank must be from 0 to {ranks - 1}, got {rank}")
        if seed is not None and not 0 <= seed < 2**64:
            raise ValueError(f"seed must be from 0 to 2**64 - 1, got {seed}")
        if not tail and (batch % ranks or batch > n):
            raise ValueError(
                f"batch must be a multiple of the {ranks} ranks and at most the {n} images, got "
                f"{batch}"
            )
        self.n, self.batch, self.seed, self.rank, self.ranks = n, batch, seed, rank, ranks
        self.steps = -(-n // batch) if tail else n // batch

    def epoch(self, number: int) -> list[np.ndarray]:  # steps of int64 [b]
        """What this rank reads in each step of an epoch."""
        order = np.arange(self.n) if self.seed is None else permutation(self.n, self.seed, number)
        batches = [order[k * self.batch : (k + 1) * self.batch] for k in range(self.steps)]
        return [np.array_split(batch, self.ranks)[self.rank] for batch in batches]

    def places(self, epoch: int, step: int, epochs: int) -> Iterator[tuple[int, int, list]]:
        """(epoch, step, the images of that epoch) from a place to the end of a run."""
        for number in range(epoch, epochs):
            images = self.epoch(number)
            for k in range(step if number == epoch else 0, self.steps):
                yield number, k, images
