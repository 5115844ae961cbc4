"""What a case should take on an H200: every launch of its step, each by the model of model.py.

`python -m benchmarks.predict` writes results/predicted.csv and its table, with `--kernels`
results/predicted_kernels.csv: every kernel of the flagships. Nothing is measured.
"""

import csv
import itertools
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
import triton

from . import report, static_steps, tables
from .cases import ARGUMENTS, Case, Update
from .hardware import H200
from .launches import of_step
from .model import Prediction, predict
from .suites import SUITES
from .variants import OURS

ROWS = report.RESULTS / "predicted.csv"
HOST = report.RESULTS / "host.csv"  # by `python -m benchmarks.host`
KERNELS = report.RESULTS / "predicted_kernels.csv"
COLUMNS = (
    "date", "commit", "triton", "case", "loss", "n", "m", "d", "dtype", "units", "limit_ms",
    "predicted_ms", "fraction", "wanted_ms", "launches", "host_ms", "longest",
)  # fmt: skip
# Milliseconds to reach on an H200, forward and backward.
WANTED = {
    "NT-Xent 8,192 x 128": 0.12,
    "NT-Xent 32,768 x 128": 1.4,
    "CLIP 32,768 x 512": 8.0,
    "CLIP 65,536 x 512": 31.0,
    "CLIP 65,536 x 768": 46.0,
    "SigLIP 65,536 x 768": 35.0,
    "MoCo 256 x 65,536 x 128": 0.040,
    "MoCo 4,096 x 65,536 x 256": 0.55,
}


def inputs(case: Case | Update) -> dict:
    """The case's tensors without memory."""
    if isinstance(case, Update):
        online = [torch.empty(s, dtype=case.dtype, device="meta") for s in case.shapes()]
        target = [torch.empty_like(x, dtype=torch.float32) for x in online]
        return {"target": target, "online": online}
    n = case.n // 2 if case.loss == "nt_xent" else case.n
    names = ARGUMENTS[case.loss]
    tensors = {k: torch.empty(n, case.d, dtype=case.dtype, device="meta") for k in names}
    if case.loss.startswith("moco"):
        tensors["queue"] = torch.empty(case.m, case.d, dtype=case.dtype, device="meta")
    if case.loss == "moco_push":
        tensors["pointer"] = torch.empty((), dtype=torch.int64, device="meta")
    if case.loss == "sup_con":
        tensors["labels"] = torch.empty(n, dtype=torch.int64, device="meta")
    return tensors


def cases() -> list[Case | Update]:
    """Contrasts and updates of the GPU suite but the largest, whose 49,000 launches take minutes to
    record."""
    known = [case for case in SUITES["gpu"] if isinstance(case, Case | Update)]
    return [case for case in known if case.loss == "momentum" or case.n < 2**20]


def launches(case: Case | Update) -> list[Prediction]:
    """Every launch of a step."""
    tensors, function = inputs(case), OURS.build(case)
    return [predict(x) for x in of_step(lambda: case.step(function, tensors))]


def host_seconds(case: str, path: Path = HOST) -> float | str:
    """Of the host for a step without a CUDA graph: measured over a driver that does nothing, but
    a launch of Triton's as long as on the card, where that was measured. "" if it never was."""
    found = {r["case"]: r for r in report.read(path)} if path.exists() else {}
    if case not in found:
        return ""
    kernels, step, launch = (float(found[case][k]) for k in ("kernels", "step_us", "launch_us"))
    more = kernels * (H200.host - launch * 1e-6) if H200.host is not None else 0.0
    return step * 1e-6 + more


def _row(name: str, loss: str, parts: list[Prediction], limit: float) -> dict:
    total = sum(x.seconds for x in parts)
    by_name = Counter()
    for x in parts:
        by_name[f"{x.name} ({x.bound})"] += x.seconds
    host = host_seconds(name)
    return {
        "case": name, "loss": loss, "limit_ms": limit * 1e3, "predicted_ms": total * 1e3,
        "fraction": limit / total, "wanted_ms": WANTED.get(name, ""), "launches": len(parts),
        "host_ms": host and host * 1e3,
        "longest": "; ".join(f"{k} {v / total:.0%}" for k, v in by_name.most_common(3)),
    }  # fmt: skip


