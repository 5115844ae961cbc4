"""Batches on their way to a GPU beside the training."""

from collections.abc import Callable

import torch
from torch import Tensor


def each_tensor(x, change: Callable[[Tensor], Tensor]):
    """`x` with its tensors changed, in tuples, lists and dicts of any nesting."""
    if isinstance(x, Tensor):
        return change(x)
    if isinstance(x, dict):
        return {key: each_tensor(value, change) for key, value in x.items()}
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*(each_tensor(value, change) for value in x))
    if isinstance(x, tuple | list):
        return type(x)(each_tensor(value, change) for value in x)
    return x


class Transfer:
    """Copies to a device from pinned memory, on a stream of their own.

    Args:
        device: Where to; nothing is done for the CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.moves = device, device.type == "cuda"
        self.stream = torch.cuda.Stream(device) if self.moves else None
        self._busy: torch.cuda.Event | None = None

    def send(self, batch):
        """In a thread of the loader."""
        with torch.cuda.stream(self.stream):
            moved = each_tensor(
                batch, lambda x: x.pin_memory().to(self.device, non_blocking=True)
            )  # fmt: skip
            copied = self.stream.record_event()
        copied.synchronize()  # from then on the next batch may be written to the same memory
        return moved, copied

    def receive(self, sent):
        """In the thread that trains: what it does from here on comes after the copy."""
        if not self.moves:
            return sent
        batch, copied = sent
        now = torch.cuda.current_stream(self.device)
        now.wait_event(copied)
        each_tensor(batch, lambda x: x.record_stream(now) or x)
        return batch

    def mark(self) -> None:
        """What the device is to do until here is what it has to do."""
        if self.moves:
            self._busy = torch.cuda.current_stream(self.device).record_event()

    def finish(self) -> None:
        """Wait until the device has nothing to do: from then on it waits for a batch."""
        if self._busy is not None:
            self._busy.synchronize()
