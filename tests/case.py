"""What a row of the table of losses is, and what it is run on."""

from collections.abc import Callable
from dataclasses import dataclass, field

import plain
import torch
from torch import Tensor


def rows(n: int, d: int) -> Tensor:
    """Random directions, lengths from 0.5 to 2: a shorter row amplifies every rounding error."""
    lengths = 0.5 + 1.5 * torch.rand(n, 1, dtype=torch.float64)
    return lengths * plain.unit(torch.randn(n, d, dtype=torch.float64))


def pair(n: int, d: int) -> tuple[Tensor, Tensor]:
    """Two views that agree about as well as in training: cosine 0.7 on average."""
    x = plain.unit(rows(n, d))
    return tuple(rows(n, 1).abs() * plain.unit(x + 0.7 * plain.unit(rows(n, d))) for _ in "12")


def two(a: str, b: str) -> Callable[[int, int], dict[str, Tensor]]:
    return lambda n, d: dict(zip((a, b), pair(n, d), strict=True))


@dataclass
class Case:
    name: str  # of the test
    function: Callable[..., Tensor]
    plain: Callable[..., Tensor]
    inputs: Callable[[int, int], dict[str, Tensor]]  # rows, width -> float64 tensors
    constants: tuple[str, ...] = ()  # inputs without gradient
    smallest: int = 1  # rows
    kwargs: dict = field(default_factory=dict)
    temperature: bool = True  # it takes one, or a scale
    derivative: bool = True  # the gradient is the derivative of the value
    any_length: bool = True  # rows are normalised: their gradients are orthogonal to them
    fused: bool = True  # by kernels of ours; torch's own operators may sum by the layout of a view

    def arguments(self, n: int, d: int, temperature: float) -> tuple[dict, dict]:
        """Tensors and keyword arguments; the scale of CLIP is one over the temperature."""
        tensors = self.inputs(n, d)
        if "logit_scale" in tensors:
            tensors["logit_scale"] /= temperature
            return tensors, dict(self.kwargs)
        if not self.temperature:
            return tensors, dict(self.kwargs)
        return tensors, {"temperature": temperature, **self.kwargs}


def run(function, tensors, constants, kwargs, dtype):
    """Value and gradients, as float64, of a function on inputs rounded to dtype."""
    inputs = {}
    for name, x in tensors.items():
        floating = x.is_floating_point()
        x = x.detach().to(dtype if floating else x.dtype, copy=True)
        inputs[name] = x.requires_grad_(floating and name not in constants)
    loss = function(**inputs, **kwargs)
    loss.backward()
    grads = {name: x.grad.double() for name, x in inputs.items() if x.requires_grad}
    return loss.detach().double(), grads


def rounded(tensors, dtype):
    """The same inputs in float64 after rounding to dtype."""
    return {k: x.to(dtype).double() if x.is_floating_point() else x for k, x in tensors.items()}
