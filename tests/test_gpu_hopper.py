"""The forward's sums in CUDA C++ on compute capability 9.0; the same lines on the CPU's reference.

Until these have passed on a GPU the kernel stays off (fastcl/kernels/contrast_hopper.py).
"""

import math

import pytest
import torch
import torch.nn.functional as nnf

import fastcl.functional as F
from fastcl._library import ops
from fastcl.reference.contrast_sums import BLOCK, COLUMNS, TILE

GPU = pytest.param("cuda", marks=pytest.mark.gpu)
DEVICES = pytest.mark.parametrize("device", [GPU, "cpu"])


@pytest.fixture(autouse=True)
def _only_hopper(request):
    gpu = request.node.get_closest_marker("gpu")
    if gpu and torch.cuda.is_available() and torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("the kernel is for compute capability 9.0")


def unit(n, d, device):
    return nnf.normalize(torch.randn(n, d), dim=1).bfloat16().to(device)


def ranges(ids, block):
    parts = ids.split(block)
    return torch.stack([torch.stack([x.min(), x.max()]) for x in parts])


def run(q, k, ids, scale, logit_scale=None, first=0, tiles=None, strip=1):
    """Buffers full of NaN, so that an element nobody wrote shows."""
    n, m = len(q), len(k)
    tiles = -(-n // TILE) - first if tiles is None else tiles
    strips = math.ceil(math.ceil(m / COLUMNS) / strip)
    row_part = torch.full((strips, n), torch.nan, device=q.device)
    col_part = torch.full((2 * tiles, m), torch.nan, device=q.device)
    spans = (None, None) if ids is None else (ranges(ids[0], BLOCK), ranges(ids[1], COLUMNS))
    pair = (None, None) if ids is None else ids
    ops.contrast_sums_(
        q, k, scale, logit_scale, *pair, *spans, first, tiles, strip, 132, row_part, col_part
    )
    return row_part, col_part


def exact(q, k, ids, total):
    s = total * math.log2(math.e) * (q.double() @ k.double().T)
    e = torch.exp2(s - math.floor(max(0.0, total - 74) * math.log2(math.e)))
    return e if ids is None else e.masked_fill(ids[0][:, None] == ids[1], 0)


def cosine_errors(q, k):
    """What tensor cores may lose of each cosine [n, m].

    Products of bfloat16 numbers are exact. Of 16 features an instruction adds the products to the
    sum so far: it shifts all to the largest among them and cuts at 24 bits, u = 2^-23 largest, as
    Fasi et al. 2021, "Numerical behavior of NVIDIA tensor cores", found (Hopper keeps more), and
    cuts the result again, 2 u as it may have doubled. That is 16 + 3 g cuts in g groups of the 16
    products; older tensor cores took them by four, so g <= 4 and the error is at most 28 u. The
    largest is the sum so far or below the sum of the products' sizes.
    """
    q, k = q.double(), k.double()
    total = q.new_zeros(len(q), len(k))
    error = torch.zeros_like(total)
    for a, b in zip(q.split(16, 1), k.split(16, 1), strict=True):
        error += 28 * 2.0**-23 * torch.maximum(total.abs(), a.abs() @ b.abs().T)
        total += a @ b.T
    return error


def allowed(q, k, e, total):
    """What rounding may change of each exponential e [n, m], at most.

    The logit by that of its cosine; the exponent x = s log2(e) - c, |x| < 160 here, by two fused
    multiply-adds, 2^-24 each; the power by 2^-22 (PTX ISA, ex2.approx.ftz), which also makes zero
    of what is below 2^-126; and the sum of at most 1,000 by as many roundings, in whatever order.
    """
    relative = torch.expm1(total * cosine_errors(q, k))
    return e * (relative + math.log(2) * 160 * 2.0**-23 + 2.0**-22 + 1000 * 2.0**-24) + 2.0**-126


def close(ours, truth, error):
    assert ours.isfinite().all()
    assert ((ours.double() - truth).abs() <= error).all()


@DEVICES
@pytest.mark.parametrize("with_ids", [False, True])
@pytest.mark.parametrize(
    "n, m, d",
    [(1, 1, 8), (63, 65, 64), (128, 256, 64), (129, 257, 72), (300, 1000, 512), (1000, 300, 768)],
)
def test_sums(n, m, d, with_ids, device):
    q, k = unit(n, d, device), unit(m, d, device)
    ids = None
    if with_ids:  # in order, and a few that are everywhere
        ids = torch.arange(n, device=device), torch.arange(m, device=device)
        ids[1][::97] = 0
    for scale, strip in ((10.0, 1), (100.0, 3)):
        rows, cols = run(q, k, ids, scale, strip=strip)
        truth = exact(q, k, ids, scale)
        error = allowed(q, k, truth, scale)
        close(rows.sum(0), truth.sum(1), error.sum(1))
        for line, blocks in enumerate(zip(truth.split(BLOCK), error.split(BLOCK), strict=True)):
            close(cols[line], *(block.sum(0) for block in blocks))
        assert (cols[-(-n // BLOCK) :] == 0).all()


@DEVICES
def test_later_row_tiles_leave_the_others_alone(device):
    q, k = unit(700, 64, device), unit(300, 64, device)
    rows, cols = run(q, k, None, 20.0, first=2, tiles=3)
    truth = exact(q, k, None, 20.0)
    here = slice(2 * TILE, 5 * TILE)
    truth, error = truth[here], allowed(q, k, truth, 20.0)[here]
    close(rows.sum(0)[here], truth.sum(1), error.sum(1))
    close(cols.sum(0), truth.sum(0), error.sum(0))
    assert rows[:, : 2 * TILE].isnan().all() and rows[:, 5 * TILE :].isnan().all()


@DEVICES
def test_scale_on_the_device_and_the_same_bits_twice(device):
    q, k = unit(1000, 512, device), unit(2000, 512, device)
    half = torch.tensor([5.0], device=device)
    first, second = (run(q, k, None, 2.0, half, strip=2) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    truth = exact(q, k, None, 10.0)
    close(first[0].sum(0), truth.sum(1), allowed(q, k, truth, 10.0).sum(1))


def test_the_bound_sees_a_column_left_out():
    q, k = unit(200, 512, "cpu"), unit(1000, 512, "cpu")
    truth = exact(q, k, None, 10.0)
    error = allowed(q, k, truth, 10.0).sum(1)
    assert (truth[:, 0] > 2 * error).all()
    assert (error < 3e-4 * truth.sum(1)).all()


@DEVICES
def test_clip_with_the_kernel_is_clip_without(device):
    pytest.importorskip("triton")
    from fastcl.kernels.contrast_hopper import use_cuda_sums

    image, text = (unit(1500, 512, device).requires_grad_() for _ in range(2))
    results = []
    try:
        for enabled in (False, True):
            use_cuda_sums(enabled)
            loss = F.clip(image, text, 30.0)
            results.append((loss, *torch.autograd.grad(loss, (image, text))))
    finally:
        use_cuda_sums(False)
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-4 * theirs.abs().max().item())


def test_the_switch_is_off_and_takes_a_truth_value():
    pytest.importorskip("triton")
    from fastcl.kernels import contrast_hopper

    assert contrast_hopper._enabled is False
    with pytest.raises(TypeError, match="enabled must be True or False, got 1"):
        contrast_hopper.use_cuda_sums(1)
