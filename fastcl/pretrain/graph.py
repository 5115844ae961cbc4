"""The whole step as one CUDA graph: views, forwards, loss, backward, optimiser, queue and twin."""

import torch
from torch import Tensor

from .augment import Made
from .inputs import Batch
from .step import Step

# Plain steps first: they compile kernels, fill caches, and are the ones that `StepShares` looks at.
PLAIN = 9


class GraphedStep:
    """A step that is captured after some plain ones and replayed from then on.

    Everything that it reads stays where it is: batches are copied into the first one, and the
    learning rate is a tensor. On the CPU every step is a plain one by the same rules.

    Args:
        step: Whose optimiser takes a learning rate on the device.
        device: Where it runs.
    """

    def __init__(self, step: Step, device: torch.device) -> None:
        self.step, self.device = step, device
        self.rate = torch.zeros((), device=device)
        self.batch: Batch | None = None
        self.count = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.result: Tensor | None = None

    def __call__(
        self, batch: Batch, learning_rate: float, weight_decay: float | None = None
    ) -> Tensor:
        """As `Step`; the tensor is the same one each time.

        Raises:
            ValueError: A batch of other shapes, or a weight decay, which a graph would freeze.
        """
        if weight_decay is not None:
            raise ValueError(f"weight_decay must stay what it was, got {weight_decay}")
        self._load(batch)
        self.rate.fill_(learning_rate)
        self.count += 1
        if self.device.type != "cuda":
            return self._plain()
        if self.count <= PLAIN:
            return self._beside()
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):  # which runs nothing yet
                self.result = self._plain()
        self.graph.replay()
        return self.result

    def _plain(self) -> Tensor:
        return self.step(self.batch, self.rate)

    def _beside(self) -> Tensor:
        """On a stream of its own, as autograd has to see it before a capture."""
        stream, now = torch.cuda.Stream(self.device), torch.cuda.current_stream(self.device)
        stream.wait_stream(now)
        with torch.cuda.stream(stream):
            result = self._plain()
        now.wait_stream(stream)
        return result

    def _load(self, batch: Batch) -> None:
        given = _tensors(batch)
        if self.batch is None:
            self.batch = _map(batch, torch.clone)
            return
        kept = _tensors(self.batch)
        shapes = [list(x.shape) for x in given], [list(x.shape) for x in kept]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"batch must have the shapes {shapes[1]} of the first, got {shapes[0]}"
            )
        for old, new in zip(kept, given, strict=True):
            old.copy_(new, non_blocking=True)


def _map(batch: Batch, change) -> Batch:  # change: Tensor -> Tensor
    images = batch.images
    images = Made(tuple(map(change, images.groups))) if isinstance(images, Made) else change(images)
    labels = None if batch.labels is None else change(batch.labels)
    return Batch(images, change(batch.index), labels)


def _tensors(batch: Batch) -> list[Tensor]:
    found: list[Tensor] = []
    _map(batch, lambda x: found.append(x) or x)
    return found