def row(case: Case | Update) -> dict:
    limit = case.work / (H200.copy_rate if case.measure == "B" else H200.product_rate)
    return _row(case.name, case.loss, launches(case), limit) | {
        "n": case.n, "m": case.m, "d": case.d, "units": getattr(case, "units", ""),
        "dtype": str(case.dtype).removeprefix("torch."),
    }  # fmt: skip


def late_rows() -> Iterator[dict]:
    """Of late interaction as the static report records it: n tokens of queries, each against m of
    documents, the own hard ones included; at least a product of each pair."""
    recorded = static_steps.steps()
    for name, (n, lq, m, ld, d, h) in static_steps.LATE.items():
        parts = [predict(x) for x in of_step(recorded[name][1])]
        limit = 2 * n * lq * (m + h) * ld * d / H200.product_rate
        sizes = {"n": n * lq, "m": (m + h) * ld, "d": d, "units": 1, "dtype": "bfloat16"}
        yield _row(name, "max_sim", parts, limit) | sizes


def table(rows: list[dict[str, str]]) -> str:
    """Prediction beside limit and goal, and where the time goes."""
    heads = ["case", "limit", "predicted", "of the limit's rate", "wanted", "launches",
             "host, without a graph", "most of it"]  # fmt: skip
    lines = [
        [r["case"], *(_shown(r[k]) for k in ("limit_ms", "predicted_ms")),
         f"{float(r['fraction']):.0%}", _shown(r["wanted_ms"]), str(r["launches"]),
         _shown(r["host_ms"]), r["longest"]]
        for r in rows
    ]  # fmt: skip
    first, host = rows[0], report.read(HOST)[0]
    return (
        f"{tables.grid(heads, lines)}\n\nPredicted for an H200 from machine code, nothing "
        f"measured: commit {first['commit']}, Triton {first['triton']}, {first['date']}. Forward "
        "and backward on the device; the model is described in benchmarks/model.py. The time of "
        "the host is measured without a GPU (benchmarks/host.py): "
        f"{host['machine']}, Triton {host['triton']}.\n"
    )


def _shown(milliseconds: str | float) -> str:
    if milliseconds == "":
        return "-"
    x = float(milliseconds)
    return f"{x:,.0f} ms" if x >= 100 else f"{x:.3g} ms"


def kernel_rows() -> Iterator[dict]:
    """Launches and microseconds of every kernel in a step of the flagships, as a profile has it."""
    for case in SUITES["flagships"]:
        found: dict[str, list[Prediction]] = {}
        for x in launches(case):
            found.setdefault(x.name, []).append(x)
        for name, parts in sorted(found.items(), key=lambda x: -sum(y.seconds for y in x[1])):
            bound = max(parts, key=lambda x: x.seconds).bound
            us = sum(x.seconds for x in parts) * 1e6
            yield {"case": case.name, "kernel": name, "calls": len(parts), "us": us, "bound": bound}


def main() -> int:
    """Write results/predicted.csv and its table, or the kernels'."""
    where = report.circumstances("cpu")
    where = {k: where[k] for k in ("date", "commit")} | {"triton": triton.__version__}
    if "--kernels" in sys.argv:
        KERNELS.unlink(missing_ok=True)
        for line in kernel_rows():
            report.append(where | line, KERNELS)
        return 0
    rows = []
    for found in itertools.chain(map(row, cases()), late_rows()):
        rows.append(where | found)
        print("{case:34} limit {limit_ms:9.3f} ms, predicted {predicted_ms:9.3f} ms "
              "({fraction:.0%}); {longest}".format(**rows[-1]), flush=True)  # fmt: skip
    with ROWS.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for r in rows:
            writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in r.items()})
    ROWS.with_suffix(".md").write_text(table(report.read(ROWS)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
