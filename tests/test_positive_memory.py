"""The general contrast needs memory that is linear in the rows, with any of its options."""

import pytest
from forked import printed
from processors import built

pytestmark = built

# The matrix alone would be 256 MB, and its gradient as much.
ROWS = 8192
OPTIONS = {
    "diagonal": "both=True",
    "labels": "labels=(ids, ids)",
    "levels": "labels=(levels, levels)",
    "targets": "targets=(targets, targets)",
    "pairs": "pairs=(ids, ids.flip(0), None), positives='sum'",
    "sum": "labels=(ids, ids), positives='sum'",
    "bias": "column_bias=weight, row_weight=weight",
    "temperatures": "temperature=weight + 0.1",
    "smoothing": "label_smoothing=0.1",
    "margin": "margin=0.1, both=True",
    "guide": "guide=(targets, targets)",
}


PROGRAM = """
import resource, torch
import fastcl.functional as F
torch.set_num_threads(2)
def step(n):
    q, k = (torch.randn(n, 16, requires_grad=True) for _ in "12")
    ids, weight = torch.arange(n) // 2, torch.rand(n)
    levels, targets = torch.stack([ids, ids // 8], 1), torch.rand(n, 8)
    {loss}.backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = step(300)
print(step({rows}) - before)
"""


@pytest.fixture(scope="module")
def used():
    """The highest resident size of a process, above what it had after a small step, in MB."""
    losses = {name: f"F.contrast(q, k, {options})" for name, options in OPTIONS.items()}
    losses["the matrix"] = "(q @ k.T).exp().sum()"
    return printed({name: PROGRAM.format(loss=x, rows=ROWS) for name, x in losses.items()})


@pytest.mark.parametrize("name", OPTIONS)
def test_memory_is_below_the_matrix(used, name):
    assert float(used[name]) < 220, f"{used[name]} MB above a small step"


def test_the_matrix_would_show(used):
    """A negative control."""
    assert float(used["the matrix"]) > 500
