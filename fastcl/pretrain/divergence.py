"""Whether a training is still a matter of numbers."""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


@torch.no_grad()
def is_finite(method: nn.Module, optimizer: Optimizer, loss: Tensor) -> Tensor:
    """Whether loss, weights, statistics and the optimiser's state are finite.

    All of them: a step may ruin the weights after a loss that was fine, and batch normalisation
    hides weights of any size until its statistics overflow.

    Returns:
        A bool on the device of the loss, unread.
    """
    states = (x for state in optimizer.state.values() for x in state.values())
    tensors = [
        x.detach().to(loss.device) for x in (*method.parameters(), *method.buffers(), *states)
        if isinstance(x, Tensor) and x.is_floating_point() and x.numel()
    ]  # fmt: skip
    # The largest, not the length, which overflows for numbers that do not.
    largest = torch._foreach_norm(tensors, float("inf"))
    return torch.stack([loss.float(), *(x.float() for x in largest)]).isfinite().all()
