"""Results: CSV rows with their circumstances, tables, plots, and the copies of the tables in pages.

`python -m benchmarks.report SUITE...` writes tables and plots again from the committed rows.
"""

import csv
import datetime
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import torch

import fastcl
from fastcl._processor import processor

from . import plots, summary, tables
from .variants import bfloat16_products

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
# Where tables stand between markers, beside the one of docs/migration.md and docs/methods.md each.
PAGES = "README.md", "docs/results.md", "docs/data.md", "docs/finetuning.md"


def circumstances(device: str) -> dict[str, str | int | float]:
    """When, where and with what a row was measured; asked for before anything is timed."""
    gpu = device == "cuda"
    return {
        "date": datetime.date.today().isoformat(), "commit": _commit(),
        "machine": torch.cuda.get_device_name() if gpu else _processor(),
        "bf16": "yes" if (torch.cuda.is_bf16_supported if gpu else bfloat16_products)() else "no",
        "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0], "python": platform.python_version(),
        "torch": torch.__version__, "fastcl": fastcl.__version__,
    }  # fmt: skip


def _commit() -> str:
    """The commit of this folder, or FASTCL_COMMIT where there is no git or no repository."""
    command = ["git", "describe", "--always", "--dirty"]
    found = ""
    if shutil.which("git"):
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return found or os.environ.get("FASTCL_COMMIT", "unknown")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if "model name" in line), "CPU")
    found = processor()
    return f"{name}, {found.instruction_set if found else 'reference'}"


def line(row: dict) -> str:
    """One row for the terminal."""
    if "median_ms" not in row:
        return f"  {row['variant']:28} {row['note']}"
    return (
        f"  {row['variant']:28} {row['median_ms']:10.3f} ms {row['fraction']:6.1%} of the ceiling"
        f"  error {row['error']:.0e}"
    )


COLUMNS = (
    "case", "loss", "n", "m", "d", "dtype", "variant", "version", "median_ms", "q20_ms", "q80_ms",
    "samples", "extra_mb", "measure", "work", "rate", "ceiling", "fraction", "error", "note",
    "remark",
)  # fmt: skip


def save(rows: list[dict], path: Path, columns: tuple[str, ...] = COLUMNS) -> None:
    """Replace the file; called after every case, so an interrupted run keeps what it has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = [k for k in rows[0] if k not in columns] + list(columns)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fields, restval="")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})


def renew(new: list[dict], old: list[dict]) -> list[dict]:
    """All rows, a case's of the same machine in the place of its old ones."""

    def key(row: dict) -> tuple[str, str]:
        return row["machine"], row["case"]

    fresh: dict[tuple[str, str], list[dict]] = {}
    for row in new:
        fresh.setdefault(key(row), []).append(row)
    placed = {key(row): [] for row in [*old, *new]}
    for row in old:
        placed[key(row)].append(row)
    return [row for rows in (placed | fresh).values() for row in rows]


def append(row: dict, path: Path) -> None:
    """A row at the end of a file; the first one says what the columns are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(row)
        writer.writerow(f"{v:.4g}" if isinstance(v, float) else v for v in row.values())


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def predicted(path: Path = RESULTS / "predicted.csv") -> dict[str, float]:
    """Milliseconds that `python -m benchmarks.predict` expects of every case of the GPU suite."""
    return {r["case"]: float(r["predicted_ms"]) for r in read(path)} if path.exists() else {}


def by_machine(rows: list[dict[str, str]]) -> list[list[dict[str, str]]]:
    """Rows of each machine and instruction set, which no table mixes."""
    found: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        found.setdefault(row["machine"], []).append(row)
    return list(found.values())


def texts(suite: str, folder: Path = RESULTS) -> dict[str, str]:
    """The tables of a suite's rows by their names, one below another for every machine."""
    machines = by_machine(read(folder / f"{suite}.csv"))
    if suite.startswith("scaling"):
        return {suite: "\n".join(map(tables.scaling, machines))}
    foretold = predicted() if suite == "gpu" else None
    found = {suite: "\n".join(tables.headline(rows, foretold) for rows in machines)}
    if libraries := "\n".join(filter(None, map(tables.libraries, machines))):
        found[f"{suite}_peers"] = libraries
    return found


def show(suite: str, folder: Path = RESULTS) -> None:
    """Tables and a plot of a suite's rows; in the pages too, for the committed ones."""
    for name, text in texts(suite, folder).items():
        (folder / f"{name}.md").write_text(text)
        print(f"\n{text}")
        if folder == RESULTS:
            write_pages(name, text)
    if folder == RESULTS and suite == "cpu":
        write_pages("speed", summary.speed(read(folder / "cpu.csv")))
    plot = plots.scaling if suite.startswith("scaling") else plots.distances
    plot(by_machine(read(folder / f"{suite}.csv"))[0], folder / f"{suite}.png")
    print(f"written to {folder}")


def write_pages(name: str, text: str) -> None:
    """The table of that name in every page that has its markers."""
    for page in map(ROOT.joinpath, PAGES):
        page.write_text(insert(page.read_text(), name, text))


def insert(page: str, name: str, text: str) -> str:
    """Put a table between its markers; without them the text stays as it is."""
    start, end = f"<!-- {name}: start -->\n", f"<!-- {name}: end -->"
    if start not in page:
        return page
    before, rest = page.split(start)
    return before + start + text + end + rest.split(end)[1]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        show(name)
