"""Every instruction set and every kind of bfloat16 product that is compiled, by its name."""

from contextlib import contextmanager
from functools import cache

import pytest

from fastcl._library import COMPILED
from fastcl._processor import INSTRUCTION_SETS, PAIR_PRODUCTS, processor, use_processor

built = pytest.mark.skipif(not COMPILED.exists(), reason="the compiled part is not built")
pair_products = pytest.mark.parametrize("products", PAIR_PRODUCTS)


@contextmanager
def running(instruction_set: str | None = None, products: str | None = None):
    """The kernels of one path, the rest as it was; skips where the processor cannot run them."""
    before = processor()
    if before is None:
        pytest.skip("the compiled part is not built")
    try:
        use_processor(instruction_set or before.instruction_set, products or before.pair_products)
    except RuntimeError as lacking:
        pytest.skip(str(lacking).splitlines()[0])
    try:
        yield
    finally:
        use_processor(before.instruction_set, before.pair_products)


@cache
def often() -> tuple[str, str]:
    """The sets of `make test`: the narrowest vectors and the widest that this processor has. What
    goes wrong in the middle alone is rare, and `make test-all` has it."""
    return INSTRUCTION_SETS[0], processor().instruction_set


@cache
def _others() -> list[str]:
    """What else this processor has."""
    return [x for x in INSTRUCTION_SETS[: INSTRUCTION_SETS.index(often()[1])] if x not in often()]


def together(function):
    """With `sets`: those of `make test`, or all others."""
    sets = [] if not COMPILED.exists() else [
        pytest.param(often(), id="often"),
        pytest.param(_others(), id="others", marks=pytest.mark.slow),
    ]  # fmt: skip
    return pytest.mark.parametrize("sets", sets)(function)


def over_instruction_sets(metafunc):
    """Tests marked `instruction_sets` run once in every set; `any_set` takes one out again."""
    marker = metafunc.definition.get_closest_marker
    if COMPILED.exists() and marker("instruction_sets") and not marker("any_set"):
        sets = [
            name if name in often() else pytest.param(name, marks=pytest.mark.slow)
            for name in INSTRUCTION_SETS
        ]
        metafunc.parametrize("instruction_set", sets, indirect=True)
