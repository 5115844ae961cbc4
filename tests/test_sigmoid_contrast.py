"""The kernel of the sigmoid contrast in float64, for whatever gradients are asked for."""

import pytest
import torch
import torch.nn.functional as nnf
from contrasts import call, fields
from processors import built

from fastcl import reference
from fastcl._library import ops

pytestmark = pytest.mark.instruction_sets

# Single rows and columns, parts of tiles, several of them; few rows and many columns, which are
# shared out in chunks where the columns have no gradient.
SIZES = [(1, 1, 3), (1, 300, 8), (300, 1, 8), (70, 90, 24), (257, 700, 65), (120, 6000, 4)]
NEEDS = [(True, True), (True, False), (False, True), (False, False)]


def problem(n, m, d, *, ids, positives_in, scale):
    make = torch.Generator().manual_seed(n + m)
    q, k = (nnf.normalize(torch.randn(size, d, generator=make).double()) for size in (n, m))
    pair = (torch.arange(n) % 7, torch.arange(m) % 9) if ids else None
    return fields(
        2 * q, 3 * k, scale=scale, logit_scale=torch.tensor(1.5), ids=pair,
        positives_in=positives_in, normalize=True,
    )  # fmt: skip


@built
@pytest.mark.parametrize("need", NEEDS)
@pytest.mark.parametrize("n, m, d", SIZES)
def test_kernel_equals_the_reference(n, m, d, need):
    for ids, positives_in, scale in ((True, True, 7.0), (True, False, 70.0), (False, True, 7.0)):
        p = problem(n, m, d, ids=ids, positives_in=positives_in, scale=scale)
        given = -3.0, torch.tensor(0.5), *need
        ours, expected = (
            call(module, "sigmoid_contrast", p, *given) for module in (ops, reference)
        )
        for x, y in zip(ours, expected, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)
