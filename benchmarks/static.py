"""What the GPU kernels cost by their machine code alone: `python -m benchmarks.static`.

Records what the operators launch for the benchmark's cases and a few more (launches.py), compiles
each kernel for sm_80, sm_90 and sm_100 exactly as it is launched, reads the CUDA kernels of the
compiled part, and reports registers, spilled bytes, shared memory, occupancy, and the instructions
of the main loop by class. Then predict.py makes times of them. No GPU is needed.

Rows go to results/static.csv and results/predicted.csv, the table to results/predicted.md.
"""

import argparse
import csv
import itertools
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import triton

from . import model, predict
from .hardware import LIMITS, occupancy
from .launches import Launch, noted
from .machine_code import CLASSES, TOOLS, Code, compile_kernel, tool, usage
from .static_steps import steps

RESULTS = Path(__file__).parent / "results" / "static.csv"
COMPILED = Path(__file__).parent.parent / "fastcl" / "fastcl_ops.so"
MULTIPROCESSORS = {80: 108, 90: 132, 100: 148}
# Threads of a block of the CUDA kernels, and shared memory that only their launch names.
BLOCK = (256, 0)
BLOCKS = {"hopper_sums_kernel": (384, 4 * 48 * 1024 + 2 * 4 * 256 * 4 + 64)}


class Row(NamedTuple):
    """One kernel, one specialisation, one architecture."""

    kernel: str
    case: str  # the first that launches it
    dtype: str
    architecture: int
    width: int
    tile: str  # rows x columns x features x warps x stages
    registers: int
    spilled: int  # bytes of local memory
    shared: int  # bytes per block
    blocks: int  # per multiprocessor
    warps: int
    bound: str  # what allows no more blocks
    instructions: dict[
        str, float
    ]  # of a warp per tile; in the whole code where it has none, on sm_100
    product: bool  # whether the tensor cores should work

    @property
    def fits(self) -> bool:
        return self.shared <= LIMITS[self.architecture].block_shared and self.blocks > 0


class Found(NamedTuple):
    """A launch to compile, and what made it."""

    launch: Launch
    case: str
    dtype: torch.dtype
    architecture: int


def found(architecture: int, names: Iterable[str] | None = None) -> list[Found]:
    """Distinct launches of the steps, in order."""
    distinct: dict[str, Found] = {}
    for name, (dtype, run) in steps().items():
        if names is not None and name not in names:
            continue
        with noted(MULTIPROCESSORS[architecture], architecture // 10) as notes:
            run()
        for launch in notes:
            if isinstance(launch, Launch):
                key = repr((launch.name, launch.specialised(), launch.options))
                distinct.setdefault(key, Found(launch, name, dtype, architecture))
    return list(distinct.values())


def _row(x: Found) -> Row:
    launch, a = x.launch, x.launch.arguments
    built = compile_kernel(
        launch.kernel, *launch.specialised(), x.architecture, dict(launch.options)
    )
    product = launch.name in model.PROGRAMS
    rows, columns, depth = model.tile_shape(launch) if product else (0, 0, 0)
    if (
        product and x.architecture < 100
    ):  # there one thread alone issues them, beside the warps' path
        instructions = built.code.tile(rows * columns, -(-a["d"] // depth) * depth, built.warps).all
    else:
        instructions = built.code.total
    held = occupancy(x.architecture, built.registers, built.shared, built.warps)
    stages = dict(launch.options).get("num_stages", "")
    tile = f"{rows}x{columns}x{depth}x{built.warps}x{stages}" if product else f"x{built.warps}"
    # IEEE float32 has no tensor cores; 64 rows may be too few for a warpgroup's instruction.
    needed = product and x.dtype != torch.float32 and launch.name != "positives_kernel"
    return Row(
        launch.name, x.case, str(x.dtype).removeprefix("torch."), x.architecture, a.get("d", 0),
        tile, built.registers, built.spilled, built.shared, *vars(held).values(), instructions,
        needed,
    )  # fmt: skip


def readable(mangled: str) -> str:
    """Name and template arguments of a CUDA kernel; as it is where binutils are absent."""
    if shutil.which("c++filt") is None:
        return mangled
    full = subprocess.run(["c++filt", mangled], capture_output=True, text=True).stdout.strip()
    return re.sub(r"^(void )?.*?(\w+_kernel(<.*?>)?)\(.*$", r"\2", full)


def _functions(cubin: Path) -> dict[str, Code]:
    parts = re.split(r"\.section\s+\.text\.(\w+)", tool("nvdisasm", "-c", cubin))
    return {name: Code(text) for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def cuda_rows(library: Path = COMPILED) -> list[Row]:
    """The CUDA kernels of the compiled part; none where it has none."""
    if not library.exists():
        return []
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [TOOLS / "cuobjdump", "-xelf", "all", library], cwd=folder, capture_output=True
        )
        for cubin in sorted(Path(folder).glob("*.cubin")):
            architecture = int(re.search(r"sm_(\d+)", cubin.name).group(1))
            codes = _functions(cubin)
            for name, registers, spilled, used in usage(tool("cuobjdump", "-res-usage", cubin)):
                threads, dynamic = BLOCKS.get(readable(name), BLOCK)
                shared = used + dynamic if architecture >= 90 else used
                held = occupancy(architecture, registers, shared, threads // 32)
                rows.append(Row(
                    readable(name), "", "", architecture, 0, f"x{threads // 32}", registers,
                    spilled, shared, *vars(held).values(), codes[name].total, False,
                ))  # fmt: skip
    return rows


def report(chosen: Iterable[Found] | None = None) -> Iterator[Row]:
    """Compile and measure, one row per launch; all of them without an argument."""
    everything = itertools.chain.from_iterable(map(found, MULTIPROCESSORS))
    return map(_row, everything if chosen is None else chosen)


def _print(row: Row) -> Row:
    print(
        f"sm_{row.architecture} {row.kernel[:34]:34} {row.case[:24]:24} {row.tile:16}"
        f" {row.registers:>4} registers {row.spilled:>5} spilled {row.shared:>7} shared"
        f" {row.blocks:>2} blocks {row.instructions['tensor']:>5.0f} tensor"
        f" {row.instructions['special']:>4.0f} special",
        flush=True,
    )
    return row


def write(rows: list[Row]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    classes = [*CLASSES, "other"]
    names = [name for name in Row._fields if name != "instructions"]
    with RESULTS.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, *classes, "triton"])
        for row in rows:
            counts = [f"{row.instructions[name]:.0f}" for name in classes]
            writer.writerow([*(getattr(row, k) for k in names), *counts, triton.__version__])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.static", description=__doc__)
    parser.add_argument("--no-predictions", action="store_true", help="the kernels alone")
    options = parser.parse_args()
    write([_print(row) for row in itertools.chain(report(), cuda_rows())])
    return 0 if options.no_predictions else predict.main()


if __name__ == "__main__":
    sys.exit(main())
