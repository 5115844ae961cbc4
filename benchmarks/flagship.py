"""The cases that matter most on a GPU: `python -m benchmarks.flagship --out FOLDER [--mode MODE]`.

    times     fastcl, its CUDA graph and plain PyTorch; then the kernels of a step of fastcl
    compiled  fastcl beside torch.compile
    sums      fastcl with and without the CUDA C++ kernel of the forward's sums
    peers     fastcl beside each library that is installed
    tune      every candidate of a tile in its place
    step      steps of fastcl and nothing else, for a profiler around it

Every case is a process, so that one that fails leaves the others alone: all of them compile, check
themselves against float64 at full size and take their peak memory together, then they are timed in
turn (turns.py). A row is in its file as soon as its case has been measured: times.csv, kernels.csv
for the kernels of a step, tune.csv.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from . import report, turns
from .cases import Case, Update
from .measure import CEILING, LIMIT, RIVALS_LIMIT, _double, _restore, _words, prepared
from .memory import extra_memory
from .plain import CHUNKED, PLAIN
from .suites import SUITES
from .timing import ceiling, interleaved, quantiles
from .variants import GRAPH, OURS, Variant, named, peers

MODES = ("times", "compiled", "sums", "peers", "tune", "step")
PROFILED = 5  # steps
CASES = SUITES["flagships"]


def _cuda_sums(case: Case):
    """fastcl with the switch on; the backward has no such kernel."""
    from fastcl.kernels.info_nce_hopper import use_cuda_sums

    function = OURS.build(case)

    def step(**tensors):
        use_cuda_sums(True)
        try:
            return function(**tensors)
        finally:
            use_cuda_sums(False)

    return step


SUMS = Variant("fastcl, CUDA C++ sums", ("clip", "info_nce"), _cuda_sums)


def jobs(mode: str) -> dict[str, tuple[Case | Update, list[Variant]]]:
    """What one process measures, by its name."""
    contrasts = [case for case in CASES if isinstance(case, Case)]
    if mode == "times":
        extra = {"momentum": ["_foreach"]}
        return {
            str(i): (
                case,
                [OURS, *(named(case, name) for name in
                         (GRAPH.name, "plain", *extra.get(case.loss, ())))],
            )
            for i, case in enumerate(CASES)
        }  # fmt: skip
    if mode == "compiled":
        once = {case.loss: case for case in reversed(contrasts) if case.loss != "moco_push"}
        return {loss: (case, [OURS, named(case, mode)]) for loss, case in once.items()}
    if mode == "sums":
        clip = next(case for case in contrasts if case.loss == "clip")
        sizes = [clip, replace(clip, n=8192, m=8192), replace(clip, d=768)]
        return {str(i): (case, [OURS, SUMS]) for i, case in enumerate(sizes)}
    sizes = [case for case in contrasts if case.loss in ("clip", "siglip")]
    sizes.append(replace(sizes[0], loss="info_nce", units=3))
    return {
        f"{case.loss}-{peer.module}": (case, [OURS, peer])
        for case in sizes
        for peer in peers()
        if peer.gpu and case.loss in peer.losses and peer.installed()
    }


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


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def host_seconds(call: Callable[[], object], device: str) -> float:
    """Of one call until it returns, the device behind."""
    found = []
    for _ in range(5):
        _wait(device)
        begin = time.perf_counter()
        for _ in range(3):  # few enough to find room in the driver's queue
            call()
        found.append((time.perf_counter() - begin) / 3)
    _wait(device)
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
        _wait(self.device)
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


def measure_case(mode: str, name: str, device: str, budget: float) -> None:
    """In a process of its own."""
    case, tried = jobs(mode)[name]
    if device == "cpu":
        case = case.smaller(64)
    ready = Prepared(case, tried, device)
    # Of fastcl in its first measurement, and with another kernel.
    profiled = {"times": OURS.name, "sums": SUMS.name}.get(mode) if device == "cuda" else None
    step = ready.calls.get(profiled)
    if step:
        kernels(step)  # the profiler takes seconds to start
    turns.wait_for_turn()
    for row in ready.rows(budget):
        turns.hand_on({"file": "times", "row": row | {"mode": mode}})
    if step:
        for row in kernels(step):
            row = {"case": case.name, "step": profiled, **row}
            turns.hand_on({"file": "kernels", "row": row})
    turns.finish()


def tuned() -> list[tuple[Case, str, object]]:
    """Case, place and tile; the first of each case is the plan as it is."""
    from .tune import candidates

    cases = [c for c in CASES if isinstance(c, Case) and c.loss in ("nt_xent", "clip")][:2]
    found = []
    for case in cases:
        found += [(case, "", None), *((case, place, tile) for place, tile in candidates(case))]
    return found


def measure_tile(index: int, device: str, budget: float) -> None:
    """One candidate in a process of its own."""
    from .tune import replaced

    case, place, tile = tuned()[index]
    if device == "cpu":
        case = case.smaller(64)
    inputs, function = case.inputs(device), OURS.build(case)

    def measured() -> None:
        loss = case.step(function, inputs)
        _wait(device)
        turns.wait_for_turn()
        call = {"": lambda: case.step(function, inputs)}
        median, low, high = quantiles(interleaved(call, device, budget)[""])
        row = {
            "case": case.name, "place": place or "plan",
            "tile": "x".join(map(str, tile)) if tile else "", "measured_ms": median * 1e3,
            "q20_ms": low * 1e3, "q80_ms": high * 1e3, "loss": f"{loss.item():.7g}",
        }  # fmt: skip
        turns.hand_on({"file": "tune", "row": row})
        turns.finish()

    if tile is None:
        return measured()
    with replaced(place, tile):
        return measured()


def steps(names: list[str], device: str) -> None:
    """Two of every case: the first one compiles."""
    for name in names:
        case = CASES[int(name)]
        case = case.smaller(64) if device == "cpu" else case
        inputs, function = case.inputs(device), OURS.build(case)
        for _ in range(2):
            case.step(function, inputs)
        _wait(device)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flagship", description=__doc__)
    parser.add_argument("--mode", choices=MODES, default="times")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--budget", type=float, default=0.4, help="seconds of timing per variant")
    parser.add_argument("--within", type=float, default=90, help="seconds for all")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="folder of the rows")
    parser.add_argument("--only", default="", help="the names of some jobs, by commas")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    mode, device = options.mode, options.device
    if options.child is not None:
        if mode == "tune":
            measure_tile(int(options.child), device, options.budget)
        else:
            measure_case(mode, options.child, device, options.budget)
        return 0
    if mode == "tune":
        names = [str(i) for i in range(len(tuned()))]
    else:
        names = list(jobs("times" if mode == "step" else mode))
    if options.only:
        names = [name for name in names if name in options.only.split(",")]
    if mode == "step":
        steps(names, device)
        return 0
    command = [sys.executable, "-m", "benchmarks.flagship", "--mode", mode, "--device", device]
    command += ["--budget", str(options.budget), "--child"]
    where = report.circumstances(device)

    def take(found: dict) -> None:
        row = found["row"]
        report.append(where | row, options.out / f"{found['file']}.csv")
        if "variant" in row:
            host = f", host {row['host_ms']:.3f} ms" if row["host_ms"] != "" else ""
            memory = f", {row['extra_mb']:.0f} MB" if row["extra_mb"] != "" else ""
            timed = row if row["median_ms"] != "" else {k: row[k] for k in ("variant", "note")}
            note = row["note"] if timed is row else ""
            print(f"{row['case']:34}{report.line(timed)}{host}{memory} {note}", flush=True)
        else:
            values = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values())
            print("  ", *values, flush=True)

    failed = turns.in_turn(
        {name: [*command, name] for name in names}, take,
        within=options.within, patience=options.within / 2, turn=30,
    )  # fmt: skip
    for name in failed:
        print(f"{mode} {name}: not finished", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
