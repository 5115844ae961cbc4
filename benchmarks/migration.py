"""fastcl.compat beside the classes it replaces: `python -m benchmarks.migration`.

Every class and function that `fastcl.patch` replaces, original and replacement on the same tensors
in turn, forward and backward: first held against each other, then timed, then each once for its
memory. Rows go to results/migration.csv, the table to docs/migration.md, a short one to the README.
Libraries that are not installed are left out.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import torch

import fastcl

from . import compat_table, report, summary
from .memory import extra_memory, growth
from .migration_case import Replaced, step
from .migration_cases import CASES
from .timing import interleaved, quantiles, seconds

SIDES = ("original", "fastcl")
# Relative, in norm; both are float32.
LIMIT = 1e-3
COLUMNS = (
    "library", "version", "name", "rows", "size", "variant", "median_ms", "q20_ms", "q80_ms",
    "samples", "extra_mb", "difference", "note",
)  # fmt: skip


def installed(case: Replaced) -> bool:
    package = case.home.split(".")[0]
    if not package or package in sys.modules:
        return True
    return importlib.util.find_spec(package) is not None


def prepare(case: Replaced, side: str, rows: int):
    """The step of one side on tensors that are the same for both."""
    torch.manual_seed(0)
    inputs = case.inputs(rows)
    function = case.build(case.module(side), rows)
    torch.manual_seed(1)  # a bank is filled by the first call of either side
    return function, inputs


def difference(case: Replaced, rows: int, times: dict[str, list[float]] | None = None) -> float:
    """Largest relative difference, in norm, of loss and gradients between the sides; the seconds
    that each took are put into times."""
    results: list[list[torch.Tensor]] = []
    for side in SIDES:
        function, inputs = prepare(case, side, rows)
        once = seconds(lambda f=function, x=inputs: results.append(step(f, x)), "cpu")
        if times is not None:
            times[side] = [once]
    pairs = zip(*results, strict=True)
    return max(((a - b).norm() / a.norm().clamp(min=1e-30)).item() for a, b in pairs)


def refusal(case: Replaced, rows: int) -> str:
    """What PyTorch says where the original asks for more than the machine has."""
    page = os.sysconf("SC_PAGE_SIZE")
    memory = page * os.sysconf("SC_PHYS_PAGES")
    held = page * int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held + memory, limits[1]))
    try:
        step(*prepare(case, "original", rows))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        if "allocate" not in reason:
            raise
        return reason[reason.index("you tried") :] if "you tried" in reason else reason
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    raise SystemExit(f"{case.name} at {rows} rows does run: give it a comparison")


def measure(case: Replaced, budget: float, rows: int | None = None) -> list[dict]:
    """One row for each side."""
    rows = rows or case.rows
    notes, apart = {side: "" for side in SIDES}, ""
    samples: dict[str, list[float]] = {}
    if case.cannot:
        sides = ("fastcl",)
        notes["original"] = f"{case.cannot}: {refusal(case, rows)}"
    else:
        sides, apart = SIDES, difference(case, rows, samples)
        if not apart <= LIMIT:
            raise SystemExit(f"{case.library} {case.name} differs by {apart:.1e}")
    steps = {side: prepare(case, side, rows) for side in sides}
    calls = {side: lambda pair=pair: step(*pair) for side, pair in steps.items()}
    if case.slow:
        del calls["original"]
    samples |= interleaved(calls, "cpu", budget)
    found = []
    for side in SIDES:
        package = case.package if side == "original" else "fastcl"
        version = fastcl.__version__ if side == "fastcl" else "its formula in plain PyTorch"
        if side == "original" and package:
            version = importlib.metadata.version(package)
        row = {
            "library": case.library, "version": version, "name": case.name, "rows": rows,
            "size": case.size, "variant": side, "difference": apart, "note": notes[side],
        }  # fmt: skip
        if side in samples:
            median, low, high = (x * 1e3 for x in quantiles(samples[side]))
            row |= {"median_ms": median, "q20_ms": low, "q80_ms": high}
            row["samples"] = len(samples[side])
        found.append(row)
    return found


class _Stepped:
    """A case as `extra_memory` takes it."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def step(self, function, inputs) -> None:
        step(function, inputs)

    def kept(self) -> float:
        return 0.0


def chosen(case: Replaced, names: list[str]) -> bool:
    return any(name in f"{case.library} {case.name}" for name in names)


def peaks(names: list[str], cases: tuple[Replaced, ...] = CASES) -> None:
    """One line per case and side; the gradients count, which are as large on both."""
    for index, case in enumerate(cases):
        if not chosen(case, names) or not installed(case):
            continue
        for side in SIDES[1:] if case.cannot else SIDES:
            if case.slow:
                step(*prepare(case, side, 16))  # what the first step leaves in memory
            function, inputs = prepare(case, side, case.rows)
            if case.slow:
                peak = growth(lambda f=function, x=inputs: step(f, x)) / 1e6
            else:
                peak = extra_memory(_Stepped(case.rows), function, inputs, "cpu") / 1e6
            print(json.dumps([index, side, peak]), flush=True)
            del function, inputs


