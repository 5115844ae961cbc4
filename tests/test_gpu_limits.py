"""Limits and guides on a device: what a tile leaves out, by its own products and by a second one.

The same lines run on the CPU at a few sizes.
"""

import pytest
import torch
from budget import assert_within_budget
from test_gpu import DEVICES
from test_limits import NAMES, by_operators, by_reference, drawn

# Rows and columns around tiles, width; features and dtype of the guide, or the similarities.
SIZES = {
    "cuda": (
        (1, 1, 128, None), (63, 65, 100, None), (129, 300, 128, None), (300, 513, 256, None),
        (513, 257, 512, None), (129, 300, 128, (384, torch.bfloat16)),
        (300, 513, 768, (64, torch.float16)), (300, 129, 64, (100, torch.bfloat16)),
        (129, 300, 512, (384, torch.float32)),
    ),
    "cpu": ((30, 44, 24, None), (44, 30, 24, (40, torch.bfloat16))),
}  # fmt: skip
# What learns, by the form of the problem; constant columns get their gradient in the forward.
TRAINED = {"own": NAMES, "own and ids": NAMES, "ids": NAMES, "constant": ("q",)}


@DEVICES
@pytest.mark.parametrize("form", TRAINED)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_limits_and_guides(dtype, form, device):
    for n, m, d, guide in SIZES[device]:
        g, guide_dtype = guide or (7, None)
        kind = "own" if form == "constant" else form
        tensors, options = drawn(n, m, kind, guide_dtype, dtype, d, g)
        upstream, trained = torch.randn(n, dtype=torch.float64), TRAINED[form]
        exact = by_reference(tensors, options, torch.float64, upstream)
        plain = by_reference(tensors, options, dtype, upstream)
        ours = by_operators(tensors, options, dtype, upstream, device, trained)
        what = f"{n} x {m} x {d}, guide {guide}"
        assert_within_budget(ours[0], plain[0], exact[0], torch.float32, f"{what}: mean")
        assert_within_budget(ours[1], plain[1], exact[1], torch.float32, f"{what}: rows")
        for which in (2, 3):
            for name, *x in zip(trained, ours[which], plain[which], exact[which], strict=False):
                assert_within_budget(*x, dtype, f"{what}: d{name} of {which}")
        assert len(ours[2]) == len([x for x in trained if x in tensors])


@DEVICES
def test_what_is_left_out_has_no_gradient(device):
    """A negative control: a higher limit gives it one."""
    tensors, options = drawn(130, 140, "own", torch.bfloat16, torch.bfloat16, 128, 64)
    upstream = torch.ones(130, dtype=torch.float64)
    for limit, zero in ((-2.0, True), (2.0, False)):
        options["limit"] = torch.full((130,), limit)
        _, losses, grads, more = by_operators(tensors, options, torch.bfloat16, upstream, device)
        assert (losses == 0).all() == zero
        assert all((x == 0).all() == zero for x in (*grads, *more))
