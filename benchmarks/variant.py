"""One way to compute a case of the benchmarks."""

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch

import fastcl

from .cases import Case, Function
from .memory import available


def anywhere(case: Case) -> str:
    """The range of a variant that computes every size."""
    return ""


@dataclass(frozen=True)
class Variant:
    """One way to compute a case.

    `matrices` is the peak in n x m matrices of the rows' dtype (measured), by loss where they
    differ: a size that does not fit into memory is known before it is tried. `outside` says why a
    case is out of its range.
    """

    name: str
    losses: tuple[str, ...]
    build: Callable[[Case], Function]
    matrices: float | dict[str, float] = 0.0
    package: str = ""  # on PyPI; "" for PyTorch and fastcl
    module: str = ""
    gpu: bool = False  # has kernels for NVIDIA GPUs only
    graph: bool = False  # timed as the replay of a CUDA graph
    dtype: torch.dtype | None = None  # of the rows, where not the case's
    outside: Callable[[Case], str] = anywhere
    remark: str = ""  # what a reader of its figures should know

    def installed(self) -> bool:
        return not self.module or importlib.util.find_spec(self.module) is not None

    @property
    def version(self) -> str:
        if not self.package:
            return fastcl.__version__ if self.name.startswith("fastcl") else torch.__version__
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return ""

    def refusal(self, case: Case, device: str) -> str:
        """Why it is not run, or ""."""
        if (self.gpu or self.graph) and device != "cuda":
            return "needs a GPU"
        if case.alone and self.name != "fastcl":
            return "takes minutes at this size"
        if reason := self.outside(case):
            return reason
        # A quarter more than its tensors: allocators round up and keep blocks.
        count = self.matrices
        count = count[case.loss] if isinstance(count, dict) else count
        needed = 1.25 * count * case.n * case.m * (self.dtype or case.dtype).itemsize
        if needed > available(device):
            return f"would need {needed / 1e9:.0f} GB"
        return ""
