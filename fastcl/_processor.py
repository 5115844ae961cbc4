"""Which of the compiled CPU kernels run here. The numbers are those of csrc/cpu."""

from typing import NamedTuple

from ._library import COMPILED, ops

# csrc/cpu/instruction_set.h. The third is the second with the vectors of the fourth, for the tests.
INSTRUCTION_SETS = ("base", "AVX2", "AVX2 in 64 bytes", "AVX-512")
# csrc/cpu/pairs.h: how bfloat16 rows are multiplied. Emulated ones are for the tests.
PAIR_PRODUCTS = ("widened", "emulated vectors", "emulated matrices", "AVX-512 BF16", "AMX")


class Processor(NamedTuple):
    """One line of the doctor, and of every row of results."""

    instruction_set: str
    lanes: int  # of float32
    pair_products: str

    @property
    def multiplies_bfloat16(self) -> bool:
        return self.pair_products != PAIR_PRODUCTS[0]


def processor() -> Processor | None:
    """What runs; None without the compiled part."""
    if not COMPILED.exists():
        return None
    instruction_set, lanes, products = ops.processor()
    return Processor(INSTRUCTION_SETS[instruction_set], lanes, PAIR_PRODUCTS[products])


def use_processor(instruction_set: str | None = None, pair_products: str | None = None) -> None:
    """Take other kernels in this process, for the tests and to measure; None: the best there are.

    Raises:
        RuntimeError: the processor cannot run them.
    """
    ops.use_processor(
        -1 if instruction_set is None else INSTRUCTION_SETS.index(instruction_set),
        -1 if pair_products is None else PAIR_PRODUCTS.index(pair_products),
    )
