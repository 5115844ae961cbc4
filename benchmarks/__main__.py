"""Measure fastcl beside its rivals: `python -m benchmarks [--suite cpu|gpu|quick] [--peers]`.

First every variant is checked against float64, then all are timed in turn in one process, then
each is run once in a process of its own for its peak memory. Rows go to results/<device>.csv, the
table to results/<device>.md and into the README, the plots beside them.
"""

import argparse
import subprocess
import sys

import torch

from . import report
from .cases import PLAIN, SUITES, Case
from .peers import variants
from .timing import ceiling, extra_memory, interleaved, step

CHECKED_ROWS = 512
OURS = ("fastcl", "plain", "compiled")  # whose peak memory is taken, each in a process of its own


def error(case: Case, function, device: str) -> float:
    """Largest relative error, in norm, of loss and gradients against float64 on fewer rows."""
    small = case.smaller(CHECKED_ROWS)
    inputs = small.inputs(device)
    exact = {k: x.double() for k, x in inputs.items()}
    ours = step(function, inputs, small.trained())
    truth = step(PLAIN[case.loss], exact, small.trained())
    pairs = [(ours, truth)] + [(inputs[k].grad, exact[k].grad) for k in small.trained()]
    return max(((a.double() - b).norm() / b.norm()).item() for a, b in pairs)


def measure(case: Case, device: str, peers: bool, memory: bool, rate: float) -> list[dict]:
    """One row per variant that passes the check; the others are named and left out."""
    limit = 1e-4 if case.dtype == torch.float32 else 2e-2
    passed, errors = {}, {}
    for name, function in variants(case, peers).items():
        try:
            errors[name] = error(case, function, device)
        except (RuntimeError, ValueError, TypeError) as reason:
            print(f"  {name} cannot run: {str(reason).splitlines()[0]}")
            continue
        if not errors[name] <= limit:
            if name == "fastcl":
                raise SystemExit(f"fastcl is wrong on {case.name}: error {errors[name]:.1e}")
            print(f"  {name} is wrong by {errors[name]:.1e}: not timed")
            continue
        passed[name] = function
    inputs = case.inputs(device)
    calls = {
        name: lambda function=function: step(function, inputs, case.trained())
        for name, function in passed.items()
    }
    rows = []
    for name, (median, low, high) in interleaved(calls, device, budget=8.0).items():
        achieved = case.flops / median
        rows.append({
            "case": case.name, "loss": case.loss, "n": case.n, "m": case.m, "d": case.d,
            "dtype": str(case.dtype).removeprefix("torch."), "variant": name,
            "median_ms": median * 1e3, "q20_ms": low * 1e3, "q80_ms": high * 1e3,
            "extra_mb": peak(case, name, device) / 1e6 if memory and name in OURS else "",
            "gflops": achieved / 1e9, "ceiling_gflops": rate / 1e9, "fraction": achieved / rate,
            "error": errors[name],
        })  # fmt: skip
    return rows


def peak(case: Case, variant: str, device: str) -> float:
    """Extra memory in bytes, from a fresh process."""
    index = next((s, i) for s, cases in SUITES.items() for i, c in enumerate(cases) if c == case)
    command = [sys.executable, "-m", "benchmarks", "--suite", index[0]]
    command += ["--device", device, "--memory-of", f"{index[1]}:{variant}"]
    result = subprocess.run(command, capture_output=True, text=True)
    return float(result.stdout.split()[-1]) if result.returncode == 0 else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--suite", choices=SUITES, default="cpu")
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--peers", action="store_true", help="also time the libraries installed")
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)  # INDEX:VARIANT, in a process alone
    options = parser.parse_args()
    device = options.device or ("cuda" if options.suite == "gpu" else "cpu")
    cases = SUITES[options.suite]
    if options.memory_of:
        index, variant = options.memory_of.split(":")
        case = cases[int(index)]
        print(extra_memory(case, variants(case, options.peers)[variant], device))
        return
    rows = []
    for case in cases:
        print(f"{case.name} {str(case.dtype).removeprefix('torch.')}", flush=True)
        rate = ceiling(device, case.dtype)
        rows += measure(case, device, options.peers, not options.no_memory, rate)
        for row in (r for r in rows if r["case"] == case.name):
            print(
                "  {variant:24} {median_ms:10.3f} ms  {fraction:6.1%} of the ceiling".format(**row)
            )
    report.write(rows, options.suite, device)


if __name__ == "__main__":
    main()
