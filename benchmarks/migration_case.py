"""What a case of `benchmarks.migration` is, and the rows that cases share."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .absent import imported

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Replaced:
    """One class or function of a library, at one size."""

    library: str  # in fastcl.compat
    home: str  # module of the original; "" where only its formula is here
    package: str  # on PyPI; "" where it is not packaged
    name: str
    rows: int
    size: str  # as the table shows it
    build: Callable[[ModuleType, int], Callable[..., Tensor]]
    inputs: Callable[[int], Inputs]
    cannot: str = ""  # the original does not run at this size: what it would hold
    formula: Any = None  # what has the name where there is no home
    slow: bool = False  # the original takes minutes: timed while it is compared, and not again

    def module(self, side: str) -> Any:
        """Where this side has the name."""
        if side == "original" and not self.home:
            return self.formula
        name = f"fastcl.compat.{self.library}" if side == "fastcl" else self.home
        return imported(name)


def step(function: Callable[..., Tensor], inputs: Inputs) -> list[Tensor]:
    """Forward and backward: the loss, or what an update wrote, then the gradients."""
    trained = [x for x in inputs.values() if x.requires_grad]
    for x in trained:
        x.grad = None
    result = function(**inputs)
    if trained:
        result.backward()
    return [result.detach(), *(x.grad for x in trained if x.grad is not None)]


def rows(n: int, d: int) -> Tensor:
    return F.normalize(torch.randn(n, d), dim=1)


def views(d: int, *names: str) -> Callable[[int], Inputs]:
    """Unit rows whose pairs agree as in training."""

    def inputs(n: int) -> Inputs:
        x = rows(n, d)
        views = {k: F.normalize(x + 0.7 * rows(n, d), dim=1) for k in names}
        return {k: v.requires_grad_() for k, v in views.items()}

    return inputs


def with_more(make: Callable[[int], Inputs], **more: Callable[[int], Tensor]) -> Callable:
    return lambda n: {**make(n), **{k: f(n) for k, f in more.items()}}
