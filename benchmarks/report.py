"""Results: CSV rows with their circumstances, a Markdown table, plots, and the README's copy."""

import csv
import datetime
import importlib.util
import platform
import subprocess
from pathlib import Path

import torch

import fastcl

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def circumstances(device: str) -> dict[str, str | int]:
    """When, where and with what a row was measured."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    machine = torch.cuda.get_device_name() if device == "cuda" else _processor()
    return {
        "date": datetime.date.today().isoformat(), "commit": commit, "machine": machine,
        "threads": torch.get_num_threads(), "python": platform.python_version(),
        "torch": torch.__version__, "fastcl": fastcl.__version__,
    }  # fmt: skip


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if "model name" in line), "CPU")
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def write(rows: list[dict], suite: str, device: str) -> None:
    """Replace results/<suite>.csv, its table and its plots."""
    RESULTS.mkdir(exist_ok=True)
    where = circumstances(device)
    path = RESULTS / f"{suite}.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*where, *rows[0]])
        writer.writeheader()
        for row in rows:
            shown = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()}
            writer.writerow({**where, **shown})
    text = table(path)
    path.with_suffix(".md").write_text(text)
    readme = ROOT / "README.md"
    if readme.exists():
        readme.write_text(insert(readme.read_text(), suite, text))
    plot(path)
    print(f"\n{text}\nwritten to {path.relative_to(ROOT)}")


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table(path: Path) -> str:
    """One line per case: fastcl, and how many times as long every other variant takes."""
    rows = read(path)
    cases = list(dict.fromkeys(row["case"] for row in rows))
    others = list(dict.fromkeys(r["variant"] for r in rows if r["variant"] != "fastcl"))
    heads = [f"{name} / fastcl" for name in others]
    lines = [
        "| case | fastcl | of the product rate | " + " | ".join(heads)
        + " | extra memory: fastcl | plain |",
        "|" + " --- |" * (5 + len(others)),
    ]  # fmt: skip
    for case in cases:
        by = {row["variant"]: row for row in rows if row["case"] == case}
        ours = by["fastcl"]
        ratios = [
            f"{float(by[k]['median_ms']) / float(ours['median_ms']):.1f}x" if k in by else "-"
            for k in others
        ]
        memory = [
            f"{float(by[k]['extra_mb']):,.0f} MB" if k in by and by[k]["extra_mb"] else "-"
            for k in ("fastcl", "plain")
        ]
        time = float(ours["median_ms"])
        shown = f"{time:,.0f}" if time >= 100 else f"{time:.3g}"
        cells = [case, f"{shown} ms", f"{float(ours['fraction']):.0%}"]
        lines.append("| " + " | ".join(cells + ratios + memory) + " |")
    first = rows[0]
    lines += [
        "",
        f"{first['machine']}, {first['threads']} threads, torch {first['torch']}, "
        f"commit {first['commit']}, {first['date']}. Forward and backward, "
        f"{first['dtype']}, medians of interleaved rounds; memory above inputs and gradients.",
    ]
    return "\n".join(lines) + "\n"


def insert(readme: str, suite: str, text: str) -> str:
    """Put a table between its markers."""
    start, end = f"<!-- {suite}: start -->\n", f"<!-- {suite}: end -->"
    if start not in readme:
        return readme
    before, rest = readme.split(start)
    return before + start + text + end + rest.split(end)[1]


def plot(path: Path) -> None:
    """Time and memory against rows, both axes logarithmic, where matplotlib is installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [r for r in read(path) if r["loss"] == "nt_xent" and r["d"] == "128"]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    for axis, key, label in zip(axes, ("median_ms", "extra_mb"), ("ms", "MB"), strict=True):
        for name in dict.fromkeys(r["variant"] for r in rows):
            mine = [r for r in rows if r["variant"] == name and r[key]]
            points = sorted((int(r["n"]), float(r[key])) for r in mine)
            axis.loglog(*zip(*points, strict=True), marker="o", label=name) if points else None
        axis.set(xlabel="rows", ylabel=label, title="NT-Xent, width 128")
    ours = sorted((r for r in rows if r["variant"] == "fastcl"), key=lambda r: int(r["n"]))
    limit = [float(r["median_ms"]) * float(r["fraction"]) for r in ours]
    axes[0].loglog([int(r["n"]) for r in ours], limit, "k--", label="products alone")
    axes[0].legend()
    figure.savefig(path.with_suffix(".png"), dpi=120)
    plt.close(figure)
