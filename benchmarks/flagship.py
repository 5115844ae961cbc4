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
import sys
from dataclasses import replace
from pathlib import Path

from . import report, turns
from .cases import Case, Update
from .prepared import Prepared, kernels, wait
from .suites import SUITES
from .timing import interleaved, quantiles
from .variant import Variant
from .variants import GRAPH, LIBRARIES, OURS, named

MODES = ("times", "compiled", "sums", "peers", "tune", "step")
CASES = SUITES["flagships"]


def _cuda_sums(case: Case):
    """fastcl with the switch on; the backward has no such kernel."""
    from fastcl.kernels.contrast_hopper import use_cuda_sums

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
        for peer in LIBRARIES
        if peer.gpu and case.loss in peer.losses and peer.installed()
    }


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
        wait(device)
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
        wait(device)


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
