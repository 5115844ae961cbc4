"""Which mode for how many ranks: `python -m benchmarks.plan [--no-validation] [options]`.

First the cost model (`benchmarks.cost`) is held to measured gloo runs on this machine: rates and
links are fitted at small sizes, whole steps of `fastcl.distributed.clip` are predicted at larger
ones and measured, all in the same rounds. Then it plans 8, 64 and 1,024 GPUs,
whose figures are assumptions given by the options. Writes results/plan.csv and .md.
"""

import argparse
import csv
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import fastcl
from fastcl._ranks import Ranks
from fastcl.contrast.problem import problem
from fastcl.distributed import _blocks

from . import cost, report
from .cost import Link, Machine

WORLDS, BATCHES = (8, 64, 1024), (2**15, 2**17, 2**20, 2**22)
FIT, HELD = (256, 512, 1024), (2048, 4096)  # rows per rank
GLOO_WIDTH, ROUNDS = 128, 7
MESSAGES = 8  # in a row, so that a barrier's end, which ranks do not see at once, weighs less


def _fastest(calls: dict[str, tuple[Callable[[], object], int]], rounds: int) -> dict[str, float]:
    """Seconds of each call, which is made some times in a row, in rounds that run all in turn.

    A round takes as long as its slowest rank, and the least round counts: pauses only add to it.
    The first round warms up.
    """
    times = torch.empty(rounds + 1, len(calls), dtype=torch.float64)
    for turn in range(rounds + 1):
        for index, (call, count) in enumerate(calls.values()):
            dist.barrier()
            before = time.perf_counter()
            for _ in range(count):
                call()
            times[turn, index] = (time.perf_counter() - before) / count
    dist.all_reduce(times, op=dist.ReduceOp.MAX)
    return dict(zip(calls, times[1:].amin(0).tolist(), strict=True))


