"""What the compiled contrast needs beside its inputs and outputs."""

import pytest
from forked import printed
from processors import built

pytestmark = built

FORMS = {"both": "float32", "symmetric": "float16", "own": "float32"}
PROGRAM = """
import resource, torch
from contrasts import fields
from fastcl._library import ops
torch.set_num_threads(2)
form, n, m = "{form}", *((256, 65536) if "{form}" == "own" else (16384, 16384))
make = lambda n: torch.nn.functional.normalize(torch.randn(n, 16)).to(torch.{dtype})
def step(n, m):
    q, k, own = make(n), make(m), torch.zeros(n, 16) if form == "own" else None
    k, ids = (() if form == "symmetric" else k), torch.arange(n) // 2
    p = fields(
        q, k, scale=10.0, ids=None if form == "own" else ids, own=own, both=form == "both")
    outputs = [torch.ones(n, 16) for _ in range(2 * (n < m) + 1)] + [torch.ones(8, m)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    del outputs
    rows, cols, _, weighted = ops.contrast_forward(*p, None, True, form == "both")
    g = torch.ones(n) / n
    gc = torch.ones(m) / m if form == "both" else None
    ops.contrast_backward(*p, rows, cols, weighted, g, None, gc, None, True, form == "both", False,
                          False)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
step(300, 300)
print(step(n, m))
"""

# Operators of one pass, above their inputs and what they return: a triangle of tiles that is a
# little too large to be kept, and few wide rows whose columns are shared out in chunks.
PASSES = {
    "triangle": "3100, 3100, 16, ops.contrast_mean, True, False, False, False",
    "chunks": "256, 8192, 1024, ops.sigmoid_contrast, -10.0, None, True, False",
}
PASS = """
import resource, torch
from contrasts import fields
from fastcl._library import ops
torch.set_num_threads(2)
n, m, d, operator, *more = {what}
def step(n, m):
    make = lambda n: torch.randn(n, d).div_(d**0.5)
    alone = operator is ops.contrast_mean
    p = fields(
        make(n), () if alone else make(m), scale=10.0, ids=torch.arange(n) // 2 if alone else None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = operator(*p, *more)
    returned = sum(x.nbytes for x in found) / 1024
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before - returned) / 1024
step(300, 300)
print(step(n, m))
"""


@pytest.fixture(scope="module")
def used():
    """The highest resident size of a process, above what it had with inputs and outputs in hand."""
    programs = {form: PROGRAM.format(form=form, dtype=dtype) for form, dtype in FORMS.items()}
    programs |= {name: PASS.format(what=what) for name, what in PASSES.items()}
    return printed(programs, "import torch, fastcl, contrasts")


@pytest.mark.parametrize("form", [*FORMS, *PASSES])
def test_extra_memory_stays_below_16_MB(used, form):
    assert float(used[form]) < 16, f"{used[form]} MB above the inputs and outputs"
