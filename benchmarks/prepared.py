"""A flagship case before and after it is timed: its variants have run once, checked themselves and
taken their peak memory; what they cost the host, and the kernels of a step.
"""

import statistics
import time
from collections.abc import Callable

import torch

from . import report
from .cases import Case, Update
from .measure import CEILING, LIMIT, RIVALS_LIMIT, _double, _restore, _words, prepared
from .memory import extra_memory
from .plain import CHUNKED, PLAIN
from .timing import ceiling, interleaved, quantiles
from .variant import Variant

PROFILED = 5  # steps


def _copies(base: dict) -> dict:
    def copy(x):
        return [copy(y) for y in x] if isinstance(x, list) else x.detach().clone()

    return {name: copy(x) for name, x in base.items()}


def _truth(case: Case | Update, base: dict) -> list[torch.Tensor]:
    """Loss and gradients in float64, by rows where the matrix would not fit."""
    exact = {name: _double(x) for name, x in base.items()}
    function = CHUNKED.get(case.loss, PLAIN[case.loss])
    loss = case.step(function, exact)
    return [x.detach() for x in case.results(loss, exact)]


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def host_seconds(call: Callable[[], object], device: str) -> float:
    """Of one call until it returns, the device behind."""
    found = []
    for _ in range(5):
        wait(device)
        begin = time.perf_counter()
        for _ in range(3):  # few enough to find room in the driver's queue
            call()
        found.append((time.perf_counter() - begin) / 3)
    wait(device)
    return min(found)


def kernels(call: Callable[[], object]) -> list[dict]:
    """Launches and microseconds of every kernel in a step, by the profiler."""
    from torch.profiler import ProfilerActivity, profile

    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        for _ in range(PROFILED):
            call()
        torch.cuda.synchronize()
    found: dict[str, list[float]] = {}
    for event in recorded.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            found.setdefault(event.name, []).append(event.time_range.elapsed_us())
    return [
        {
            "kernel": name[:90], "calls": len(times) / PROFILED,
            "us": sum(times) / PROFILED, "median_us": statistics.median(times),
        }
        for name, times in sorted(found.items(), key=lambda x: -sum(x[1]))
    ]  # fmt: skip


class Prepared:
    """A case whose variants have run once: calls, errors, memory and what failed."""

    def __init__(self, case: Case | Update, tried: list[Variant], device: str) -> None:
        self.case, self.device, self.tried = case, device, tried
        self.calls, self.error, self.memory, self.notes = {}, {}, {}, {}
        base = case.inputs(device)
        truth = _truth(case, base)
        for variant in tried:
            try:
                self._prepare(variant, base, truth)
            except Exception as reason:  # it is named and left out
                self.notes[variant.name] = f"fails: {type(reason).__name__}: {_words(reason)}"
                print(f"{variant.name} fails: {str(reason)[:600]}", flush=True)
        if device == "cuda":
            torch.cuda.empty_cache()

    def _prepare(self, variant: Variant, base: dict, truth: list[torch.Tensor]) -> None:
        name, case = variant.name, self.case
        if reason := variant.refusal(case, self.device):
            self.notes[name] = reason
            return
        inputs = _copies(base)
        call = prepared(variant, case, inputs)
        if variant.graph:  # its warm-up has pushed and moved already: from the start again
            _restore(inputs, base)
        loss = call()
        wait(self.device)
        pairs = zip(case.results(loss, inputs), truth, strict=True)
        self.error[name] = max(((a.double() - b).norm() / b.norm()).item() for a, b in pairs)
        del loss
        if not variant.graph and self.device == "cuda":
            call()
            peak = extra_memory(case, variant.build(case), inputs, self.device)
            self.memory[name] = peak / 1e6
        self.calls[name] = call

    def rows(self, budget: float) -> list[dict]:
        """Timed in turn; one row per variant."""
        case = self.case
        top, work = ceiling(case.measure, self.device, case.dtype)
        samples = interleaved({CEILING: top, **self.calls}, self.device, budget)
        rate = work / quantiles(samples.pop(CEILING))[0]
        rows = []
        for variant in self.tried:
            name = variant.name
            row = dict.fromkeys(report.COLUMNS, "") | {
                "case": case.name, "loss": case.loss, "n": case.n, "m": case.m, "d": case.d,
                "dtype": str(case.dtype).removeprefix("torch."), "variant": name,
                "version": variant.version, "measure": case.measure, "work": case.work,
                "error": self.error.get(name, ""), "note": self.notes.get(name, ""),
                "remark": variant.remark, "host_ms": "",
            }  # fmt: skip
            if name in samples:
                median, low, high = quantiles(samples[name])
                row |= {
                    "median_ms": median * 1e3, "q20_ms": low * 1e3, "q80_ms": high * 1e3,
                    "samples": len(samples[name]), "extra_mb": self.memory.get(name, ""),
                    "rate": case.work / median, "ceiling": rate,
                    "fraction": case.work / median / rate,
                    "host_ms": host_seconds(self.calls[name], self.device) * 1e3,
                }  # fmt: skip
                limits = LIMIT if name.startswith("fastcl") else RIVALS_LIMIT
                if not self.error[name] <= limits[case.dtype]:
                    row["note"] = f"WRONG by {self.error[name]:.0e}"
            rows.append(row)
        return rows
