"""Time and memory of a forward and backward: interleaved, medians, peak above the inputs."""

import ctypes
import gc
import time
from collections.abc import Callable

import torch
from torch import Tensor

from .cases import Case, Function


def step(function: Function, inputs: dict[str, Tensor], trained: tuple[str, ...]) -> Tensor:
    """One forward and backward; gradients are new tensors each time."""
    for name in trained:
        inputs[name].grad = None
        inputs[name].requires_grad_()
    loss = function(**inputs)
    loss.backward()
    return loss


def _seconds(call: Callable[[], object], device: str) -> float:
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3
    before = time.perf_counter()
    call()
    return time.perf_counter() - before


def interleaved(
    calls: dict[str, Callable[[], object]], device: str, budget: float = 20.0
) -> dict[str, tuple[float, float, float]]:
    """Median and 20/80 quantiles of every call, in seconds, over rounds that run each in turn.

    A call shorter than 20 ms is run once untimed before it is timed, so that it does not pay for
    the caches and threads that its predecessor left, and is repeated for 4 ms. Rounds go on for
    `budget` seconds, from 5 to 100 of them.
    """
    once = {}
    for name, call in calls.items():
        call()
        once[name] = min(_seconds(call, device) for _ in range(2))
    repeats = {name: max(1, int(4e-3 / seconds)) for name, seconds in once.items()}
    round_seconds = sum(once[name] * repeats[name] for name in calls)
    rounds = max(5, min(100, int(budget / round_seconds)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            count = repeats[name]
            if once[name] < 20e-3:
                call()
            total = _seconds(lambda call=call, count=count: [call() for _ in range(count)], device)
            times[name].append(total / count)
    quantiles = torch.tensor([0.5, 0.2, 0.8], dtype=torch.float64)
    return {
        name: tuple(torch.tensor(t, dtype=torch.float64).quantile(quantiles).tolist())
        for name, t in times.items()
    }


def ceiling(device: str, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product in this process: the rate to be held to."""
    size = 2048 if device == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty(size, size, device=device, dtype=dtype)
    (median, _, _) = interleaved({"mm": lambda: torch.mm(a, b, out=out)}, device, 2.0)["mm"]
    return 2 * size**3 / median


def extra_memory(case: Case, function: Function, device: str) -> int:
    """Peak bytes above the inputs and the gradients while one step runs, measured in this process.

    On the CPU this is the peak of the resident set, so run it in a process of its own.
    """
    inputs = case.inputs(device)
    gradients = sum(inputs[k].numel() * inputs[k].element_size() for k in case.trained())
    step(function, inputs, case.trained())  # compiles, builds caches
    for name in case.trained():
        inputs[name].grad = None
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(function, inputs, case.trained())
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before - gradients
    ctypes.CDLL(None).malloc_trim(0)  # or freed memory would hide what the step asks for
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # resets the peak
    before = _status("VmRSS")
    step(function, inputs, case.trained())
    return max(0, _status("VmHWM") - before - gradients)


def _status(key: str) -> int:
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(key))
    return int(line.split()[1]) * 1024
