"""Which mode for how many ranks: `python -m benchmarks.plan [--no-validation] [options]`.

First the cost model (`benchmarks.cost`) is held to measured gloo runs on this machine: rates and
links are taken at some sizes, whole steps of `fastcl.distributed.clip` are predicted and measured
at others. Then it plans 8, 64 and 1,024 GPUs, whose figures are assumptions given by the options.
Writes results/plan.csv and .md.
"""

import argparse
import csv
import os
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import fastcl
from fastcl._ranks import Ranks
from fastcl.distributed import _blocks
from fastcl.distributed._blocks import Problem

from . import cost, report
from .cost import Link, Machine

WORLDS, BATCHES = (8, 64, 1024), (2**15, 2**17, 2**20, 2**22)
FIT, HELD = (256, 2048), (512, 1024, 4096)  # rows per rank
GLOO_WIDTH, ROUNDS = 128, 7


def _seconds(call, ranks: Ranks) -> float:
    """Median over rounds of the slowest rank's time."""
    times = []
    for _ in range(ROUNDS + 1):
        dist.barrier()
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    slowest = torch.tensor(times[1:], dtype=torch.float64)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    return slowest.median().item()


def _line(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Intercept (zero at least) and slope through two points."""
    (x0, y0), (x1, y1) = points
    slope = (y1 - y0) / (x1 - x0)
    return max(0.0, y0 - slope * x0), slope


def _rows(n: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, GLOO_WIDTH), dim=1)


def _block(n: int) -> None:
    """One block of CLIP, forward and backward."""
    q, k, ids = _rows(n), _rows(n), torch.arange(n)
    x = Problem(q, k, ids, False, True, True, 10.0, None)
    rows, cols = _blocks.statistics(x, q, k, ids, ids)
    one = torch.ones(n, 1, dtype=torch.float64)
    rows, cols = (torch.cat([s, one], dim=1) for s in (rows, cols))
    _blocks.gradient(x, q, k, ids, ids, rows, cols, True, True)


def _exchange(ranks: Ranks, n: int) -> None:
    x = torch.empty(n, GLOO_WIDTH)
    after, before = (ranks.rank + 1) % ranks.size, (ranks.rank - 1) % ranks.size
    ranks.exchange([(x, after)], [(torch.empty_like(x), before)]).wait()


def _fitted(ranks: Ranks) -> Machine:
    """Rates and links of the ranks of this machine, all of them busy at once."""
    flops = [(cost.FORWARD + cost.BACKWARD) * 2 * n * n * GLOO_WIDTH for n in FIT]
    size = [4 * n * GLOO_WIDTH for n in FIT]
    launch, per_flop = _line(
        [(f, _seconds(lambda n=n: _block(n), ranks)) for f, n in zip(flops, FIT, strict=True)]
    )
    messages = [_seconds(lambda n=n: _exchange(ranks, n), ranks) for n in FIT]
    counts = [[n] * ranks.size for n in FIT]
    gathers = [
        _seconds(lambda n=n, c=c: ranks.gather(torch.empty(n, GLOO_WIDTH), c), ranks)
        for n, c in zip(FIT, counts, strict=True)
    ]
    hops = ranks.size - 1
    links = [
        _line(list(zip(size, seconds, strict=True)))
        for seconds in (messages, [s / hops for s in gathers])
    ]
    message, gather = (Link(latency, 1 / max(slope, 1e-15)) for latency, slope in links)
    return Machine(
        rate=1 / per_flop, launch=launch / 2, collective=gather, message=message, card=message,
        per_node=ranks.size, overlaps=False, element=4,
    )  # fmt: skip


def _validate(rank: int, world: int, store: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    torch.manual_seed(rank)
    ranks = Ranks()
    machine, rows = _fitted(ranks), []
    for n in HELD:
        image, text = (_rows(n).requires_grad_() for _ in range(2))
        for mode, model in cost.MODES.items():
            step = _seconds(
                lambda image=image, text=text, mode=mode: fastcl.distributed.clip(
                    image, text, 10.0, mode=mode, equal=True, normalize=False
                ).backward(),
                ranks,
            )
            predicted = model(machine, world, n, GLOO_WIDTH)
            rows.append({
                "kind": "validation", "ranks": world, "batch": world * n, "d": GLOO_WIDTH,
                "mode": mode, "compute_ms": predicted.compute * 1e3,
                "exposed_ms": predicted.exposed * 1e3, "total_ms": predicted.total * 1e3,
                "measured_ms": step * 1e3, "memory_mb": predicted.memory / 1e6, "chosen": "",
            })  # fmt: skip
    if rank == 0:
        torch.save(rows, out)
    dist.destroy_process_group()


def validation(worlds: tuple[int, ...]) -> list[dict]:
    rows = []
    for world in worlds:
        with tempfile.TemporaryDirectory() as folder:
            out = f"{folder}/rows.pt"
            mp.spawn(_validate, args=(world, f"{folder}/store", out), nprocs=world)
            rows += torch.load(out)
    return rows


def planned(machine: Machine, d: int, room: float) -> list[dict]:
    rows = []
    for world in WORLDS:
        for batch in BATCHES:
            costs = {m: f(machine, world, batch // world, d) for m, f in cost.MODES.items()}
            best = cost.chosen(costs, room)
            rows += [{
                "kind": "plan", "ranks": world, "batch": batch, "d": d, "mode": mode,
                "compute_ms": c.compute * 1e3, "exposed_ms": c.exposed * 1e3,
                "total_ms": c.total * 1e3, "measured_ms": "", "memory_mb": c.memory / 1e6,
                "chosen": best if mode == best else "",
            } for mode, c in costs.items()]  # fmt: skip
    return rows


def _number(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def table(rows: list[dict], options: argparse.Namespace) -> str:
    lines = [
        "## Plan",
        "",
        f"CLIP, forward and backward, width {options.width}, bfloat16 rows. Assumed, not measured: "
        f"{options.rate:g} TFLOP/s in the kernels, {options.link:g} GB/s between the GPUs of a "
        f"node of 8, {options.card:g} GB/s per network card and GPU, {options.launch:g} us beside "
        f"each block, {options.latency:g} us per hop; a mode may hold {options.room:g} GB.",
        "",
        "| GPUs | global batch | gather: ms | exposed | GB | ring: ms | exposed | GB | mode |",
        "|" + " --- |" * 9,
    ]
    plan = [r for r in rows if r["kind"] == "plan"]
    for ours, other in zip(plan[::2], plan[1::2], strict=True):
        cells = [f"{ours['ranks']:,}", f"{ours['batch']:,}"]
        for row in (ours, other):
            cells += [_number(row["total_ms"]), _number(row["exposed_ms"])]
            cells.append(f"{row['memory_mb'] / 1e3:.2f}")
        lines.append("| " + " | ".join([*cells, ours["chosen"] or other["chosen"]]) + " |")
    held = [r for r in rows if r["kind"] == "validation"]
    if held:
        lines += [
            "",
            "## The model beside measured gloo runs",
            "",
            f"float32, width {GLOO_WIDTH}, one thread per rank on {os.cpu_count()} cores; rates "
            f"and links fitted at {FIT[0]} and {FIT[1]} rows per rank, no overlap assumed.",
            "",
            "| ranks | rows per rank | mode | predicted ms | measured ms | predicted / measured |",
            "|" + " --- |" * 6,
        ]
        for r in held:
            ratio = r["total_ms"] / r["measured_ms"]
            lines.append(
                f"| {r['ranks']} | {r['batch'] // r['ranks']:,} | {r['mode']} | "
                f"{_number(r['total_ms'])} | {_number(r['measured_ms'])} | {ratio:.2f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan", description=__doc__)
    parser.add_argument("--no-validation", action="store_true", help="leave the gloo runs out")
    parser.add_argument("--output", type=Path, default=report.RESULTS / "plan")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rate", type=float, default=400, help="TFLOP/s in the kernels")
    parser.add_argument("--link", type=float, default=360, help="GB/s between GPUs of a node")
    parser.add_argument("--card", type=float, default=45, help="GB/s of a network card")
    parser.add_argument("--launch", type=float, default=30, help="us of a block beside its work")
    parser.add_argument("--latency", type=float, default=15, help="us of a message")
    parser.add_argument("--room", type=float, default=16, help="GB that a mode may hold")
    options = parser.parse_args()
    inside, card = (
        Link(options.latency / 1e6, speed * 1e9) for speed in (options.link, options.card)
    )
    machine = Machine(
        rate=options.rate * 1e12, launch=options.launch / 1e6, collective=inside, message=inside,
        card=card, per_node=8, overlaps=True, element=2, units=132, tile=128,
    )  # fmt: skip
    rows = planned(machine, options.width, options.room * 1e9)
    if not options.no_validation:
        rows += validation((2, 3, 4))
    where = report.circumstances("cpu")
    with options.output.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*where, *rows[0]])
        writer.writeheader()
        for row in rows:
            shown = {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()}
            writer.writerow({**where, **shown})
    text = table(rows, options)
    options.output.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
