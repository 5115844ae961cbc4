"""Seconds per call: interleaved rounds, warm-up, medians; and the rates to be held against."""

import time
from collections.abc import Callable

import torch

WARM = 20e-3  # a shorter call pays for the caches and threads that its predecessor left
REPEAT = 4e-3  # and one shorter still is repeated up to this


def seconds(call: Callable[[], object], device: str) -> float:
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


def _samples(cost: float, budget: float) -> int:
    """How many of them: what the budget pays for, but enough for a median where one is bearable."""
    least = 5 if cost < 2 * budget else 3 if cost < 10 * budget else 1
    return max(least, min(100, int(budget / cost)))


def interleaved(
    calls: dict[str, Callable[[], object]], device: str, budget: float = 2.0
) -> dict[str, list[float]]:
    """Every call's seconds, over rounds that run each in turn.

    A call has `budget` seconds to itself, and 5 samples where one takes less than twice that: a
    slow one takes part in some of the rounds, spread evenly, and takes no time from the others.
    A call shorter than 20 ms is run once untimed before it is timed, and repeated for 4 ms.
    """
    once, repeats = {}, {}
    for name, call in calls.items():
        first = seconds(call, device)  # compiles, builds caches
        slow = first > 10 * budget and device == "cpu"
        once[name] = min(seconds(call, device) for _ in range(1 if slow else 2))
        repeats[name] = max(1, int(REPEAT / max(once[name], 1e-7)))
    wanted = {name: _samples(once[name] * repeats[name], budget) for name in calls}
    rounds = max(wanted.values())
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        for name, call in calls.items():
            if (turn + 1) * wanted[name] // rounds == turn * wanted[name] // rounds:
                continue
            count = repeats[name]
            if once[name] < WARM:
                call()
            total = seconds(lambda call=call, count=count: [call() for _ in range(count)], device)
            times[name].append(total / count)
    return times


def quantiles(times: list[float]) -> tuple[float, float, float]:
    """Median, 20 % and 80 %: a pause of the machine in a few rounds moves none of them."""
    points = torch.tensor([0.5, 0.2, 0.8], dtype=torch.float64)
    return tuple(torch.tensor(times, dtype=torch.float64).quantile(points).tolist())


def ceiling(measure: str, device: str, dtype: torch.dtype) -> tuple[Callable[[], object], float]:
    """What the machine can do, to be timed among the variants: a call, and its operations or bytes.

    A matrix product for cases that count operations, a copy for those that count bytes.
    """
    if measure == "B":
        x = torch.randn(2**26, device=device)  # 268 MB: more than any cache
        y = torch.empty_like(x)
        return lambda: y.copy_(x), 2.0 * x.numel() * x.itemsize
    size = 2048 if device == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out), 2.0 * size**3


def captured(step: Callable[[], object]) -> Callable[[], object]:
    """A step as the replay of a CUDA graph; results stay in the tensors of the capture."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()

    def replay():
        graph.replay()
        return result

    return replay
