"""The switch between the compiled instruction sets, and what is said of them."""

import platform
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processors import built, pair_products, running

from fastcl._processor import INSTRUCTION_SETS, processor, use_processor
from fastcl.commands import doctor

CPUINFO = Path("/proc/cpuinfo")
pytestmark = [built, pytest.mark.instruction_sets]


def test_the_set_of_the_name_runs(request):
    assert f"[{processor().instruction_set}]" in request.node.name


@given(number=st.integers())
def test_the_set_of_the_name_runs_under_hypothesis(request, number):
    assert f"[{processor().instruction_set}]" in request.node.name


def test_lanes():
    instruction_set, lanes, _ = processor()
    assert lanes == dict(zip(INSTRUCTION_SETS, (4, 8, 16, 16), strict=True))[instruction_set]


def test_the_doctor_names_what_runs():
    instruction_set, lanes, products = processor()
    expected = f"{instruction_set} ({lanes} lanes of float32), products of bfloat16: {products}"
    assert expected in doctor.report()


def test_momentum_and_its_random_rounding_are_the_same_bits_in_every_set():
    """Products and sums are rounded apart, so the sets may not differ."""
    results = []
    for instruction_set in (None, "base"):
        torch.manual_seed(0)
        target = [torch.randn(1003).to(t) for t in (torch.bfloat16, torch.float16, torch.float32)]
        online = [torch.randn(1003) for _ in target]
        with running(instruction_set):
            seed = torch.tensor(7)
            torch.ops.fastcl.momentum_update_(target, online, 0.99, None, seed)
        results.append(target)
    for ours, base in zip(*results, strict=True):
        assert torch.equal(ours, base)


@pytest.mark.any_set
def test_the_best_of_what_the_processor_has_runs():
    """As Linux lists it; Intel's vectors of bfloat16 pairs are slower than those of floats."""
    found = re.findall(r"^(?:flags|vendor_id)\s*: (.*)$", CPUINFO.read_text(), re.MULTILINE)
    if platform.machine() != "x86_64" or len(found) < 2:
        pytest.skip("another processor, or not told")
    vendor, flags = found[0], set(found[1].split())
    use_processor()
    best = processor()
    wide = {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags
    has_avx2 = {"avx2", "fma"} <= flags
    assert best.instruction_set == ("AVX-512" if wide else "AVX2" if has_avx2 else "base")
    pairs = wide and "avx512_bf16" in flags
    if pairs and {"amx_tile", "amx_bf16"} <= flags:
        assert best.pair_products == "AMX"
    else:
        faster = pairs and vendor != "GenuineIntel"
        assert best.pair_products == ("AVX-512 BF16" if faster else "widened")


@pair_products
@pytest.mark.any_set
def test_products_have_names(products):
    with running(products=products):
        assert processor().pair_products == products


@pytest.mark.any_set
def test_what_is_not_there_is_refused():
    before = processor()
    with pytest.raises(RuntimeError, match="this processor lacks"):
        torch.ops.fastcl.use_processor(99, -1)
    with pytest.raises(ValueError):
        use_processor("AVX-1024")
    assert processor() == before
