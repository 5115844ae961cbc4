"""How long a launch should take on an H200, from machine code alone.

A launch takes the longer of its schedule and of its bytes over the copy rate, and never less than
a launch. Its schedule: programs go to the first free slot in order, `b` of them on a
multiprocessor at once (occupancy), each a number of tiles. A tile takes, in clocks of one
multiprocessor (figures and sources in hardware.py):

    tensor   = multiply-adds / what the measured product rate amounts to per clock
    units    = the busiest of the schedulers, the special-function unit, the float32, integer and
               conversion pipes, shuffles and shared memory, from the instructions on its path
    alone    = max(tensor, units inside the loop over features) + units outside it + latencies
    together = max(b tensor, b units, b bytes / L2 rate, alone)   for b blocks that share one

so a block's own epilogue does not hide behind its own product (Triton waits for one before it
starts the other), but hides behind another block's. `alone` binds where b is 1. What this leaves
out makes it optimistic: dependent instructions, bank conflicts, a clock that falls under load.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
import triton
from triton.tools.tensor_descriptor import TensorDescriptor

from .hardware import BARRIER, BULK_LATENCY, DRAIN, H200, RESULTS, WARP, occupancy
from .launches import Launch, Operation
from .machine_code import Compiled, Tile, compile_kernel

ARCHITECTURE = 90


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


def _documents(launch: Launch) -> list[int]:
    """Tiles of a document and some queries, as many for each."""
    a = launch.arguments
    steps = -(-a["lq"] // a["PLACES"]) * -(-a["ld"] // a["BN"])
    return [steps] * launch.programs


def _owed(launch: Launch) -> list[int]:
    """Tiles of a document's tokens and those of queries that may owe them a gradient."""
    a = launch.arguments
    return [-(-a["lq"] * (1 if a["OWN"] else a["count"]) // a["BN"])] * launch.programs


# How many tiles each program of a kernel that multiplies does.
PROGRAMS: dict[str, Callable[[Launch], list[int]]] = {
    "sums_kernel": lambda x: _strips(x, x.arguments["SYMMETRIC"] and x.arguments["col_part"]
                                     is not None),
    "online_kernel": lambda x: [0] * x.programs if x.arguments["flags"] is not None
    else _strips(x, False),
    "own_kernel": lambda x: _strips(x, False),
    "frozen_kernel": lambda x: _strips(x, False),
    "weights_kernel": lambda x: [1] * x.programs,
    "best_kernel": _documents,
    "to_document_kernel": _owed,
    "logistic_kernel": lambda x: [1] * x.programs,
    "positives_kernel": _positives,
    "pull_kernel": _positives,
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
    return _launch(_Key(note))


class _Key:
    """A launch, equal to another where both take as long: chunks at other places are."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        plain = {
            k: (x.shape, x.dtype) if isinstance(x, torch.Tensor) else x
            for k, x in launch.arguments.items()
            if k not in ("first_row", "first_col") and not isinstance(x, TensorDescriptor)
        }
        self.text = repr((launch.name, launch.grid, plain, launch.specialised(), launch.options))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


def _moved(launch: Launch) -> float:
    """Seconds to move what a launch touches of its tensors, each once."""
    a, bytes = launch.arguments, 0
    for name, x in launch.tensors().items():
        size = x.numel() * x.element_size()
        if launch.name == "pull_kernel" and name == "kept":
            continue  # stored to at the positives alone
        if launch.name in PROGRAMS and name in ("q", "k"):
            # A row block per program; the columns in strips, or in the second dimension.
            tiles, block = launch.grid[name == "k"], tile_shape(launch)[name == "k"]
            whole = name == "k" and "strip" in a
            size = size if whole else min(size, tiles * block * x.shape[1] * x.element_size())
        bytes += size
    return bytes / H200.copy_rate


@cache
def _launch(key: _Key) -> Prediction:
    note = key.launch
    moved = _moved(note)
    if note.name not in PROGRAMS:
        if compiled(note).code.total["tensor"]:
            raise KeyError(f"{note.name} multiplies: PROGRAMS must say how many tiles it does")
        if note.arguments.get("only") is not None:
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
    itemsize = launch.tensors()["q"].element_size()
    loaded = (columns + (rows if tile.rounds else 0)) * a["d"] * itemsize
    if "strip" not in a or a.get("kept") is not None:  # a chunk of weights, or of exponentials
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
