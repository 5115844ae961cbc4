"""How the CUDA C++ sums are launched and folded, with the reference in the place of the kernel."""

import math

import device
import pytest
import torch

from fastcl.kernels import contrast_common as common
from fastcl.kernels import contrast_hopper as hopper


@pytest.mark.parametrize("with_ids", [False, True])
def test_sums_over_several_launches(kernels, monkeypatch, with_ids):
    monkeypatch.setattr(hopper, "LAUNCH_TILES", 1)
    q, k = (torch.nn.functional.normalize(torch.randn(n, 16), dim=1) for n in (300, 520))
    ids = (torch.arange(300) % 7, torch.arange(520) % 5) if with_ids else (None, None)
    p = common.operands(q, k, *ids, 3.0, torch.tensor(4.0), False)
    rows, cols = hopper.fixed_sums(p)
    e = torch.exp2(12 * math.log2(math.e) * (q.double() @ k.double().T))
    if with_ids:
        e = e.masked_fill(ids[0][:, None] == ids[1], 0)
    torch.testing.assert_close(rows.double().sum(0), e.sum(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(cols, e.sum(0), rtol=1e-6, atol=0)


def test_it_serves_only_where_asked_and_built(kernels, monkeypatch):
    q = torch.randn(20, 16, dtype=torch.bfloat16)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: device.hopper())
    p = common.operands(q, q.clone(), None, None, 3.0, None, False)
    p = p._replace(plan=p.plan._replace(bulk=True))
    built = torch._C._dispatch_has_kernel_for_dispatch_key("fastcl::contrast_sums_", "CUDA")
    assert not hopper.serves(p, None, True)
    try:
        hopper.use_cuda_sums(True)
        assert hopper.serves(p, None, True) == built
        assert not hopper.serves(p, None, False) and not hopper.serves(p, q[:, 0], True)
        assert not hopper.serves(p._replace(symmetric=True), None, True)
    finally:
        hopper.use_cuda_sums(False)
