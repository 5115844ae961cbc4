"""One step of training: forward, backward, optimiser, and what moves outside of it."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from .inputs import Batch
from .lab import LabPair, Lightness


class Step:
    """What a batch does to a method.

    Args:
        fabric: Launched.
        method: The method, unwrapped.
        model: The same as Fabric has set it up.
        optimizer: The same.
        inputs: Of a batch, the arguments of the method's forward.
        accumulate: Parts of equal size of every batch, each with a forward and a backward of its
            own, whose gradients are averaged.
    """

    def __init__(
        self, fabric: Fabric, method: nn.Module, model: nn.Module, optimizer: Optimizer,
        inputs: Callable[[Batch], tuple], accumulate: int = 1,
    ) -> None:  # fmt: skip
        self.fabric, self.method, self.model = fabric, method, model
        self.optimizer, self.inputs, self.accumulate = optimizer, inputs, accumulate

    def __call__(
        self, batch: Batch, learning_rate: float | Tensor, weight_decay: float | None = None
    ) -> Tensor:
        """Train on a batch; loss and contrastive top-1 as a tensor, unread. A weight decay is that
        of the first group of parameters from now on."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        if weight_decay is not None:
            self.optimizer.param_groups[0]["weight_decay"] = weight_decay
        self.optimizer.zero_grad(set_to_none=True)
        parts = _parts(batch, self.accumulate)
        found = [self._backward(part, last=i + 1 == len(parts)) for i, part in enumerate(parts)]
        self.optimizer.step()
        if hasattr(self.method, "update"):
            self.method.update()
        return found[0] if len(found) == 1 else torch.stack(found).mean(0)

    def _backward(self, part: Batch, last: bool) -> Tensor:
        # Ranks exchange gradients once, in the last backward.
        with self.fabric.no_backward_sync(self.model, enabled=not last):
            loss = self.model(*self.inputs(part))
            self.fabric.backward(loss if self.accumulate == 1 else loss / self.accumulate)
        rank = getattr(self.method, "rank", None)
        top1 = loss.new_full((), math.nan) if rank is None else (rank == 0).float().mean()
        return torch.stack([loss.detach().float(), top1.float()])


def _parts(batch: Batch, count: int) -> list[Batch]:
    if count == 1:
        return [batch]
    labels = count * [None] if batch.labels is None else batch.labels.chunk(count)
    parts = zip(batch.images.chunk(count), batch.index.chunk(count), labels, strict=True)
    return [Batch(*part) for part in parts]


MARK = "compiled_by_fastcl"


def mark(network: nn.Module) -> None:
    """Before a method is built: twins are copies of the network and carry the mark too."""
    parts = [network]
    if isinstance(network, LabPair):  # whose parts alone are called
        parts = list(network.parts)
    elif isinstance(network, Lightness):
        parts = [network.network]
    for part in parts:
        setattr(part, MARK, True)


@contextmanager
def compiled(method: nn.Module) -> Iterator[None]:
    """The marked networks of a method compiled, and afterwards as they were: what follows has
    batches of other sizes.

    Raises:
        ValueError: The compiler failed, as where there is none.
    """
    networks = [module for module in method.modules() if getattr(module, MARK, False)]
    for network in networks:
        network.forward = torch.compile(network.forward)
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        told = " ".join(str(error).split())
        raise ValueError(f"compile failed here, train without it: {told[:300]}") from error
    finally:
        for network in networks:
            del network.forward
