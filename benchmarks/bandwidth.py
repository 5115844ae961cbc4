"""Momentum and queue in bytes per second: `python -m benchmarks.bandwidth [--device cpu|cuda]`.

Both only move bytes, so what counts is the share of a large copy's rate, which is timed in the
same rounds. The lists are the parameters of ResNet-50 and ViT-L; a push reads its rows and writes
as many. Every variant is checked against float64 before it is timed. Rows go to
results/bandwidth-<device>.csv, the table to the .md beside it.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

import fastcl.functional as fastcl

from . import report, tables
from .cases import MOMENTUM, Update
from .measure import CEILING
from .timing import ceiling, interleaved, quantiles

# Largest error in norm, relative; of a float32 target after one step, and of stored rows.
LIMIT = {torch.float32: 1e-6, torch.bfloat16: 4e-3}


@dataclass(frozen=True)
class Push:
    """New keys into a queue, normalised on the way."""

    rows: int
    width: int
    size: int  # of the queue
    dtype: torch.dtype = torch.float32  # of keys and queue

    @property
    def name(self) -> str:
        return f"push {self.rows:,} of {self.size:,} x {self.width}"

    @property
    def work(self) -> float:
        return 2.0 * self.rows * self.width * self.dtype.itemsize

    def inputs(self, device: str) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(self.rows, self.width, generator=generator)
        queue = torch.zeros(self.size, self.width, device=device, dtype=self.dtype)
        pointer = torch.zeros((), dtype=torch.int64, device=device)
        return {"queue": queue, "pointer": pointer, "rows": rows.to(device, self.dtype)}


CASES: tuple[Update | Push, ...] = (
    Update("ResNet-50"),
    Update("ResNet-50", torch.bfloat16),
    Update("ViT-L"),
    Update("ViT-L", torch.bfloat16),
    Push(256, 128, 65536),  # MoCo's own: a launch is all there is
    Push(256, 128, 65536, torch.bfloat16),
    Push(4096, 256, 65536, torch.bfloat16),
    Push(65536, 256, 65536),  # 134 MB: bytes are all there is
)


def _ours(target: list[Tensor], online: list[Tensor]) -> None:
    fastcl.momentum_update_(target, online, MOMENTUM)


def _foreach_lerp(target: list[Tensor], online: list[Tensor]) -> None:
    torch._foreach_lerp_(target, online, 1 - MOMENTUM)


def _averaged_model() -> Callable[[list[Tensor], list[Tensor]], None]:
    average = get_ema_multi_avg_fn(MOMENTUM)
    return lambda target, online: average(target, online, None)


def _push(queue: Tensor, pointer: Tensor, rows: Tensor) -> None:
    fastcl.queue_push_(queue, pointer, rows, normalize=True)


def _two_steps(queue: Tensor, pointer: Tensor, rows: Tensor) -> None:
    """Without the fusion: normalise, then push."""
    fastcl.queue_push_(queue, pointer, fastcl.unit_rows(rows))


def _as_in_moco() -> Callable[..., Tensor]:
    """The original's queue: [d, K], columns written at a position the host knows, and a clone.

    Returns its own ring, rows by rows.
    """
    columns: list[Tensor] = []

    def function(queue: Tensor, pointer: Tensor, rows: Tensor) -> Tensor:
        if not columns:
            columns.append(queue.T.contiguous())
        (ring,) = columns
        start = int(pointer) % len(queue)
        ring.clone()  # what the loss reads, because the queue changes before the backward
        ring[:, start : start + len(rows)] = F.normalize(rows, dim=1).T
        pointer.fill_((start + len(rows)) % len(queue))
        return ring.T

    return function


def variants(case: Update | Push) -> dict[str, Callable[..., Tensor | None]]:
    if isinstance(case, Push):
        return {
            "fastcl": _push,
            "normalise, push": _two_steps,
            "MoCo: clone, strided write": _as_in_moco(),
        }
    return {
        "fastcl": _ours,
        "_foreach_lerp_": _foreach_lerp,
        "AveragedModel": _averaged_model(),
    }


def error(case: Update | Push, function: Callable[..., Tensor | None], device: str) -> float:
    """Of one call, in norm, relative to float64."""
    inputs = case.inputs(device)
    if isinstance(case, Push):
        ring = function(**inputs)
        ours = inputs["queue"] if ring is None else ring
        exact = F.normalize(inputs["rows"].double(), dim=1)
        return ((ours[: case.rows].double() - exact).norm() / exact.norm()).item()
    exact = [t.double().lerp(o.double(), 1 - MOMENTUM) for t, o in zip(*inputs.values())]  # noqa: B905
    function(**inputs)
    pairs = list(zip(inputs["target"], exact, strict=True))
    off = sum((a.double() - b).square().sum().item() for a, b in pairs)
    return (off / sum(b.square().sum().item() for _, b in pairs)) ** 0.5


def measure(case: Update | Push, device: str, budget: float) -> list[dict]:
    """One row per variant; one that cannot run or is wrong has a note in place of figures."""
    passed, errors, notes = {}, {}, {}
    limit = LIMIT[torch.float32 if isinstance(case, Update) else case.dtype]
    for name, function in variants(case).items():
        try:
            errors[name] = error(case, function, device)
        except (RuntimeError, TypeError) as reason:
            if name == "fastcl":
                raise
            notes[name] = f"fails: {str(reason).splitlines()[0][:80]}"
            continue
        if errors[name] <= limit:
            passed[name] = function
        elif name == "fastcl":
            raise SystemExit(f"fastcl is wrong on {case.name}: error {errors[name]:.1e}")
        else:
            notes[name] = f"wrong by {errors[name]:.0e}: not timed"
    inputs = {name: case.inputs(device) for name in passed}
    fresh = variants(case)  # MoCo's ring belongs to its inputs
    calls = {name: lambda name=name: fresh[name](**inputs[name]) for name in passed}
    copy, work = ceiling("B", device, torch.float32)
    samples = interleaved({CEILING: copy, **calls}, device, budget)
    rate = work / quantiles(samples.pop(CEILING))[0]
    rows = []
    for name in variants(case):
        row = {
            "case": case.name, "dtype": str(case.dtype).removeprefix("torch."), "variant": name,
            "bytes": case.work, "error": errors.get(name, ""), "note": notes.get(name, ""),
        }  # fmt: skip
        figures = dict.fromkeys(("median_ms", "q20_ms", "q80_ms", "gb_s", "copy_gb_s", "share"), "")
        if name in samples:
            median, low, high = quantiles(samples[name])
            achieved = case.work / median
            values = (median * 1e3, low * 1e3, high * 1e3, achieved / 1e9, rate / 1e9)
            figures = dict(zip(figures, (*values, achieved / rate), strict=True))
        rows.append(row | figures)
    return rows


def table(rows: list[dict[str, str]]) -> str:
    """fastcl's time, rate and share of the copy's rate, and the others as multiples."""
    by: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for row in rows:
        by.setdefault((row["case"], row["dtype"]), {})[row["variant"]] = row
    others = list(dict.fromkeys(r["variant"] for r in rows if r["variant"] != "fastcl"))
    lines = []
    for (case, dtype), found in by.items():
        ours = found["fastcl"]
        cells = [case if case.startswith("momentum") else f"{case}, {dtype}"]
        cells += [tables.milliseconds(ours), f"{float(ours['gb_s']):.3g} GB/s"]
        cells.append(f"{float(ours['share']):.0%}")
        lines.append([*cells, *(tables.times(found.get(name), ours) for name in others)])
    heads = ["case", "fastcl", "rate", "of a copy's rate", *others]
    first = rows[0]
    where = (
        f"{first['machine']}, {first['threads']} threads, torch {first['torch']}, "
        f"commit {first['commit']}, {first['date']}, load {float(first['load']):.1f}. A copy of "
        f"268 MB in the same rounds; the others as multiples of fastcl's time."
    )
    failed = dict.fromkeys(f"{r['variant']} on {r['case']}: {r['note']}" for r in rows if r["note"])
    return "\n".join([tables.grid(heads, lines), "", where, *(f"Not timed: {x}." for x in failed)])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bandwidth", description=__doc__)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default=default)
    parser.add_argument("--budget", type=float, default=1.0, help="seconds per variant and case")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="folder of the results")
    options = parser.parse_args()
    where, failed = report.circumstances(options.device), 0
    path = options.out / f"bandwidth-{options.device}.csv"
    path.unlink(missing_ok=True)
    for case in CASES:
        print(case.name, case.dtype, flush=True)
        try:
            rows = measure(case, options.device, options.budget)
        except (SystemExit, RuntimeError) as reason:  # the others are worth having
            print(f"  fails: {str(reason)[:400]}", flush=True)
            failed = 1
            continue
        for row in rows:
            shown = f"{row['gb_s']:.1f} GB/s, {row['share']:.0%}" if row["gb_s"] else row["note"]
            print(f"  {row['variant']:28} {shown}", flush=True)
            report.append(where | row, path)
    path.with_suffix(".md").write_text(table(report.read(path)) + "\n")
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
