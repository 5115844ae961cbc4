"""What a case should take on an H200, from machine code alone: the model, in one place.

A step is the sum of its launches (launches.py). A launch takes the longest of its schedule and of
its bytes over the copy rate, and never less than a launch. Its schedule: programs go to the first
free slot in order, `b` of them on a multiprocessor at once (occupancy), each a number of tiles.
A tile takes, in clocks of one multiprocessor (figures and sources in hardware.py):

    tensor   = multiply-adds / what the measured product rate amounts to per clock
    units    = the busiest of the schedulers, the special-function unit, the float32, integer and
               conversion pipes, shuffles and shared memory, from the instructions on its path
    alone    = max(tensor, units inside the loop over features) + units outside it + latencies
    together = max(b tensor, b units, b bytes / L2 rate, alone)   for b blocks that share one

so a block's own epilogue does not hide behind its own product (Triton waits for one before it
starts the other), but hides behind another block's. `alone` binds where b is 1. What this leaves
out makes it optimistic: dependent instructions, bank conflicts, a clock that falls under load.
"""

import csv
import datetime
import heapq
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
import triton

from . import report
from .cases import ARGUMENTS, SUITES, Case, fused
from .hardware import BARRIER, BULK_LATENCY, DRAIN, H200, RESULTS, WARP, occupancy
from .launches import Launch, Operation, of_step
from .machine_code import TOOLS, Compiled, Tile, compile_kernel
from .timing import step

ROWS = report.RESULTS / "predicted.csv"
ARCHITECTURE = 90
# KERNELS wants these milliseconds on an H200.
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


class TileTime(NamedTuple):
    """Clocks of one tile."""

    tensor: float
    units: float  # the busiest of the others, whole tile
    alone: float  # all of it, nothing beside it
    bytes: float  # from L2

    def together(self, blocks: int) -> float:
        """Clocks in which each of the blocks of one multiprocessor does a tile."""
        shared = max(self.tensor, self.units, self.bytes / H200.l2)
        return max(blocks * shared, self.alone)

    def bound(self, blocks: int) -> str:
        sides = {
            "tensor cores": blocks * self.tensor,
            "other units": blocks * self.units,
            "L2": blocks * self.bytes / H200.l2,
            "product and epilogue in turn": self.alone,
        }
        return max(sides, key=sides.get)


def unit_clocks(counts: Counter, warps: int) -> float:
    """Clocks of the busiest unit but the tensor cores for the instructions of `warps` warps."""
    return max(counts[name] * warps * WARP / rate for name, rate in RESULTS.items())


def tile_time(tile: Tile, warps: int, warpgroups: bool, bytes: float) -> TileTime:
    workers = warps / 4 if warpgroups else warps
    tensor = tile.all["multiplications"] * workers / H200.multiplications
    waits = DRAIN + tile.rounds * BULK_LATENCY + tile.rest["waits"] * BARRIER
    features, rest = unit_clocks(tile.features, warps), unit_clocks(tile.rest, warps)
    alone = max(tensor, features) + rest + waits
    return TileTime(tensor, features + rest, alone, bytes)


def _strips(launch: Launch, triangle: bool) -> list[int]:
    """Column tiles of every program: strips of `strip` of them, in a triangle from row // BN."""
    a = launch.arguments
    tiles, strip = triton.cdiv(a["m"], a["BN"]), a["strip"]
    rows, parts = launch.grid[0], launch.programs // launch.grid[0]
    found = []
    for part in range(parts):
        for i in range(rows):
            first = (a.get("first", 0) + i) * a["BM"] // a["BN"] if triangle else 0
            start, stop = max(part * strip, first), min((part + 1) * strip, tiles)
            found.append(max(0, stop - start))
    return found


def _positives(launch: Launch) -> list[int]:
    """Ids in order, as in the benchmark: one tile of positives per row tile."""
    return [1] * launch.grid[0] + [0] * (launch.programs - launch.grid[0])


# How many tiles each program of a kernel that multiplies does.
PROGRAMS: dict[str, Callable[[Launch], list[int]]] = {
    "sums_kernel": lambda x: _strips(x, x.arguments["SYMMETRIC"] and x.arguments["col_part"]
                                     is not None),
    "online_kernel": lambda x: [0] * x.programs if x.arguments["flags"] is not None
    else _strips(x, False),
    "own_kernel": lambda x: _strips(x, False),
    "frozen_kernel": lambda x: _strips(x, False),
    "weights_kernel": lambda x: [1] * x.programs,
    "positives_kernel": _positives,
}  # fmt: skip


def makespan(lengths: list[int], slots: int) -> int:
    """Tiles until the last program ends, each going to the first free slot."""
    if len(lengths) <= slots:
        return max(lengths, default=0)
    free = lengths[:slots]
    heapq.heapify(free)
    for length in lengths[slots:]:
        heapq.heappushpop(free, free[0] + length)
    return max(free)


@cache
def _compiled(kernel, signature, constants, attributes, options) -> Compiled:
    return compile_kernel(
        kernel, dict(signature), dict(constants),
        {k: [list(pair) for pair in v] for k, v in attributes}, ARCHITECTURE, dict(options),
    )  # fmt: skip


def compiled(launch: Launch) -> Compiled:
    signature, constants, attributes = launch.specialised()
    frozen = tuple((k, tuple(map(tuple, v))) for k, v in attributes.items())
    return _compiled(
        launch.kernel, tuple(signature.items()), tuple(constants.items()), frozen, launch.options
    )


