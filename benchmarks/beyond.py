"""The examples beyond pictures: `python -m benchmarks.beyond [NAME ...]`.

Each runs as it is, in a process of its own, and leaves a row of results/beyond.csv and a picture in
docs/beyond; a name that is run again replaces its row. With the graph goes the memory of one step
on it, above its data, with fastcl's loss and with the usual code, which forms all similarities: of
LARGE nodes the latter is that of SMALL, by the square (results/beyond_memory.csv). The tables of
docs/beyond.md are made of both.
"""

import argparse
import multiprocessing
import runpy
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from fastcl.functional import nt_xent

from . import plain
from .memory import growth
from .report import RESULTS, ROOT, circumstances, insert, read, save
from .tables import grid

CSV, MEMORY_CSV = RESULTS / "beyond.csv", RESULTS / "beyond_memory.csv"
EXAMPLES, PAGE, PICTURES = ROOT / "examples", ROOT / "docs" / "beyond.md", ROOT / "docs" / "beyond"
COLUMNS = ("example", "before", "after", "seconds")
MEMORY_COLUMNS = ("nodes", "by", "extra_mb", "how")
SMALL, LARGE = 5_000, 50_000  # of SMALL nodes a matrix takes 400 MB, of LARGE 40 GB
GRAPH = "graph_nodes"
LOSSES: dict[str, Callable] = {"fastcl": nt_xent, "plain": plain.nt_xent}


class Example(NamedTuple):
    """A script of examples/.

    Args:
        what: What it trains, for the table.
        figure: What before and after are.
        arguments: Of its command line.
    """

    what: str
    figure: str
    arguments: tuple[str, ...] = ()


LINES = {
    GRAPH: Example(
        f"{LARGE:,} nodes, two views of the graph", "linear probe, a tenth labelled",
        ("--nodes", str(LARGE)),
    ),
    "time_series": Example("512 series, two crops", "linear probe, an eighth labelled"),
    "sounds": Example("768 clips, two excerpts", "linear probe, an eighth labelled"),
    "recommender": Example("4,000 users, 2,000 items", "recall@50, without logQ and with it"),
}  # fmt: skip


def alone(function: Callable, *arguments: object) -> object:
    """What it returns, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measured(name: str) -> dict:
    """A row, made in this process."""
    main = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
    started = time.perf_counter()
    row = main([*LINES[name].arguments, "--plot", str(PICTURES / f"{name}.png")])
    return {"example": name, **row, "seconds": time.perf_counter() - started}


def step_memory(by: str, nodes: int) -> float:
    """MB above graph and network at the peak of a training step, of this process."""
    graph = runpy.run_path(str(EXAMPLES / f"{GRAPH}.py"))
    encoder = graph["Encoder"]()

    def step(edges, x) -> None:
        LOSSES[by](*(encoder(*graph["view"](edges, x)) for _ in "12")).backward()

    step(*graph["draw_graph"](200)[:2])  # what is loaded once
    edges, x, _ = graph["draw_graph"](nodes)
    return growth(lambda: step(edges, x)) / 1e6


def memory() -> list[dict]:
    """Measured of SMALL nodes, of LARGE with fastcl; predicted of LARGE with the usual code."""
    cases = [("fastcl", SMALL), ("plain", SMALL), ("fastcl", LARGE)]
    rows = [
        {"nodes": n, "by": by, "extra_mb": alone(step_memory, by, n), "how": "measured"}
        for by, n in cases
    ]
    extra = rows[1]["extra_mb"] * (LARGE / SMALL) ** 2
    return [*rows, {"nodes": LARGE, "by": "plain", "extra_mb": extra, "how": "predicted"}]


def _where(row: dict[str, str]) -> str:
    return (f"{row['machine']}, {row['threads']} threads, torch {row['torch']}, commit "
            f"{row['commit']}, {row['date']}")  # fmt: skip


def table(rows: list[dict[str, str]]) -> str:
    """Of the rows of results/beyond.csv."""
    cells = [
        [
            f"[{r['example']}](../examples/{r['example']}.py)", LINES[r["example"]].what,
            LINES[r["example"]].figure, f"{float(r['before']):.3f}", f"{float(r['after']):.3f}",
        ]
        for r in rows
    ]  # fmt: skip
    heads = ["example", "of what", "figure", "before", "after"]
    return f"{grid(heads, cells)}\n\nOne seed each. {_where(rows[-1])}.\n"


def memory_table(rows: list[dict[str, str]]) -> str:
    """Of the rows of results/beyond_memory.csv: a line for every number of nodes."""
    cells: dict[str, list[str]] = {}
    for r in rows:
        note = "" if r["how"] == "measured" else f" ({r['how']})"
        amount = f"{float(r['extra_mb']):,.0f} MB{note}"
        cells.setdefault(r["nodes"], [f"{int(r['nodes']):,}"]).append(amount)
    heads = ["nodes", "`nt_xent`", "by all similarities"]
    return (
        f"{grid(heads, list(cells.values()))}\n\nAt the peak of a training step, above graph and "
        f"network; predicted: by the square of the nodes. {_where(rows[-1])}.\n"
    )


def pages() -> None:
    """Write both tables again from the committed rows."""
    text = insert(PAGE.read_text(), "beyond", table(read(CSV)))
    PAGE.write_text(insert(text, "beyond_memory", memory_table(read(MEMORY_CSV))))


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.beyond", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="examples; all without one")
    names = parser.parse_args().names or list(LINES)
    if unknown := sorted(set(names) - LINES.keys()):
        raise SystemExit(f"unknown: {', '.join(unknown)}; there are {', '.join(LINES)}")
    given = circumstances("cpu")  # now: the rows will change files of the repository
    rows = {row["example"]: row for row in read(CSV)} if CSV.exists() else {}
    PICTURES.mkdir(exist_ok=True)
    for name in names:
        rows[name] = given | alone(measured, name)
        save([rows[n] for n in LINES if n in rows], CSV, COLUMNS)
    if GRAPH in names:
        save([given | row for row in memory()], MEMORY_CSV, MEMORY_COLUMNS)
    pages()


if __name__ == "__main__":
    main()
