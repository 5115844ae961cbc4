"""What pretraining on the digits is worth: `python -m benchmarks.digits [SEEDS]`.

Every method over seeds 0 to SEEDS - 1 (3 by default), from the command line that users have. Rows
go to results/digits.csv, the table of means and worst seeds to results/digits.md and
docs/results.md.
"""

import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from .report import RESULTS, circumstances, read, write_pages

METHODS = ("moco", "simclr")


def train(method: str, seed: int) -> dict:
    """Pretrain once; the accuracies of pixels, untrained and trained backbone, and the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fastcl.cli", "pretrain", "--method", method]
        command += ["--seed", str(seed), "--out", folder, "--resume", "never"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        results = json.loads((Path(folder) / "results.json").read_text())
    row = {"method": method, "seed": seed}
    for score in results["scores"]:
        name = score["features"].split()[0]
        row |= {f"{name}_knn": score["knn"], f"{name}_probe": score["probe"]}
    row |= {f"share_{k}": v for k, v in (results["shares"] or {}).items()}
    return row | {"seconds": results["seconds"]}


def table(rows: list[dict[str, str]]) -> str:
    """Mean over seeds, and the worst seed in brackets."""

    def cell(method: str, key: str) -> str:
        values = [float(r[key]) for r in rows if r["method"] == method]
        return f"{sum(values) / len(values):.3f} ({min(values):.3f})"

    lines = ["| backbone | 20-NN | linear probe, 5 labels per class |", "| --- | --- | --- |"]
    first = rows[0]["method"]
    for name, label in (("raw", "none: raw pixels"), ("untrained", "untrained small convnet")):
        lines.append(f"| {label} | {cell(first, name + '_knn')} | {cell(first, name + '_probe')} |")
    for method in dict.fromkeys(r["method"] for r in rows):
        knn, probe = (cell(method, f"trained_{key}") for key in ("knn", "probe"))
        lines.append(f"| pretrained, {method} | {knn} | {probe} |")
    seconds = [float(r["seconds"]) for r in rows]
    one = rows[0]
    lines += [
        "",
        f"Accuracy on 500 held-out digits, mean over {len({r['seed'] for r in rows})} seeds (worst "
        f"seed). Training took {min(seconds):.0f} to {max(seconds):.0f} s: {one['machine']}, "
        f"{one['threads']} threads, torch {one['torch']}, commit {one['commit']}, {one['date']}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    rows = []
    for method in METHODS:
        for seed in range(seeds):
            rows.append({**circumstances("cpu"), **train(method, seed)})
            print(rows[-1], flush=True)
    path = RESULTS / "digits.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})
    text = table(read(path))
    path.with_suffix(".md").write_text(text)
    write_pages("digits", text)
    print(text)


if __name__ == "__main__":
    main()
