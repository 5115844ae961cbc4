"""What the kernels cost by their machine code alone: `python -m benchmarks.static`.

Compiles every Triton configuration ahead of time for sm_80 and sm_90, reads the CUDA kernels of
the compiled part, and reports registers, spilled bytes, shared memory and tensor-core
instructions. No GPU is needed.
"""

import csv
import itertools
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastcl.kernels import info_nce_config as config
from fastcl.kernels.info_nce_backward import own_kernel, weights_kernel
from fastcl.kernels.info_nce_coefficients import coefficients_kernel
from fastcl.kernels.info_nce_combine import fold_kernel, statistics_kernel, weighted_kernel
from fastcl.kernels.info_nce_forward import online_kernel, positives_kernel, sums_kernel
from fastcl.kernels.info_nce_frozen import frozen_kernel
from fastcl.kernels.sigmoid_contrast_tile import logistic_kernel
from fastcl.kernels.unit_rows import unit_backward_kernel, unit_forward_kernel

RESULTS = Path(__file__).parent / "results" / "static.csv"
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
COMPILED = Path(__file__).parent.parent / "fastcl" / "fastcl_ops.so"
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024}  # bytes a block may have

POINTERS = {
    "q": "*{}", "k": "*{}", "logit_scale": "*fp32", "row_ids": "*i64", "col_ids": "*i64",
    "row_range": "*i64", "col_range": "*i64", "pivot": "*fp32", "flags": "*i32", "only": "*i32",
    "row_part": "*fp32", "col_part": "*fp32", "rank_part": "*i32", "weighted_part": "*fp32",
    "row_coef": "*fp32", "col_coef": "*fp32", "wide": "*i32",
    "grad_loss": "*fp32", "grad_positive": "*fp32", "stats": "*fp32", "lift": "*fp32",
    "state": "*fp64", "positives": "*fp32", "extra": "*fp32", "part": "*fp32", "rows": "*fp32",
    "rank": "*i64", "out": "*fp32", "scale": "fp64",
    "row_top": "*fp32", "bias": "fp64", "logit_bias": "*fp32", "sums": "*fp64",
    "x": "*{}", "y": "*{}", "lengths": "*fp32", "grad": "*{}", "dx": "*{}",
}  # fmt: skip


class Row(NamedTuple):
    """One kernel, one configuration, one architecture."""

    kernel: str
    case: str
    dtype: str
    architecture: int
    width: int
    tile: str
    registers: int
    spilled: int  # bytes of local memory
    shared: int  # bytes
    tensor_core: int  # HGMMA on sm_90, HMMA on sm_80
    product: bool  # whether it should have any
    waits: int  # for warpgroup products: as many as products where each waits for the one before


class Build(NamedTuple):
    """What to compile: a kernel with the options that launchers give it."""

    kernel: object
    case: str
    dtype: str
    architecture: int
    width: int
    tile: config.Tile
    constants: dict
    product: bool = True
    bulk: bool = False  # tiles come through tensor descriptors


