"""The general contrast needs memory that is linear in the rows, with any of its options."""

import subprocess
import sys
from pathlib import Path

import pytest
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


@pytest.mark.parametrize("name", OPTIONS)
def test_memory_is_below_the_matrix(name):
    """The highest resident size of a process, above what it had after a small step."""
    program = f"""
import resource, sys, torch
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import fastcl.functional as F
torch.set_num_threads(2)
def step(n):
    q, k = (torch.randn(n, 16, requires_grad=True) for _ in "12")
    ids, weight = torch.arange(n) // 2, torch.rand(n)
    levels, targets = torch.stack([ids, ids // 8], 1), torch.rand(n, 8)
    F.contrast(q, k, {OPTIONS[name]}).backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = step(300)
print(step({ROWS}) - before)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    used = float(result.stdout)
    assert used < 220, f"{used:.1f} MB above a small step"