def _line(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Intercept and slope with the least relative squared errors.

    Through the origin where the intercept or, out of noise, the slope would be negative.
    """
    x, y = (torch.tensor(c, dtype=torch.float64) for c in zip(*points, strict=True))
    design = torch.stack([1 / y, x / y], dim=1)
    intercept, slope = torch.linalg.lstsq(design, torch.ones(len(x), 1).double()).solution[:, 0]
    if intercept < 0 or slope <= 0:
        intercept, slope = torch.zeros(()), (x / y).sum() / (x / y).square().sum()
    return intercept.item(), slope.item()


def _rows(n: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, GLOO_WIDTH), dim=1)


def _block(n: int) -> None:
    """One block of CLIP, forward and backward."""
    q, k, ids = _rows(n), _rows(n), torch.arange(n)
    p = problem(q, k, scale=10.0, ids=ids, both=True, normalize=False)
    x = _blocks.Shared(p, negatives_only=False)
    rows, cols = _blocks.statistics(x, q, k, ids, ids)
    one = torch.ones(n, 1, dtype=torch.float64)
    rows, cols = (torch.cat([s, one], dim=1) for s in (rows, cols))
    _blocks.gradient(x, q, k, ids, ids, rows, cols, True, True)


def _exchange(ranks: Ranks, n: int) -> None:
    x = torch.empty(n, GLOO_WIDTH)
    after, before = (ranks.rank + 1) % ranks.size, (ranks.rank - 1) % ranks.size
    ranks.exchange([(x, after)], [(torch.empty_like(x), before)]).wait()


def _parts(ranks: Ranks, fit: tuple[int, ...]) -> dict[str, tuple[Callable[[], object], int]]:
    """What is fitted: blocks, messages and collectives of all ranks at once.

    Blocks are repeated to be longer than a time slice: ranks beyond the cores share them.
    """
    calls = {}
    for n in fit:
        counts, x = [n] * ranks.size, torch.zeros(n, GLOO_WIDTH)
        calls[f"block {n}"] = lambda n=n: _block(n), 4 * max(1, (max(fit) // n) ** 2)
        calls[f"message {n}"] = lambda n=n: _exchange(ranks, n), MESSAGES
        calls[f"gather {n}"] = lambda x=x, c=counts: ranks.gather(x, c), MESSAGES
    return calls


def _fitted(seconds: dict[str, float], fit: tuple[int, ...], world: int) -> Machine:
    """Rates and links of the ranks of this machine, all of them busy at once."""

    def line(name: str, size: Callable[[int], float], share: int = 1) -> tuple[float, float]:
        return _line([(size(n), seconds[f"{name} {n}"] / share) for n in fit])

    units = cost.FORWARD + cost.BACKWARD
    launch, per_flop = line("block", lambda n: units * 2 * n * n * GLOO_WIDTH)
    message, gather = (
        Link(latency, 1 / max(slope, 1e-15))
        for latency, slope in (
            line(name, lambda n: 4 * n * GLOO_WIDTH, share)
            for name, share in (("message", 1), ("gather", world - 1))
        )
    )
    return Machine(
        rate=1 / per_flop, launch=launch / 2, collective=gather, message=message, card=message,
        per_node=world, overlaps=False, element=4,
    )  # fmt: skip


def _step(n: int, mode: str) -> Callable[[], object]:
    image, text = (_rows(n).requires_grad_() for _ in range(2))
    return lambda: fastcl.distributed.clip(
        image, text, 10.0, mode=mode, equal=True, normalize=False
    ).backward()


def _validate(
    rank: int, world: int, store: str, out: str,
    fit: tuple[int, ...], held: tuple[int, ...], rounds: int,
) -> None:  # fmt: skip
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    torch.manual_seed(rank)
    steps = {f"{mode} step {n}": (_step(n, mode), 1) for n in held for mode in cost.MODES}
    seconds = _fastest({**_parts(Ranks(), fit), **steps}, rounds)
    machine, rows = _fitted(seconds, fit, world), []
    for n in held:
        for mode, model in cost.MODES.items():
            predicted = model(machine, world, n, GLOO_WIDTH)
            rows.append({
                "kind": "validation", "ranks": world, "batch": world * n, "d": GLOO_WIDTH,
                "mode": mode, "compute_ms": predicted.compute * 1e3,
                "exposed_ms": predicted.exposed * 1e3, "total_ms": predicted.total * 1e3,
                "measured_ms": seconds[f"{mode} step {n}"] * 1e3,
                "memory_mb": predicted.memory / 1e6, "chosen": "",
            })  # fmt: skip
    if rank == 0:
        torch.save(rows, out)
    dist.destroy_process_group()


def validation(
    worlds: tuple[int, ...],
    fit: tuple[int, ...] = FIT,
    held: tuple[int, ...] = HELD,
    rounds: int = ROUNDS,
) -> list[dict]:
    rows = []
    for world in worlds:
        with tempfile.TemporaryDirectory() as folder:
            out = f"{folder}/rows.pt"
            arguments = (world, f"{folder}/store", out, fit, held, rounds)
            mp.spawn(_validate, args=arguments, nprocs=world)
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


def _shared(row: dict) -> str:
    return " \\*" if row["ranks"] > os.cpu_count() else ""


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
            f"and links fitted at {', '.join(map(str, FIT))} rows per rank, no overlap assumed; "
            f"the fastest of {ROUNDS} rounds, each as long as its slowest rank. Ranks beyond the "
            "cores (\\*) share them, in the fit as in the step: what is left there is how evenly.",
            "",
            "| ranks | rows per rank | mode | predicted ms | measured ms | predicted / measured |",
            "|" + " --- |" * 6,
        ]
        for r in held:
            ratio = r["total_ms"] / r["measured_ms"]
            lines.append(
                f"| {r['ranks']}{_shared(r)} | {r['batch'] // r['ranks']:,} | {r['mode']} | "
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
