"""Rows and table of `benchmarks.methods`."""

import csv
import os
from collections.abc import Callable
from dataclasses import dataclass

from .methods_index import table
from .report import RESULTS, ROOT, insert, read

DATA = ROOT.parent / "shared" / "data"
RESULTS_CSV = RESULTS / "methods.csv"
INDEX = ROOT / "docs" / "methods.md"
COLUMNS = (
    "method", "family", "figure", "epochs", "before", "after", "rank_before", "rank_after",
    "loss_first", "loss_last", "mflop_per_image", "seconds", "date", "commit", "machine",
    "bf16", "cores", "workers", "threads", "load", "python", "torch", "fastcl",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One line of the table.

    Args:
        name: As in the table; a name that has a row is not run again.
        family: The heading it belongs to.
        run: Trains and measures: figure (what before and after are), epochs, before, after,
            rank_before, rank_after, loss_first, loss_last, mflop_per_image ("" for texts).
    """

    name: str
    family: str
    run: Callable[[], dict]


def finished() -> set[str]:
    """Names with a row."""
    return {row["method"] for row in read(RESULTS_CSV)} if RESULTS_CSV.exists() else set()


def append(row: dict) -> None:
    """One more row, on the disk when this returns."""
    RESULTS_CSV.parent.mkdir(exist_ok=True)
    new = not RESULTS_CSV.exists()
    shown = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()}
    with RESULTS_CSV.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(shown)
        file.flush()
        os.fsync(file.fileno())


def write_table(order: list[str]) -> None:
    """results/methods.md: one line per row, in the order of the entries."""
    rows = sorted(
        (row for row in read(RESULTS_CSV) if row["method"] in order),
        key=lambda row: order.index(row["method"]),
    )
    lines = [
        "| method | family | figure | before | after | effective rank before | after | loss, first "
        "and last epoch | epochs | seconds |",
        "|" + " --- |" * 10,
    ]
    for r in rows:
        before, after = float(r["before"]), float(r["after"])
        lines.append(
            f"| {r['method']} | {r['family']} | {r['figure']} | {before:.3f} | {after:.3f} | "
            f"{float(r['rank_before']):.0f} | {float(r['rank_after']):.0f} | "
            f"{float(r['loss_first']):.3f}, {float(r['loss_last']):.3f} | {r['epochs']} | "
            f"{float(r['seconds']):.0f} |"
        )
    if rows:
        r = rows[-1]
        minutes = sum(float(row["seconds"]) / int(row["workers"]) for row in rows) / 60
        lines += ["", f"One seed. {r['machine']}, torch {r['torch']}, commit {r['commit']}, "
                  f"{r['date']}; threads: {r['threads']} in each of {r['workers']} processes; "
                  f"{minutes:.0f} minutes for all."]  # fmt: skip
    RESULTS_CSV.with_suffix(".md").write_text("\n".join(lines) + "\n")


def write_index() -> None:
    """The table of docs/methods.md, with the rows there are."""
    rows = read(RESULTS_CSV) if RESULTS_CSV.exists() else []
    INDEX.write_text(insert(INDEX.read_text(), "methods", table(rows)))
