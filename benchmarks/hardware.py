"""What a multiprocessor can hold and do per clock, with the source of every figure.

Guide: "CUDA C++ Programming Guide": "Compute Capabilities" has the limits, "Throughput of Native
Arithmetic Instructions" the results per clock. Tuning guides: "Occupancy" and "Shared Memory" of
the NVIDIA Ampere and Hopper tuning guides.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

WARP = 32


@dataclass(frozen=True)
class Limits:
    """What a multiprocessor holds at once."""

    registers: int = 65536
    threads: int = 2048
    blocks: int = 32
    shared: int = 228 * 1024  # bytes, all blocks together
    block_shared: int = 227 * 1024  # bytes one block may ask for
    reserved: int = 1024  # bytes of shared memory the driver takes per block
    register_unit: int = 256  # a warp's registers are handed out in this many
    shared_unit: int = 128  # bytes


# Guide, "Technical Specifications per Compute Capability"; units of the occupancy calculator.
LIMITS = {
    80: Limits(shared=164 * 1024, block_shared=163 * 1024),
    86: Limits(threads=1536, blocks=16, shared=100 * 1024, block_shared=99 * 1024),
    90: Limits(),
    100: Limits(),
}


@dataclass(frozen=True)
class Occupancy:
    blocks: int  # per multiprocessor
    warps: int
    bound: str  # what allows no more

    @property
    def fits(self) -> bool:
        return self.blocks > 0


def occupancy(architecture: int, registers: int, shared: int, warps: int) -> Occupancy:
    """Blocks of `warps` warps that a multiprocessor holds at once.

    Registers are allotted per warp in units of 256, shared memory per block with 1 KB for the
    driver: the rules of the occupancy calculator in NVIDIA Nsight Compute.
    """
    limit = LIMITS[architecture]
    per_warp = _up(max(registers, 1) * WARP, limit.register_unit)
    # Each of the four schedulers has a quarter of the registers and whole warps only.
    warps_by_registers = 4 * (limit.registers // 4 // per_warp)
    per_block = _up(shared + limit.reserved, limit.shared_unit)
    bounds = {
        "registers": warps_by_registers // warps,
        "shared memory": limit.shared // per_block if shared <= limit.block_shared else 0,
        "threads": limit.threads // (warps * WARP),
        "blocks": limit.blocks,
    }
    bound = min(bounds, key=bounds.get)
    return Occupancy(bounds[bound], bounds[bound] * warps, bound)


def _up(x: int, unit: int) -> int:
    return -(-x // unit) * unit


@dataclass(frozen=True)
class Processor:
    """One H200, the card that predictions are made for."""

    multiprocessors: int = 132
    product_rate: float = 790e12  # bf16 operations per second, measured: a product of 8192^3
    copy_rate: float = 4.3e12  # bytes per second read and written, measured
    # 4096 operations per clock and multiprocessor (Hopper white paper: 4 tensor cores of 512
    # multiply-adds) are the data sheet's 989 TFLOP/s at this clock.
    clock: float = 1.83e9
    # Bytes per clock and multiprocessor from L2. Assumed: 5120 per clock in all, as A100's white
    # paper has it (Hopper's is not published), at four fifths, like the product rate of its peak.
    l2: float = 0.8 * 5120 / 132
    # Seconds between the starts of dependent kernels on the device: assumed, or `measured`.
    launch: float = 2.5e-6
    # Of the host until a launch of Triton's returns, where it was measured on the card.
    host: float | None = None

    @property
    def multiplications(self) -> float:
        """Multiply-adds per clock and multiprocessor that the measured rate amounts to."""
        return self.product_rate / 2 / self.multiprocessors / self.clock


RESULTS_FOLDER = Path(__file__).parent / "results"
# Rows of `python -m benchmarks.ceilings`, in microseconds.
MEASURED = {
    "launch": "Triton kernel of 13 arguments: in a graph",
    "host": "Triton kernel of 13 arguments: until it returns",
}


def measured(path: Path = RESULTS_FOLDER / "ceilings.csv") -> dict[str, float]:
    """Seconds of launches in the committed ceilings of a GPU, if there are any."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        found = {row["what"]: float(row["value"]) * 1e-6 for row in csv.DictReader(file)}
    return {name: found[what] for name, what in MEASURED.items() if what in found}


H200 = Processor(**measured())

# Results per clock and multiprocessor, compute capability 9.0 (Guide); `issue`: four schedulers,
# one instruction of 32 threads each. Shared memory: 32 banks. Unnamed opcodes only issue.
RESULTS = {
    "special": 16,
    "fma": 128,
    "fp64": 64,
    "convert": 16,
    "alu": 64,
    "shuffle": 32,
    "shared": 32,
    "load": 32,
    "store": 32,
    "all": 128,
}
# Assumed clocks; published microbenchmarks of Hopper are of this size. None decides a case here.
BULK_LATENCY = 600  # a bulk tensor load from L2, its barrier included
BARRIER = 30  # all warps of a block meet
DRAIN = 130  # the last tensor-core instruction of a chain, 128 clocks at 64 x 256 x 16
