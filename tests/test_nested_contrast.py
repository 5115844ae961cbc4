"""The nested widths on the CPU, whatever way their tiles go."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processors import built, pair_products, running
from remembered import remembered

import fastcl.functional as F
from fastcl import reference
from fastcl._library import ops

pytestmark = [built, pytest.mark.instruction_sets]
ALL = True, True, True
# Rows and widths: one tile; tiles kept for several chunks; too wide to be kept, formed twice.
SHAPES = {
    "one tile": (65, 24, [5, 8, 24]),
    "one row": (1, 4, [1, 4]),
    "chunks": (1100, 12, [2, 4, 8, 10]),
    "passes": (280, 520, list(range(2, 522, 2))),
}
DTYPES = {torch.float32: 4e-6, torch.float64: 1e-14, torch.float16: 4e-6, torch.bfloat16: 2e-2}


def arguments(n, d, widths, dtype=torch.float32, needs=ALL):
    q = torch.randn(n, d, dtype=torch.float64)
    k = q + torch.randn(n, d, dtype=torch.float64)
    weights = torch.linspace(0.5, 2.0, len(widths)).tolist()
    scale = torch.tensor(2.0, dtype=torch.float64)
    return q.to(dtype), k.to(dtype), scale, 10.0, widths, weights, *needs


def assert_close(ours, exact, bound):
    for x, y in zip(ours, exact, strict=True):
        assert x.shape == y.shape
        error = (x.double() - y).abs()
        assert (error <= bound * (y.abs().max() + 1e-3)).all() if y.numel() else True


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_against_the_reference(shape, dtype):
    given = arguments(*SHAPES[shape], dtype)
    wide = [x.double() if isinstance(x, torch.Tensor) else x for x in given]
    exact = remembered(reference.nested_contrast_mean, *wide)
    assert_close(ops.nested_contrast_mean(*given), exact, DTYPES[dtype])


@pytest.mark.parametrize("needs", [(False,) * 3, (True, False, False), (False, True, False),
                                   (False, False, True)])  # fmt: skip
@pytest.mark.parametrize("shape", ["chunks", "passes"])
def test_only_what_is_needed(shape, needs):
    *given, _, _, _ = arguments(*SHAPES[shape])
    loss, *every = remembered(reference.nested_contrast_mean, *given, *ALL)
    some = [x if need else x[:0] for x, need in zip(every, needs, strict=True)]
    assert_close(ops.nested_contrast_mean(*given, *needs), [loss, *some], 1e-5)


@pytest.mark.parametrize("shape", ["chunks", "passes"])
def test_the_same_bits_from_any_number_of_threads(shape):
    given = arguments(*SHAPES[shape])
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(ops.nested_contrast_mean(*given))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(other, found[0], strict=True))


@pytest.mark.any_set
@pair_products
def test_products_of_pairs(products):
    """Every part of the features is a whole number of pairs, or no pair is multiplied."""
    for widths in ([2, 6, 34], [3, 34]):
        given = arguments(300, 34, widths, torch.bfloat16)
        wide = [x.double() if isinstance(x, torch.Tensor) else x for x in given]
        exact = reference.nested_contrast_mean(*wide)
        with running(products=products):
            assert_close(ops.nested_contrast_mean(*given), exact, DTYPES[torch.bfloat16])


def test_a_row_without_length_at_some_widths():
    """It is as far from every column there, and has a gradient from the other widths."""
    q, k = torch.randn(2, 40, 8, dtype=torch.float64)
    q[3, :4], k[5, :6], q[7], k[9] = 0, 0, 0, 0
    widths = [2, 4, 6, 8]
    given = q, k, None, 10.0, widths, [1.0] * 4, *ALL
    ours = ops.nested_contrast_mean(*given)
    assert_close(ours, reference.nested_contrast_mean(*given), 1e-13)
    assert ours[1][3].abs().min() > 0 and not ours[1][7].any() and not ours[2][9].any()
    q.requires_grad_()
    each = sum(F.info_nce(q[:, :w], k[:, :w], temperature=0.1) for w in widths)
    # Of float64; sums of forty columns in another order.
    torch.testing.assert_close(ours[1], torch.autograd.grad(each, q)[0], rtol=1e-12, atol=1e-13)


def test_one_feature_has_no_gradient():
    """Its cosine is a sign, of however short a row."""
    q, k = 1e-4 * torch.randn(2, 300, 3)
    _, dq, dk, _ = ops.nested_contrast_mean(q, k, None, 100.0, [1], [1.0], *ALL)
    assert not dq.any() and not dk.any()


def test_many_widths_go_in_groups():
    q, k = torch.randn(2, 30, 40, dtype=torch.float64)
    ours = F.matryoshka(q, k, widths=range(1, 41), temperature=0.1)
    each = sum(F.info_nce(q[:, :w], k[:, :w], temperature=0.1) for w in range(1, 41))
    torch.testing.assert_close(ours, each)


@pytest.mark.any_set
def test_memory_is_that_of_a_chunk():
    """The highest resident size of a process, above what it had with inputs and outputs in hand:
    twice what one width keeps, 12 MB, and a few numbers per row."""
    program = f"""
import resource, sys, torch
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from fastcl._library import ops
torch.set_num_threads(2)
def step(n):
    q, k = torch.randn(2, n, 16)
    outputs = torch.ones(2, n, 16)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    del outputs
    ops.nested_contrast_mean(q, k, None, 10.0, [2, 4, 8, 16], [1.0] * 4, True, True, True)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
step(300)
print(step(8192))
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert float(result.stdout) < 20
