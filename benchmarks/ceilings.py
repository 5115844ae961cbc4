"""What a GPU can do at most: `python -m benchmarks.ceilings --out FOLDER`.

Bytes from memory and from the L2 cache, products, and what a launch costs; the figures that
hardware.py assumes beside them. A row goes to ceilings.csv as soon as it has been measured.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from . import report
from .hardware import H200
from .timing import ceiling, seconds

L2_BYTES = 2**24  # stays in the cache and is larger than what the multiprocessors hold
ROWS, WIDTH = 128, 64  # a tile of bfloat16 rows as the kernels load it
# Launches between two looks at the clock.
MANY = 200


@triton.jit
def empty_kernel(x):
    pass


@triton.jit
def many_kernel(a, b, c, d, e, f, g, h, n, m, k, s: tl.float64, BLOCK: tl.constexpr):
    """As many arguments as a kernel of a loss has."""
    pass


@triton.jit
def read_kernel(x, out, steps, blocks, BLOCK: tl.constexpr):
    """Words of 16 bytes past the first-level cache; every program from a place of its own."""
    at = tl.program_id(0) * 7
    total = tl.zeros([BLOCK], tl.int32)
    for _ in range(steps):
        at = (at + 1) % blocks
        total ^= tl.load(x + at * BLOCK + tl.arange(0, BLOCK), cache_modifier=".cg")
    tl.store(out + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), total)


@triton.jit
def bulk_kernel(x, out, steps, blocks, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Tiles by the bulk copy engine, as the products of the losses load them."""
    at = tl.program_id(0) * 7
    total = tl.zeros([ROWS, WIDTH], tl.float32)
    for _ in tl.range(steps, num_stages=4):
        at = (at + 1) % blocks
        total += x.load([at * ROWS, 0]).to(tl.float32)
    tl.store(out + tl.program_id(0), tl.sum(total))


