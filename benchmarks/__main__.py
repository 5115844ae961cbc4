"""Measure fastcl beside its rivals: `python -m benchmarks --suite cpu|gpu|quick|scaling [--peers]`.

First every variant is checked against float64, then all are timed in turn in one process, then
each is run once for its peak memory (on the CPU in a process of its own). Rows go to
results/<suite>.csv after every case, in the place of what the same machine had measured before;
tables to results/<suite>.md, the README and docs/results.md, plots beside them. A variant that
cannot run or is wrong has a row that says so.
"""

import argparse
import time
from pathlib import Path

from . import report
from .measure import measure, peak_elsewhere, peak_here, peak_on_gpu
from .suites import SUITES
from .timing import ceiling, quantiles, seconds
from .variants import named

# What the curves compare; the other variants are in the suites of one size per case.
SCALING = ("fastcl", "plain", "compiled")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--suite", choices=SUITES, default="cpu")
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--peers", action="store_true", help="also time the libraries installed")
    parser.add_argument("--cases", default="", help="only those whose name contains this")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="folder of the results")
    parser.add_argument(
        "--budget", type=float, default=2.0, help="seconds of timing per variant and case"
    )
    parser.add_argument(
        "--within", type=float, default=float("inf"),
        help="seconds in all: a case that would not end by then is left out",
    )  # fmt: skip
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)  # INDEX:VARIANT, in a process alone
    return parser.parse_args()


def least_seconds(case, device: str) -> float:
    """Of measuring fastcl alone: six steps at a third of the machine's rate."""
    call, work = ceiling(case.measure, device, case.dtype)
    call()
    rate = work / quantiles([seconds(call, device) for _ in range(3)])[0]
    return 6 * 3 * case.work / rate


def main() -> None:
    chosen = options()
    device = chosen.device or ("cuda" if chosen.suite == "gpu" else "cpu")
    cases = SUITES[chosen.suite]
    if chosen.memory_of:
        index, variant = chosen.memory_of.split(":")
        print(peak_here(named(cases[int(index)], variant), cases[int(index)], device))
        return
    # A suite of the CPU on a GPU does not replace the CPU's rows.
    name = chosen.suite if device == "cpu" or chosen.suite == "gpu" else f"{chosen.suite}_gpu"
    path = chosen.out / f"{name}.csv"
    begin, where, rows = time.monotonic(), report.circumstances(device), []
    before = report.read(path) if path.exists() else []
    for index, case in enumerate(cases):
        if chosen.cases not in case.name:
            continue
        left = chosen.within - (time.monotonic() - begin)
        if left < float("inf") and least_seconds(case, device) > left:
            print(f"{case.name}: would not end within {left:.0f} s, left out", flush=True)
            continue
        print(f"{case.name} {str(case.dtype).removeprefix('torch.')}", flush=True)
        elsewhere = peak_elsewhere(chosen.suite, index, device)
        memory = peak_on_gpu if device == "cuda" else elsewhere
        new = measure(
            case, device, libraries=chosen.peers, budget=chosen.budget,
            memory=None if chosen.no_memory else memory,
            only=SCALING if chosen.suite == "scaling" else (),
        )  # fmt: skip
        print("\n".join(map(report.line, new)), flush=True)
        rows += [{**where, **row} for row in new]
        report.save(report.renew(rows, before), path)
    if not rows:
        raise SystemExit(f"no case of the suite {chosen.suite} was measured")
    report.show(name, chosen.out)


if __name__ == "__main__":
    main()
