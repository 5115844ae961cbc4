"""Machine code of the kernels, without a GPU: no spills, enough shared memory, tensor cores.

The kernels of one case; `python -m benchmarks.static` compiles all of them, which takes too long
for a suite.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("nothing is compiled under the interpreter", allow_module_level=True)

from benchmarks import static  # noqa: E402
from benchmarks.machine_code import compile_kernel, tool  # noqa: E402
from fastcl.kernels import contrast_config as config  # noqa: E402


def slow(architecture):
    return pytest.param(architecture, marks=pytest.mark.slow)


def check(rows):
    rows = list(rows)
    assert rows
    for row in rows:
        assert row.spilled == 0, row
        assert row.fits, row
        if row.product:
            assert row.instructions["tensor"] > 0, row
            # ptxas serialises them, silently, where it cannot follow their registers.
            assert row.instructions["drains"] < row.instructions["tensor"], row


def launched(architecture, *kernels):
    """What NT-Xent launches: a forward and a backward."""
    found = static.found(architecture, ["NT-Xent 8,192 x 128"])
    return [x for x in found if not kernels or x.launch.name in kernels]


@pytest.mark.parametrize("architecture", [slow(80), 90, slow(100)])
def test_main_kernels(architecture):
    check(static.report(launched(architecture, "sums_kernel", "own_kernel")))


@pytest.mark.parametrize("architecture", [slow(80), 90])
def test_limits_and_guides(architecture):
    """A second product in the tile, or a comparison beside the exponential."""
    found = static.found(architecture, ["limit, wide", "guide"])
    check(static.report(x for x in found if x.launch.name in ("sums_kernel", "weights_kernel")))


def test_warpgroups_on_hopper():
    """Of 64 rows each: a kernel whose machine code has HMMA alone is on the slow path."""
    for x in launched(90, "sums_kernel", "own_kernel"):
        launch = x.launch
        built = compile_kernel(launch.kernel, *launch.specialised(), 90, dict(launch.options))
        assert built.code.warpgroups, launch.name


@pytest.mark.slow
def test_a_spill_is_seen(monkeypatch):
    """128 x 256 logits beside a gradient of 128 x 128 cannot fit, and the report says so."""
    tiles = config.tiles

    def too_large(*arguments):
        chosen = tiles(*arguments)
        return chosen._replace(own=chosen.own._replace(rows=128, columns=256, warps=8))

    monkeypatch.setattr(config, "tiles", too_large)
    rows = list(static.report(launched(90, "own_kernel")))
    assert rows and all(row.spilled > 0 for row in rows)


def test_compiled_part():
    rows = static.cuda_rows()
    if not rows:
        pytest.skip("no CUDA kernel was built")
    assert all(row.spilled == 0 and row.fits for row in rows), rows
    assert {row.architecture for row in rows} >= {80, 90}
    (sums,) = (r for r in rows if r.kernel == "hopper_sums_kernel" and r.architecture == 90)
    assert sums.instructions["tensor"] > 0 and sums.blocks == 1


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_barriers_do_not_fence_the_whole_gpu(tmp_path):
    """The two meetings of the cluster alone; at each step it would drop the first-level cache."""
    source = Path(__file__).parent.parent / "csrc" / "cuda" / "contrast_sums.cu"
    binary = tmp_path / "sums.cubin"
    flags = ["-std=c++20", "-O3", "-cubin", "-gencode", "arch=compute_90a,code=sm_90a"]
    subprocess.run(["nvcc", *flags, "-o", binary, source], check=True, capture_output=True)
    listing = tool("cuobjdump", "-sass", binary)
    assert "HGMMA" in listing
    assert listing.count("MEMBAR.ALL.GPU") == listing.count("CCTL.IVALL") == 2