@triton.jit
def product_kernel(x, y, out, steps, blocks, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """The same tiles into the tensor cores: a stream of k under one block of q."""
    at = tl.program_id(0) * 7
    q = y.load([0, 0])
    total = tl.zeros([ROWS, ROWS], tl.float32)
    for _ in tl.range(steps, num_stages=4):
        at = (at + 1) % blocks
        total = tl.dot(q, x.load([at * ROWS, 0]).T, total)
    tl.store(out + tl.program_id(0), tl.sum(total))


def median(call: Callable[[], object], repeats: int = 15) -> float:
    call()
    call()
    return statistics.median(seconds(call, "cuda") for _ in range(repeats))


def wall(call: Callable[[], object], count: int) -> tuple[float, float]:
    """Seconds per call until it returns, and until the device has done it."""
    best = [float("inf")] * 2
    for _ in range(5):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(count):
            call()
        returned = time.perf_counter()
        torch.cuda.synchronize()
        times = returned - begin, time.perf_counter() - begin
        best = [min(a, b / count) for a, b in zip(best, times, strict=True)]
    return best[0], best[1]


def clock() -> float:
    """Hz of the multiprocessors now, or what hardware.py assumes."""
    try:
        return torch.cuda.clock_rate() * 1e6
    except Exception:  # no library that asks the driver
        return H200.clock


def memory_rows():
    call, moved = ceiling("B", "cuda", torch.float32)
    yield "copy of 268 MB", moved / median(call) / 1e9, "GB/s", H200.copy_rate / 1e9
    x = torch.empty(2**31, dtype=torch.uint8, device="cuda").random_()
    y = torch.empty_like(x)
    yield "copy of 2 GB", 2 * x.numel() / median(lambda: y.copy_(x)) / 1e9, "GB/s", ""
    yield "fill of 2 GB", x.numel() / median(lambda: y.fill_(1)) / 1e9, "GB/s", ""


def product_rows():
    call, work = ceiling("FLOP", "cuda", torch.bfloat16)
    rate = work / median(call, 20) / 1e12
    yield "product 8192^3 bf16", rate, "TFLOP/s", H200.product_rate / 1e12
    yield "clock after it", clock() / 1e6, "MHz", H200.clock / 1e6
    a, b = (torch.randn(8192, 8192, device="cuda").bfloat16() for _ in range(2))
    wide = torch.zeros(8192, 8192, device="cuda")
    ops = torch.ops.aten

    def add() -> None:
        ops.addmm.dtype_out(wide, a, b, torch.float32, out=wide)

    yield "product 8192^3 bf16 added to float32", work / median(add) / 1e12, "TFLOP/s", ""
    narrow, thin = b[:, :512].contiguous(), wide[:, :512].contiguous()

    def add_thin() -> None:
        ops.addmm.dtype_out(thin, a, narrow, torch.float32, out=thin)

    work = 2.0 * 8192 * 8192 * 512
    rate = work / median(add_thin) / 1e12
    yield "product 8192 x 512 x 8192 bf16 added to float32", rate, "TFLOP/s", ""


def cache_rows():
    processors = torch.cuda.get_device_properties(0).multi_processor_count
    x = torch.randint(2**30, (L2_BYTES // 4,), dtype=torch.int32, device="cuda")
    per_clock = processors * clock()
    for warps, programs, block in ((8, 4, 4096), (8, 8, 2048), (4, 8, 2048)):
        grid, steps = programs * processors, 512
        out = torch.empty(grid * block, dtype=torch.int32, device="cuda")
        rate = grid * steps * block * 4 / median(
            lambda: read_kernel[(grid,)](x, out, steps, len(x) // block, block, num_warps=warps)  # noqa: B023
        )  # fmt: skip
        name = f"L2 by loads, {programs} programs of {warps} warps"
        yield name, rate / 1e9, "GB/s", ""
        yield name, rate / per_clock, "B/clk/SM", H200.l2
    rows = torch.randn(L2_BYTES // 2 // WIDTH, WIDTH, device="cuda").bfloat16()
    tiles = TensorDescriptor(rows, list(rows.shape), list(rows.stride()), [ROWS, WIDTH])
    blocks, moved = len(rows) // ROWS, ROWS * WIDTH * 2
    for kernel, operands, what in (
        (bulk_kernel, (tiles,), "bulk copies"), (product_kernel, (tiles, tiles), "products"),
    ):  # fmt: skip
        for programs in (1, 2):
            grid, steps = programs * processors, 1024
            out = torch.empty(grid, device="cuda")
            rate = grid * steps * moved / median(
                lambda: kernel[(grid,)](*operands, out, steps, blocks, ROWS, WIDTH, num_warps=4)  # noqa: B023
            )  # fmt: skip
            name = f"L2 by {what}, {programs} programs of 4 warps"
            yield name, rate / 1e9, "GB/s", ""
            yield name, rate / per_clock, "B/clk/SM", H200.l2


def launch_rows():
    import fastcl.functional as F

    x = torch.zeros(16, device="cuda")
    q = torch.randn(64, 64, device="cuda").bfloat16()
    tiles = TensorDescriptor(q, [64, 64], [64, 1], [64, 64])
    queue = torch.zeros(1024, 64, device="cuda", dtype=torch.bfloat16)
    pointer = torch.zeros((), dtype=torch.int64, device="cuda")
    wide = torch.zeros(64, 64, device="cuda")
    calls = {
        "empty Triton kernel": lambda: empty_kernel[(1,)](x),
        "Triton kernel of 13 arguments": lambda: many_kernel[(1,)](
            x, x, x, x, q, q, queue, None, 64, 128, 48, 1.0, 64
        ),
        "Triton kernel of 13 arguments, two descriptors": lambda: many_kernel[(1,)](
            tiles, tiles, x, x, q, q, queue, None, 64, 128, 48, 1.0, 64
        ),
        "x.add_(1)": lambda: x.add_(1),
        "torch.empty": lambda: torch.empty(16, device="cuda"),
        "addmm into float32": lambda: torch.ops.aten.addmm.dtype_out(
            wide, q, q, torch.float32, out=wide
        ),
        "queue_push_": lambda: F.queue_push_(queue, pointer, q),
    }
    for name, call in calls.items():
        try:
            call()
            host, device = wall(call, MANY)
        except Exception as reason:
            print(f"{name} fails: {str(reason)[:300]}", flush=True)
            continue
        yield f"{name}: until it returns", host * 1e6, "us", ""
        yield f"{name}: with the device", device * 1e6, "us", ""
        if name == "torch.empty":
            continue
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                for _ in range(MANY):
                    call()
            per = median(graph.replay) / MANY
        except Exception as reason:
            print(f"{name} in a graph fails: {str(reason)[:300]}", flush=True)
            continue
        yield f"{name}: in a graph", per * 1e6, "us", H200.launch * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ceilings", description=__doc__)
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="folder of the rows")
    options = parser.parse_args()
    where, failed = report.circumstances("cuda"), 0
    for rows in (memory_rows, product_rows, cache_rows, launch_rows):
        try:
            for what, value, unit, assumed in rows():
                row = {"what": what, "value": value, "unit": unit, "assumed": assumed}
                report.append(where | row, options.out / "ceilings.csv")
                shown = f"(assumed {assumed:.4g})" if assumed != "" else ""
                print(f"{what:52} {value:10.4g} {unit} {shown}", flush=True)
        except Exception as reason:  # the others are worth having
            failed = 1
            print(
                f"{rows.__name__} fails: {type(reason).__name__}: {str(reason)[:400]}", flush=True
            )
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
