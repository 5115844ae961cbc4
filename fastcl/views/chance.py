"""Which generator to draw from, in a program and in the workers of a DataLoader."""

import torch
from torch.utils.data import get_worker_info

SPREAD = 6364136223846793005  # odd, so that different seeds stay different


def check_generator(generator: torch.Generator | None, device: torch.device | None = None) -> None:
    """PyTorch's own, or one on the device."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}")
    if generator is not None and device is not None and generator.device.type != device.type:
        raise ValueError(f"generator must be on {device}, got one on {generator.device}")


class Chance:
    """A generator, or PyTorch's own; in every worker of a DataLoader another one.

    PyTorch's own is seeded by the DataLoader in each worker, from the seed of the epoch. A
    generator given by hand reaches all workers as the same copy: there it is replaced by one of
    its seed and the worker's.
    """

    def __init__(self, generator: torch.Generator | None) -> None:
        check_generator(generator)
        self.generator = generator
        self.worker: int | None = None

    def now(self) -> torch.Generator | None:
        """The generator to draw from; None is PyTorch's own."""
        if self.generator is None:
            return None
        worker = get_worker_info()
        if worker is None or worker.seed == self.worker:
            return self.generator
        seed = (self.generator.initial_seed() * SPREAD + worker.seed) % 2**63
        self.generator = torch.Generator(self.generator.device).manual_seed(seed)
        self.worker = worker.seed
        return self.generator

    def __getstate__(self) -> dict:
        # As bytes: a tensor goes to a spawned process as shared memory, which may be gone by then.
        g = self.generator
        kept = None if g is None else (str(g.device), g.initial_seed(), g.get_state().numpy())
        return {"generator": kept, "worker": self.worker}

    def __setstate__(self, state: dict) -> None:
        self.generator, self.worker = None, state["worker"]
        if state["generator"] is not None:
            device, seed, numbers = state["generator"]
            self.generator = torch.Generator(device).manual_seed(seed)
            self.generator.set_state(torch.from_numpy(numbers))