class Prediction(NamedTuple):
    """One launch."""

    name: str
    seconds: float
    bound: str


def predict(note: Launch | Operation) -> Prediction:
    if isinstance(note, Operation):
        return _operation(note)
    moved = sum(x.numel() * x.element_size() for x in note.tensors()) / H200.copy_rate
    if note.name not in PROGRAMS:
        if note.arguments.get("only", None) is not None:
            return Prediction(note.name, H200.launch, "launch")
        return _at_least(note.name, moved, "memory")
    lengths = PROGRAMS[note.name](note)
    if not any(lengths):
        return Prediction(note.name, H200.launch, "launch")
    built = compiled(note)
    time, blocks = _resident(note, built, lengths)
    slots = H200.multiprocessors * blocks
    clocks = makespan(lengths, slots) * time.together(blocks)
    clocks += -(-len(lengths) // slots) * BULK_LATENCY  # the first tile of a program
    seconds = clocks / H200.clock
    if moved > seconds:
        return _at_least(note.name, moved, "memory")
    return _at_least(note.name, seconds, time.bound(blocks))


def tile_shape(launch: Launch) -> tuple[int, int, int]:
    """Rows, columns and features of one step of a kernel that multiplies."""
    a = launch.arguments
    return a.get("BM", a.get("BLOCK")), a.get("BN", a.get("BLOCK")), a["DEPTH"]


def _resident(launch: Launch, built: Compiled, lengths: list[int]) -> tuple[TileTime, int]:
    """Time of a tile, and the blocks that share a multiprocessor: no more than there are."""
    a = launch.arguments
    rows, columns, depth = tile_shape(launch)
    tile = built.code.tile(rows * columns, -(-a["d"] // depth) * depth, built.warps)
    itemsize = launch.tensors()[0].element_size()
    loaded = (columns + (rows if tile.rounds else 0)) * a["d"] * itemsize
    if launch.name == "weights_kernel":
        loaded += rows * columns * itemsize  # written
    time = tile_time(tile, built.warps, built.code.warpgroups, loaded)
    held = occupancy(ARCHITECTURE, built.registers, built.shared, built.warps).blocks
    busy = sum(length > 0 for length in lengths)
    return time, max(1, min(held, -(-busy // H200.multiprocessors)))


def _at_least(name: str, seconds: float, bound: str) -> Prediction:
    """A launch is never shorter than the time between two."""
    if seconds < H200.launch:
        return Prediction(name, H200.launch, "launch")
    return Prediction(name, seconds + H200.launch / 2, bound)


# Tiles a library's product may use; the one with the fewest idle multiprocessors is taken.
LIBRARY_TILES = ((128, 256), (256, 128), (128, 192), (128, 128), (64, 256))


def _operation(x: Operation) -> Prediction:
    moved = x.bytes / H200.copy_rate
    if not x.product:
        return _at_least(x.name, moved, "memory")
    n, m, depth = x.product

    def slots(rows: int, columns: int) -> int:
        tiles = -(-n // rows) * -(-m // columns)
        return -(-tiles // H200.multiprocessors) * H200.multiprocessors * rows * columns

    work = 2 * depth * min(slots(*tile) for tile in LIBRARY_TILES)
    return _at_least(x.name, max(moved, work / H200.product_rate), "tensor cores")


def inputs(case: Case) -> dict[str, torch.Tensor]:
    """The case's tensors without memory."""
    rows = case.n // 2 if case.loss == "nt_xent" else case.n
    names = ARGUMENTS[case.loss]
    tensors = {k: torch.empty(rows, case.d, dtype=case.dtype, device="meta") for k in names}
    if case.loss == "moco":
        tensors["queue"] = torch.empty(case.m, case.d, dtype=case.dtype, device="meta")
    return tensors


def launches(case: Case) -> list[Prediction]:
    """Every launch of a forward and backward."""
    tensors = inputs(case)
    return [predict(x) for x in of_step(lambda: step(fused(case.loss), tensors, case.trained()))]


def row(case: Case) -> dict:
    parts = launches(case)
    total = sum(x.seconds for x in parts)
    by_name = Counter()
    for x in parts:
        by_name[f"{x.name}: {x.bound}"] += x.seconds
    limit = case.flops / H200.product_rate
    return {
        "case": case.name, "loss": case.loss, "n": case.n, "m": case.m, "d": case.d,
        "dtype": str(case.dtype).removeprefix("torch."), "units": case.units,
        "limit_ms": limit * 1e3, "predicted_ms": total * 1e3, "fraction": limit / total,
        "wanted_ms": WANTED.get(case.name, ""), "launches": len(parts),
        "host_ms": len(parts) * H200.host * 1e3,
        "longest": "; ".join(f"{k} {v / total:.0%}" for k, v in by_name.most_common(3)),
    }  # fmt: skip


def main() -> int:
    for case in SUITES["gpu"]:
        r = row(case)
        print("{case:28} limit {limit_ms:7.3f}  predicted {predicted_ms:8.3f} ms  {fraction:5.0%}"
              "  wanted {wanted_ms}  {launches} launches  host {host_ms:.2f}  {longest}".format(**r))
    return 0


if __name__ == "__main__":
    main()
