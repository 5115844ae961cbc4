"""The drop-in losses on two ranks: the library's own value and gradients."""

import importlib.util

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from peers import peer

from fastcl.compat import lightly, open_clip

WORLD, N, WIDTH = 2, 4, 5


def _rows(*names):
    """The rows of every rank, the same everywhere: [WORLD, N, WIDTH] each."""
    torch.manual_seed(3)
    return {k: torch.randn(WORLD, N, WIDTH, dtype=torch.float64) for k in names}


def _gradients(loss, rank, tensors, *more):
    own = [x[rank].clone().requires_grad_() for x in tensors.values()]
    value = loss(*own, *more)
    return value.detach(), *torch.autograd.grad(value, own)


def _nt_xent(out0, out1):
    return lightly.NTXentLoss()(out0.flatten(0, 1), out1.flatten(0, 1))


def _check_exact(rank: int) -> None:
    """Averaged over ranks, value and gradients are those of one process with all rows."""
    tensors = _rows("out0", "out1")
    whole = [x.clone().requires_grad_() for x in tensors.values()]
    want = _nt_xent(*whole)
    gradients = torch.autograd.grad(want, whole)
    value, *own = _gradients(lightly.NTXentLoss(gather_distributed=True), rank, tensors)
    dist.all_reduce(value)
    torch.testing.assert_close(value / WORLD, want.detach())
    for mine, full in zip(own, gradients, strict=True):
        torch.testing.assert_close(mine / WORLD, full[rank])
    alone = _gradients(lightly.NTXentLoss(), rank, tensors)[1]
    assert not torch.allclose(alone / WORLD, gradients[0][rank], rtol=1e-3)  # negative control


def _check_clip(rank: int) -> None:
    images, texts = (F.normalize(x, dim=2) for x in _rows("image", "text").values())
    tensors = {"image": images, "text": texts}
    scale = torch.tensor(5.0, dtype=torch.float64)
    whole = [x.flatten(0, 1).requires_grad_() for x in tensors.values()]
    full = torch.autograd.grad(open_clip.ClipLoss()(*whole, scale), whole)
    for local in (False, True):
        loss = open_clip.ClipLoss(local, True, rank=rank, world_size=WORLD)
        for mine, all_rows in zip(_gradients(loss, rank, tensors, scale)[1:], full, strict=True):
            torch.testing.assert_close(mine / WORLD, all_rows.view(WORLD, N, WIDTH)[rank])
    # Without the gradient through the gathered rows: 1 / world_size of it.
    loss = open_clip.ClipLoss(False, False, rank=rank, world_size=WORLD)
    mine = _gradients(loss, rank, tensors, scale)[1]
    torch.testing.assert_close(mine, full[0].view(WORLD, N, WIDTH)[rank])


def _check_libraries(rank: int) -> None:
    """Every flag against the library itself."""
    theirs, tensors = peer("lightly.loss"), _rows("out0", "out1")
    for name in ("NTXentLoss", "DCLLoss", "DCLWLoss"):
        results = [
            _gradients(getattr(m, name)(gather_distributed=True), rank, tensors)
            for m in (lightly, theirs)
        ]
        torch.testing.assert_close(*results)
    theirs = peer("open_clip.loss")
    scale, bias = (torch.tensor(x, dtype=torch.float64) for x in (5.0, -2.0))
    for flags in ((False, False), (False, True), (True, False), (True, True)):
        results = [
            _gradients(m.ClipLoss(*flags, rank=rank, world_size=WORLD), rank, tensors, scale)
            for m in (open_clip, theirs)
        ]
        torch.testing.assert_close(*results)
    for how in ("bidir", "shift", "reduce", "gather"):
        results = [
            _gradients(
                m.SigLipLoss(rank=rank, world_size=WORLD, dist_impl=how),
                rank, tensors, scale, bias,
            )
            for m in (open_clip, theirs)
        ]  # fmt: skip
        torch.testing.assert_close(*results)


def _rank(rank: int, store: str, libraries: bool) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD)
    try:
        if libraries:
            _check_libraries(rank)
        else:
            _check_exact(rank)
            _check_clip(rank)
    finally:
        dist.destroy_process_group()


def test_two_ranks(tmp_path):
    mp.spawn(_rank, args=(str(tmp_path / "store"), False), nprocs=WORLD)


def test_two_ranks_of_the_libraries(tmp_path):
    if not all(importlib.util.find_spec(x) for x in ("lightly", "open_clip")):
        pytest.skip("lightly or open_clip is not installed: make test-peers")
    mp.spawn(_rank, args=(str(tmp_path / "store"), True), nprocs=WORLD)
