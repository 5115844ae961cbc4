"""The switch between the compiled instruction sets, and what is said of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processors import built, pair_products, running

from fastcl._processor import INSTRUCTION_SETS, processor, use_processor
from fastcl.commands import doctor

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