def _tool(name: str, *arguments: str) -> str:
    done = subprocess.run([TOOLS / name, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def _usage(text: str) -> list[tuple[str, int, int, int]]:
    """Function, registers, local and shared bytes out of `cuobjdump -res-usage`."""
    pattern = r"Function (\S+?):?\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)"
    return [
        (name, int(registers), int(stack) + int(local), int(shared))
        for name, registers, stack, shared, local in re.findall(pattern, text)
    ]


def _compile(build: Build) -> Row:
    kernel, tile = build.kernel, build.tile
    names = kernel.arg_names
    types = {name: POINTERS.get(name, "i32").format(build.dtype) for name in names}
    if build.bulk:
        types["q"] = f"tensordesc<{build.dtype}[{tile.rows},{tile.depth}]>"
        types["k"] = f"tensordesc<{build.dtype}[{tile.columns},{tile.depth}]>"
    if build.kernel in (weights_kernel, logistic_kernel):
        types["out"] = f"*{build.dtype}"
    signature = {n: "constexpr" if n in build.constants else types[n] for n in names}
    # As the launcher specialises them: torch aligns its buffers, d is a multiple of 16.
    attributes = {
        (i,): [["tt.divisibility", 16]]
        for i, n in enumerate(names)
        if signature[n].startswith("*") or (n == "d" and build.width % 16 == 0)
    }
    constants = {(names.index(n),): value for n, value in build.constants.items()}
    compiled = triton.compile(
        ASTSource(kernel, signature, constants, attributes),
        target=GPUTarget("cuda", build.architecture, 32),
        options={"num_warps": tile.warps, "num_stages": tile.stages, "enable_fp_fusion": True},
    )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        ((_, registers, spilled, _),) = _usage(_tool("cuobjdump", "-res-usage", file.name))
        code = _tool("nvdisasm", "-c", file.name)
    return Row(
        kernel.__name__, build.case, build.dtype, build.architecture, build.width,
        "x".join(map(str, tile)), registers, spilled, compiled.metadata.shared,
        len(re.findall(r"\bHGMMA\b" if build.architecture >= 90 else r"\bHMMA\b", code)),
        build.product, len(re.findall(r"\bWARPGROUP\.DEPBAR\b", code)),
    )  # fmt: skip


NO_IDS = dict.fromkeys(("row_ids", "col_ids", "row_range", "col_range"))
NO_RANK = {"pivot": None, "rank_part": None}


def _product_builds(architecture: int, width: int, dtype: str) -> list[Build]:
    """The kernels that multiply, in the cases of CLIP, SimCLR and MoCo."""
    sums, own, frozen, weights = config.tiles(
        architecture // 10, width, 4 if dtype == "fp32" else 2, "ieee"
    )

    def build(kernel, case, tile, **constants):
        shape = {"BM": tile.rows, "BN": tile.columns, "DEPTH": tile.depth}
        shape |= {"PRECISION": "ieee", "SHARED": True}
        if "WHOLE" in kernel.arg_names:
            shape["WHOLE"] = config.whole(tile, width)
        constants = {n: v for n, v in (shape | constants).items() if n in kernel.arg_names}
        product = dtype != "fp32"  # IEEE float32 has no tensor cores
        bulk = product and architecture >= 90
        return Build(kernel, case, dtype, architecture, width, tile, constants, product, bulk)

    pairs = {"SYMMETRIC": False}
    mirror = {"SYMMETRIC": True}
    apart = {"SHARED": False}
    one_sided = {"wide": None, **pairs, **apart}

    def halved(tile):
        return tile._replace(columns=tile.columns // 2)

    builds = [
        build(sums_kernel, "clip", sums, **NO_RANK, **pairs),
        build(sums_kernel, "simclr", sums, **NO_RANK, **mirror),
        build(sums_kernel, "one direction, rank", sums, col_part=None, **pairs),
        build(online_kernel, "repair", sums, **NO_RANK, **mirror),
        build(logistic_kernel, "siglip", weights),
        build(logistic_kernel, "siglip, loss alone", weights, out=None),
    ]
    if own is None:
        builds += [
            build(weights_kernel, "clip", weights, **pairs),
            build(weights_kernel, "simclr", weights, **mirror),
            build(weights_kernel, "clip, apart", halved(weights), **pairs, **apart),
        ]
    else:
        builds += [
            build(own_kernel, "clip", own, **pairs),
            build(own_kernel, "simclr", own, **mirror),
            build(own_kernel, "simclr, apart", halved(own), **mirror, **apart),
            build(own_kernel, "one direction", own, col_coef=None, **one_sided),
            build(own_kernel, "one direction, keys", own, row_coef=None, **one_sided),
            build(frozen_kernel, "moco", frozen, **NO_IDS, **NO_RANK),
            build(frozen_kernel, "moco ids, rank", frozen),
        ]
    return builds


def _vector_builds(architecture: int) -> list[Build]:
    """The kernels that do not multiply, and the positives' (which is small either way)."""
    tile = config.Tile(128, 128, 0, 4, 3)
    small = config.POSITIVES
    positives = dict(BLOCK=small.rows, DEPTH=small.depth, SCAN=config.SCAN, PRECISION="ieee")
    fold = dict(BM=128, SQUARE=256, PARTS=16, BLOCK=128, TRIANGLE=True)
    finish = dict(PARTS=16, BLOCK=128, POSITIVES_IN=True, only=None, row_top=None)
    given = dict(BLOCK=128, POSITIVES_IN=True, EXTRA=False)
    parts = dict(PARTS=16, DEPTH=256)
    block = dict(ROWS=4, WIDTH=1024)

    def build(kernel, constants, tile=tile, dtype="fp32", product=False):
        return Build(kernel, "", dtype, architecture, 128, tile, constants, product)

    # A block below 128 rows of a warpgroup may use either instruction: not asked for.
    return [
        build(positives_kernel, positives | {"SYMMETRIC": True}, small, "bf16"),
        build(fold_kernel, fold),
        build(statistics_kernel, finish),
        build(weighted_kernel, parts),
        build(coefficients_kernel, given),
        build(unit_forward_kernel, block, dtype="bf16"),
        build(unit_backward_kernel, block, dtype="bf16"),
    ]


def builds() -> list[Build]:
    """Every configuration of the table on both architectures; one for all widths it serves."""
    every = []
    for architecture in (80, 90):
        for width in (128, 256, 512):  # one per line of the table; narrower ones cost less
            every += _product_builds(architecture, width, "bf16")
        every += _product_builds(architecture, 128, "fp32")[::4]
        every += _vector_builds(architecture)
    distinct = {repr(build._replace(width=0)): build for build in reversed(every)}
    return list(reversed(distinct.values()))


def quick_builds() -> list[Build]:
    """One forward and one backward per architecture."""
    return list(
        itertools.chain.from_iterable(
            (pick[0], pick[4]) for pick in (_product_builds(a, 128, "bf16") for a in (80, 90))
        )
    )


def readable(mangled: str) -> str:
    """Name and template arguments of a CUDA kernel; as it is where binutils are absent."""
    if shutil.which("c++filt") is None:
        return mangled
    full = subprocess.run(["c++filt", mangled], capture_output=True, text=True).stdout.strip()
    return re.sub(r"^(void )?.*?(\w+_kernel(<.*?>)?)\(.*$", r"\2", full)


def cuda_rows(library: Path = COMPILED) -> list[Row]:
    """The CUDA kernels of the compiled part; none where it has none."""
    if not library.exists():
        return []
    listing = subprocess.run(
        [TOOLS / "cuobjdump", "-res-usage", library], capture_output=True, text=True
    ).stdout
    rows, architecture = [], 0
    for block in re.split(r"(?=Fatbin elf code)", listing):
        found = re.search(r"arch = sm_(\d+)", block)
        architecture = int(found.group(1)) if found else architecture
        for name, *usage in _usage(block):
            rows.append(Row(readable(name), "", "", architecture, 0, "", *usage, 0, False, 0))
    return rows


def report(chosen: list[Build] | None = None) -> Iterator[Row]:
    """Compile and measure, one row per build; all of them without an argument."""
    return map(_compile, builds() if chosen is None else chosen)


def _print(row: Row) -> Row:
    print(
        f"sm_{row.architecture} {row.kernel[:34]:34} {row.case:20} {row.dtype:5}"
        f" d {row.width:<4} {row.tile:16} {row.registers:>4} registers {row.spilled:>5} spilled"
        f" {row.shared:>7} shared {row.tensor_core:>4} tensor",
        flush=True,
    )
    return row


def main() -> int:
    rows = [_print(row) for row in itertools.chain(report(), cuda_rows())]
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*Row._fields, "triton"])
        writer.writerows([*row, triton.__version__] for row in rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