def peaks_elsewhere(
    names: list[str], module: str = "benchmarks.migration"
) -> dict[tuple[int, str], float]:
    """Extra memory in MB, from a process that does nothing else."""
    command = [sys.executable, "-m", module, "--peaks", "--cases", *names]
    # What is freed goes back to the system at once, so that the peak is what was asked for.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    lines = [json.loads(x) for x in result.stdout.splitlines() if x.startswith("[")]
    return {(index, side): peak for index, side, peak in lines}


def _time(row: dict) -> str:
    value = float(row["median_ms"])
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


def _memory(row: dict) -> str:
    if row["extra_mb"] == "":
        return "-"
    value = float(row["extra_mb"])
    return f"{value:,.0f} MB" if value >= 10 else f"{value:.1f} MB"


def table(rows: list[dict]) -> str:
    """One line per class or function, original against fastcl."""
    lines = [
        "| library | replaced | size | original | fastcl | ratio | memory: original | fastcl |",
        "|" + " --- |" * 8,
    ]
    for original, ours in zip(rows[::2], rows[1::2], strict=True):
        name = f"{original['library']} {original['version']}"
        cells = [name if original["version"][0].isdigit() else original["library"]]
        cells += [f"`{original['name']}`", original["size"]]
        if original["median_ms"]:
            ratio = float(original["median_ms"]) / float(ours["median_ms"])
            cells += [_time(original), _time(ours), f"{ratio:.1f}x"]
        else:
            cells += ["does not run", _time(ours), "-"]
        lines.append("| " + " | ".join([*cells, _memory(original), _memory(ours)]) + " |")
    runs = dict.fromkeys(
        f"{r['machine']}, {r['threads']} threads, torch {r['torch']}, commit {r['commit']}, "
        f"{r['date']}" for r in rows
    )  # fmt: skip
    lines += [
        "",
        f"{'; '.join(runs)}: `python -m benchmarks.migration`, rows in "
        "[migration.csv](../benchmarks/results/migration.csv). float32, forward and backward (what "
        "has no gradient: one call), medians of interleaved rounds; memory is the peak above the "
        f"inputs, gradients included. The two agree within {LIMIT:g} at these sizes.",
    ]
    lines += [
        f"`{r['name']}` of {r['library']} on {r['size']} holds {r['note']}."
        for r in rows if r["note"]
    ]  # fmt: skip
    formulas = {r["library"] for r in rows if r["variant"] == "original"} & {"supcontrast"}
    if formulas:
        lines.append("SupContrast is not packaged; its side is its formula in plain PyTorch.")
    return "\n".join(lines) + "\n"


def renewed(new: list[dict], old: list[dict], cases: tuple[Replaced, ...] = CASES) -> list[dict]:
    """The rows of all cases in their order, new ones in the place of the old."""

    def key(row: dict) -> tuple:
        return row["library"], row["name"], str(row["rows"])

    found: dict[tuple, list[dict]] = {}
    for row in new:
        found.setdefault(key(row), []).append(row)
    kept: dict[tuple, list[dict]] = {}
    for row in old:
        kept.setdefault(key(row), []).append(row)
    order = [(case.library, case.name, str(case.rows)) for case in cases]
    return [row for x in order for row in found.get(x, kept.get(x, []))]


def show(path: Path) -> None:
    text = table(report.read(path))
    print(text)
    if path.parent == report.RESULTS:
        page = report.ROOT / "docs" / "migration.md"
        whole = report.insert(page.read_text(), "migration", text)
        page.write_text(report.insert(whole, "losses", compat_table.text(report.read(path))))
        report.write_pages("replaced", summary.replaced(report.read(path)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.migration", description=__doc__)
    only = "those whose library and name contain one of these; the rows of the others stay"
    parser.add_argument("--cases", nargs="+", default=[""], help=only)
    parser.add_argument("--budget", type=float, default=1.0, help="seconds per side and case")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="folder of the rows")
    parser.add_argument("--show", action="store_true", help="the table again, from the rows")
    parser.add_argument("--peaks", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    path = options.out / "migration.csv"
    if options.show:
        return show(path)
    if options.peaks:
        return peaks(options.cases)
    where, rows = report.circumstances("cpu"), []
    old = report.read(path) if options.cases != [""] and path.exists() else []
    memory = peaks_elsewhere(options.cases)
    for index, case in enumerate(CASES):
        if not chosen(case, options.cases):
            continue
        if not installed(case):
            print(f"{case.library} is not installed: left out", flush=True)
            continue
        for row in measure(case, options.budget):
            row["extra_mb"] = memory.get((index, row["variant"]), "")
            print(row["library"], row["name"], row["variant"], row.get("median_ms"), flush=True)
            rows.append({**where, **row})
        report.save(renewed(rows, old), path, COLUMNS)
    if not rows:
        raise SystemExit("no case was measured")
    show(path)


if __name__ == "__main__":
    main()
