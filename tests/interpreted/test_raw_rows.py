"""The backward from rows that are not unit, against the composite in float64."""

import pytest
import torch
from problems import Budget

from fastcl import composite


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "form", ["views", pytest.param("both", marks=pytest.mark.slow), "rows alone"]
)
def test_equals_the_composite(kernels, form, dtype):
    from fastcl.kernels import raw_info_nce

    random = torch.Generator().manual_seed(0)
    parts = [(3 * torch.randn(n, 24, generator=random)).to(dtype) for n in (11, 6)]
    k = [] if form == "views" else [torch.randn(20, 24, generator=random).to(dtype)]
    ids, cols = torch.arange(17) % 9, torch.arange(17 if form == "views" else 20) % 9
    grad, grad_col = (torch.rand(len(x), generator=random) + 0.1 for x in (ids, cols))
    grad_col = grad_col if form == "both" else None
    options = 5.0, torch.tensor(2.0), ids, cols
    results = []
    for module, to in ((raw_info_nce, dtype), (composite, dtype), (composite, torch.float64)):
        wide = torch.float64 if to == torch.float64 else torch.float32
        q, y = ([x.to(to) for x in side] for side in (parts, k))
        rows, columns, *lengths = composite.raw_info_nce_forward(
            q, y, *options, grad_col is not None, True
        )
        upstream = [None if g is None else g.to(wide) for g in (grad, grad_col)]
        results.append(module.raw_info_nce_backward(
            *upstream, q, y, *lengths, *options, rows, columns, True, True, form != "rows alone"
        ))  # fmt: skip
    budget, eps = Budget(), torch.finfo(dtype).eps
    for name, *three in zip(("dq", "dk", "dot"), *results, strict=True):
        budget.add(name, *three, eps, floor=0.0)
    budget.check()
