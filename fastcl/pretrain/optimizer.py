"""Optimisers, and learning rate and weight decay of a step."""

import math

import torch
from torch import nn
from torch.optim import Optimizer


class LARS(Optimizer):
    """SGD whose step of every matrix is as long as a fixed part of the matrix.

    Vectors (biases and norms) take a plain step without weight decay.

    Source: You et al. 2017, "Large Batch Training of Convolutional Networks", algorithm 1.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate.
        momentum: Of the velocity.
        weight_decay: Added to the gradient of matrices.
        trust: Length of the step over length of the matrix, at learning rate one.
    """

    def __init__(
        self, params, lr: float, momentum: float = 0.9, weight_decay: float = 0.0,
        trust: float = 0.001,
    ) -> None:  # fmt: skip
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure=None):
        """One step; closure, if given, recomputes the loss that is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._step_one(p, group)
        return loss

    def _step_one(self, p: nn.Parameter, group: dict) -> None:
        grad = p.grad
        if p.dim() > 1:
            grad = grad.add(p, alpha=group["weight_decay"])
            length, grad_length = p.norm(), grad.norm()
            ratio = group["trust"] * length / grad_length
            moving = (length > 0) & (grad_length > 0)
            grad = grad * torch.where(moving, ratio, torch.ones_like(ratio))
        state = self.state[p]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(p)
        velocity = state["velocity"].mul_(group["momentum"]).add_(grad)
        if isinstance(group["lr"], torch.Tensor):  # which the host does not read
            p.addcmul_(velocity, group["lr"].to(p.dtype), value=-1)
        else:
            p.add_(velocity, alpha=-group["lr"])


def build_optimizer(
    name: str,
    method: nn.Module,
    learning_rate: float,
    weight_decay: float,
    *,
    matrices_alone: bool = False,
    captured: bool = False,
) -> Optimizer:
    """SGD, LARS or AdamW over the parameters that receive gradients.

    Args:
        name: "sgd", "lars" or "adamw".
        method: Whose parameters.
        learning_rate, weight_decay: Of the first step.
        matrices_alone: Whether vectors (biases, norms) have no weight decay: they are the second
            group then.
        captured: Whether steps go into a CUDA graph, with a learning rate on the device.

    Raises:
        ValueError: Unknown name.
    """
    parameters: list = [p for p in method.parameters() if p.requires_grad]
    if matrices_alone:
        vectors = [p for p in parameters if p.dim() < 2]
        parameters = [
            {"params": [p for p in parameters if p.dim() > 1]},
            {"params": vectors, "weight_decay": 0.0},
        ]
    decay = {"weight_decay": weight_decay}
    fused = {"fused": True} if captured else {}  # the others read the learning rate on the host
    if name == "sgd":
        return torch.optim.SGD(parameters, learning_rate, momentum=0.9, **decay, **fused)
    if name == "lars":
        return LARS(parameters, learning_rate, momentum=0.9, **decay)
    if name == "adamw":
        capturable = captured and next(method.parameters()).is_cuda
        return torch.optim.AdamW(parameters, learning_rate, **decay, **fused, capturable=capturable)
    raise ValueError(f"optimizer must be sgd, lars or adamw, got {name!r}")


def learning_rate_at(step: int, steps: int, peak: float, warmup: float) -> float:
    """Linear rise over the first `warmup` of the steps, then half a cosine down to zero."""
    rising = round(warmup * steps)
    if step < rising:
        return peak * (step + 1) / rising
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def weight_decay_at(step: int, steps: int, start: float, end: float) -> float:
    """Half a cosine from the start to the end.

    Source: Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers",
    section 3.2.
    """
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * step / steps))
