"""A training step whose memory is kept, as `fastcl pretrain` keeps it, beside one whose memory is
given back: a case of `benchmarks.throughput`, each in processes of its own, in turns."""

import resource
import statistics
import subprocess
import sys
import time

import torch

from fastcl import methods
from fastcl.commands.allocator import keep_memory

from .accuracy_methods import SixLayers
from .report import ROOT

BATCH, SIDE, STEPS, TURNS = 128, 32, 25, 3
CASE = f"SimCLR, six convolutions at {SIDE}, batch {BATCH}"


def step_and_peak(kept: bool) -> tuple[float, float]:
    """Milliseconds of a step and the peak of the process in MB."""
    if kept and not keep_memory():
        raise RuntimeError("malloc is not glibc's, or set up by the environment")
    model = methods.SimCLR(SixLayers(3), width=SixLayers.width, hidden=512)
    model.train().to(memory_format=torch.channels_last)
    views = [
        torch.randn(BATCH, 3, SIDE, SIDE).to(memory_format=torch.channels_last) for _ in range(2)
    ]
    seconds = []
    for _ in range(STEPS):
        started = time.perf_counter()
        model(*views).backward()
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return 1e3 * statistics.median(seconds), peak


def measured() -> list[tuple[str, str, float, str]]:
    """Rows: case, figure, value, unit."""
    found: dict[str, list[tuple[float, float]]] = {"given back": [], "kept": []}
    for _ in range(TURNS):
        for name, results in found.items():
            command = [sys.executable, "-m", "benchmarks.kept_memory", name]
            said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
            milliseconds, peak = map(float, said.stdout.split())
            results.append((milliseconds, peak))
    rows = []
    for name, results in found.items():
        milliseconds, peak = (statistics.median(x) for x in zip(*results, strict=True))
        rows += [(CASE, f"memory {name}: step", milliseconds, "ms"),
                 (CASE, f"memory {name}: peak", peak, "MB")]  # fmt: skip
    return rows


if __name__ == "__main__":
    print(*step_and_peak(sys.argv[1] == "kept"))
