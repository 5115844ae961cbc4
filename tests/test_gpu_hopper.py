"""The forward's sums in CUDA C++ on compute capability 9.0; the same lines on the CPU's reference.

Until these have passed on a GPU the kernel stays off (fastcl/kernels/info_nce_hopper.py).
"""

import math

import pytest
import torch
import torch.nn.functional as nnf

import fastcl.functional as F
from fastcl._library import ops
from fastcl.reference.info_nce_sums import BLOCK, COLUMNS, TILE

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
    ops.info_nce_sums_(
        q, k, scale, logit_scale, *pair, *spans, first, tiles, strip, 132, row_part, col_part
    )
    return row_part, col_part


def exact(q, k, ids, total):
    s = total * math.log2(math.e) * (q.double() @ k.double().T)
    e = torch.exp2(s - math.floor(max(0.0, total - 74) * math.log2(math.e)))
    return e if ids is None else e.masked_fill(ids[0][:, None] == ids[1], 0)


def close(ours, truth):
    """A sum of positive float32 numbers, each from a product with a relative error of its logit."""
    assert ours.isfinite().all()
    torch.testing.assert_close(ours.double(), truth, rtol=3e-5, atol=1e-30)


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
        close(rows.sum(0), truth.sum(1))
        for line, block in enumerate(truth.split(BLOCK)):
            close(cols[line], block.sum(0))
        assert (cols[-(-n // BLOCK) :] == 0).all()


@DEVICES
def test_later_row_tiles_leave_the_others_alone(device):
    q, k = unit(700, 64, device), unit(300, 64, device)
    rows, cols = run(q, k, None, 20.0, first=2, tiles=3)
    truth = exact(q, k, None, 20.0)[2 * TILE : 5 * TILE]
    close(rows.sum(0)[2 * TILE : 5 * TILE], truth.sum(1))
    close(cols.sum(0), truth.sum(0))
    assert rows[:, : 2 * TILE].isnan().all() and rows[:, 5 * TILE :].isnan().all()


@DEVICES
def test_scale_on_the_device_and_the_same_bits_twice(device):
    q, k = unit(1000, 512, device), unit(2000, 512, device)
    half = torch.tensor([5.0], device=device)
    first, second = (run(q, k, None, 2.0, half, strip=2) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    close(first[0].sum(0), exact(q, k, None, 10.0).sum(1))


@DEVICES
def test_clip_with_the_kernel_is_clip_without(device):
    pytest.importorskip("triton")
    from fastcl.kernels.info_nce_hopper import use_cuda_sums

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
    from fastcl.kernels import info_nce_hopper

    assert info_nce_hopper._enabled is False
    with pytest.raises(TypeError, match="enabled must be True or False, got 1"):
        info_nce_hopper.use_cuda_sums(1)
