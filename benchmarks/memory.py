"""Memory: what is free, and the peak above inputs and gradients while a step runs."""

import ctypes
import gc
from collections.abc import Callable

import torch

from .cases import Case, Function, Update


def available(device: str) -> int:
    """Bytes that can be asked for now."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return _kilobytes("/proc/meminfo", "MemAvailable") * 1024


def extra_memory(case: Case | Update, function: Function, inputs: dict, device: str) -> float:
    """Peak bytes above the inputs and the gradients while one step runs, measured in this process.

    On the CPU this is the peak of the resident set, so run it in a process of its own.
    """
    case.step(function, inputs)  # compiles, builds caches
    for tensor in inputs.values():
        if isinstance(tensor, torch.Tensor):
            tensor.grad = None
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        case.step(function, inputs)
        torch.cuda.synchronize()
        return max(0.0, torch.cuda.max_memory_allocated() - before - case.kept())
    return max(0.0, growth(lambda: case.step(function, inputs)) - case.kept())


def growth(call: Callable[[], object]) -> int:
    """Bytes by which the resident set of this process is larger at the peak of a call."""
    ctypes.CDLL(None).malloc_trim(0)  # or freed memory would hide what the call asks for
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # resets the peak
    before = _kilobytes("/proc/self/status", "VmRSS")
    call()
    return (_kilobytes("/proc/self/status", "VmHWM") - before) * 1024


def _kilobytes(path: str, key: str) -> int:
    with open(path) as file:
        line = next(line for line in file if line.startswith(key))
    return int(line.split()[1])
